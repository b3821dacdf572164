//! The `consort` program: words in, exit code out. Everything else is in the library.

fn main() {
    read_without_locks();
    std::process::exit(consort::cli::run(std::env::args_os().collect()));
}

/// No file is locked, for the whole process: the HDF5 library opens the sources of virtual datasets and of external links by itself,
/// and takes one that is open with other locks for missing.
#[allow(unsafe_code, reason = "the environment of the process, which the library looks at when it is first called")]
fn read_without_locks() {
    const LOCKING: &str = "HDF5_USE_FILE_LOCKING";
    if std::env::var_os(LOCKING).is_none() {
        // SAFETY: no other thread is there yet.
        unsafe { std::env::set_var(LOCKING, "FALSE") };
    }
}
