//! The `zeroone` program. So far it runs one thing: `zeroone gateway [--port PORT] [--host ADDRESS]`.

use std::process::ExitCode;

use zeroone::gateway;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("gateway") {
        eprintln!("usage: zeroone gateway [--port PORT] [--host ADDRESS]");
        return ExitCode::from(2);
    }
    match gateway(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn gateway(args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let options = gateway::Options::from_env(args)?;
    // One thread: an agent waits most of its life, and every worker thread costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(gateway::run(options))?)
}
