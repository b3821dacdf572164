//! OpenBLAS and its threads: one per call, since the bits of a product change with the number of BLAS threads.
//! Parallelism is ours, over blocks.

use crate::error::{Error, Result};
use ndarray_linalg as _;
use std::ffi::{CStr, c_char, c_int};

#[allow(unsafe_code, reason = "three functions of OpenBLAS that no crate offers")]
unsafe extern "C" {
    fn openblas_set_num_threads(n_threads: c_int);
    fn openblas_get_num_threads() -> c_int;
    fn openblas_get_config() -> *mut c_char;
}

/// Makes OpenBLAS compute on the calling thread only, and checks that it does.
#[allow(unsafe_code, reason = "calls into OpenBLAS")]
pub fn use_one_thread() -> Result<()> {
    // SAFETY: plain calls without pointers; `main` makes them before any other thread exists.
    let n_threads = unsafe {
        openblas_set_num_threads(1);
        openblas_get_num_threads()
    };
    match n_threads {
        1 => Ok(()),
        n => Err(Error::usage(format!(
            "OpenBLAS keeps {n} threads, which would change results; start with OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1"
        ))),
    }
}

/// Version, kernel family and build options in OpenBLAS's own words.
#[allow(unsafe_code, reason = "calls into OpenBLAS")]
pub fn description() -> String {
    // SAFETY: OpenBLAS returns a pointer to a static text that ends with NUL, or null.
    unsafe {
        let text = openblas_get_config();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().trim().to_string() }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thread_is_what_it_says_afterwards() {
        super::use_one_thread().unwrap();
        assert!(super::description().contains("OpenBLAS"));
    }
}
