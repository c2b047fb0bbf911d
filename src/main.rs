//! The `zeroone` program. What it does is in [`zeroone::cli`]; this is where the process's own state is read.

/// The C library's allocator takes an eighth of all that a request costs (benches/README.md), and threads wait for each other in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    zeroone::cli::run(std::env::args_os().collect(), environment)
}
