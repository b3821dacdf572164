//! The `consort` program: words in, exit code out. Everything else is in the library.

fn main() {
    std::process::exit(consort::cli::run(std::env::args_os().collect()));
}
