//! # blas — what is asked of OpenBLAS, and how it is kept from changing the answer
//!
//! In:    nothing. Out: a fingerprint of the BLAS kernels in use. Talks: [`prepare`] and [`check_same_on_all_ranks`].
//! Never: numbers of a model.
//!
//! OpenBLAS has other bits with two threads than with one, and other kernels on other processors (`EXACT` 4.3, 4.4).
//! So it runs single-threaded (rayon and ranks share the work instead), and ranks whose kernels differ are refused.

use crate::comm::Communicator;
use crate::error::{Error, Result};
use ndarray_linalg::{Lapack, MatrixLayout, UPLO};
use std::sync::OnceLock;

/// The two switches and two names of OpenBLAS that LAPACK's interface has no word for.
#[allow(unsafe_code, reason = "OpenBLAS is a C library without a safe wrapper of these four calls")]
mod openblas {
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::{Mutex, PoisonError};

    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
        fn openblas_get_num_threads() -> c_int;
        fn openblas_get_corename() -> *const c_char;
        fn openblas_get_config() -> *const c_char;
    }

    /// Held during each of the four calls: ranks of one process make them at once, and `openblas_get_config` composes
    /// its text anew in one static buffer, where a second caller was seen to read half of it.
    static CALLS: Mutex<()> = Mutex::new(());

    /// Asks for one thread, unless there is only one, and returns how many there are then.
    pub fn set_one_thread() -> i32 {
        let _alone = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: both take and return plain integers; CALLS keeps other callers out. The number is written only while
        // it is not 1, that is before this process's first solver calls LAPACK, so not under a running computation.
        unsafe {
            if openblas_get_num_threads() != 1 {
                openblas_set_num_threads(1);
            }
            openblas_get_num_threads()
        }
    }

    /// (core name, version and build options).
    pub fn names() -> (String, String) {
        let _alone = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |pointer: *const c_char| match pointer.is_null() {
            true => String::from("unknown"),
            // SAFETY: not null (tested above), and NUL-terminated text in static memory, which nobody writes while
            // CALLS is held.
            false => unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned(),
        };
        // SAFETY: no arguments; CALLS is held until both texts are copied.
        unsafe { (text(openblas_get_corename()), text(openblas_get_config())) }
    }
}

/// Makes OpenBLAS work in the thread that calls it. Not collective.
///
/// # Errors
/// `Usage`, if it keeps several threads all the same (builds with OpenMP have done so).
///
/// Source: `openblas_set_num_threads`, read back as in `EXACT` 4.3.
pub fn single_thread() -> Result<()> {
    match openblas::set_one_thread() {
        1 => Ok(()),
        threads => Err(Error::usage(format!(
            "OpenBLAS keeps {threads} threads although 1 was asked for, and its results depend on their number; \
             set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1"
        ))),
    }
}

/// What decides the bits of BLAS and LAPACK here, as `core | version and options | hash`. Not collective.
///
/// The hash is BLAKE3 (32 hex digits) of the bits of a Cholesky and a QR factor of fixed matrices, so that libraries
/// that call themselves alike and still differ are found. About a millisecond, once per process.
pub fn fingerprint() -> String {
    static OF_PROCESS: OnceLock<String> = OnceLock::new();
    let make = || {
        let (core, config) = openblas::names();
        format!("{core} | {config} | {}", probe())
    };
    OF_PROCESS.get_or_init(make).clone()
}

/// Hash of the factors of fixed matrices that are large enough to enter the blocked code.
fn probe() -> String {
    let (m, n) = (193, 97);
    let entry = |i: usize, j: usize| ((i * 7919 + j * 104_729 + i * j * 31) % 2003) as f64 / 1001.5 - 1.0;
    let mut tall: Vec<f64> = (0..m * n).map(|k| entry(k % m, k / m)).collect();
    let mut square: Vec<f64> = (0..n * n).map(|k| entry(k % n + k / n, (k % n) * (k / n))).collect();
    for i in 0..n {
        square[i * n + i] += 2.0 * n as f64;
    }
    let mut hash = blake3::Hasher::new();
    let qr = f64::householder(MatrixLayout::F { col: n as i32, lda: m as i32 }, &mut tall);
    let cholesky = f64::cholesky(MatrixLayout::F { col: n as i32, lda: n as i32 }, UPLO::Lower, &mut square);
    hash.update(&[u8::from(qr.is_ok()), u8::from(cholesky.is_ok())]);
    for value in tall.iter().chain(&square) {
        hash.update(&value.to_bits().to_le_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}

/// Refuses a world whose ranks have different BLAS kernels. Collective.
///
/// # Errors
/// `Usage` on every rank, with two host names and the cure.
pub fn check_same_on_all_ranks(comm: &Communicator) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "an unnamed host" } else { host.trim() };
    let mine = format!("{host}\n{}", fingerprint());
    let all = comm.all_gather_bytes(mine.as_bytes())?;
    let texts: Vec<String> =
        (0..comm.size()).map(|rank| String::from_utf8_lossy(all.of_rank(rank)).into_owned()).collect();
    refuse_differences(&texts)
}

/// `of_ranks`: host name, line feed, fingerprint.
fn refuse_differences(of_ranks: &[String]) -> Result<()> {
    let split = |text: &'_ str| -> (String, String) {
        let (host, fingerprint) = text.split_once('\n').unwrap_or(("an unnamed host", text));
        (host.to_owned(), fingerprint.to_owned())
    };
    let (first_host, first) = split(&of_ranks[0]);
    for (rank, text) in of_ranks.iter().enumerate().skip(1) {
        let (host, fingerprint) = split(text);
        if fingerprint != first {
            return Err(Error::usage(format!(
                "rank 0 on {first_host} has OpenBLAS {first}, but rank {rank} on {host} has {fingerprint}: their results \
                 differ in the last bits; set OPENBLAS_CORETYPE=Haswell for all ranks (and use one OpenBLAS version), \
                 or run on equal processors"
            )));
        }
    }
    Ok(())
}

/// [`single_thread`] and [`check_same_on_all_ranks`]: what a solver does before it calls LAPACK. Collective.
///
/// # Errors
/// Theirs, on every rank.
pub fn prepare(comm: &Communicator) -> Result<()> {
    comm.agree(single_thread())?;
    check_same_on_all_ranks(comm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::run_threads;

    #[test]
    fn one_machine_agrees_with_itself() {
        single_thread().unwrap();
        let print = fingerprint();
        assert_eq!(probe(), probe());
        assert_eq!(print.split(" | ").count(), 3, "{print}");
        run_threads(3, 1, prepare).unwrap();
    }

    #[test]
    fn names_are_whole_whoever_else_asks() {
        let names = openblas::names();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..500).for_each(|_| assert_eq!(openblas::names(), names)));
            }
        });
    }

    #[test]
    fn mixed_processors_are_refused_with_hosts_and_cure() {
        let of = |host: &str, core: &str| format!("{host}\n{core} | OpenBLAS 0.3.21 | 00ff");
        refuse_differences(&[of("n1", "Haswell"), of("n2", "Haswell")]).unwrap();
        let error = refuse_differences(&[of("n1", "Haswell"), of("n2", "Haswell"), of("n7", "SkylakeX")]).unwrap_err();
        let text = error.to_string();
        for part in ["n1", "rank 2 on n7", "SkylakeX", "OPENBLAS_CORETYPE=Haswell"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        assert_eq!(error.kind().exit_code(), 2);
    }
}
