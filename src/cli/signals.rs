//! SIGTERM and SIGINT: the first ends the service in order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a program that a signal ended, for those who asked twice: 128 and the signal's number, as shells have it.
const TERMINATED: i32 = 128 + 15;
const INTERRUPTED: i32 = 128 + 2;

/// Cancels `closing` at the first signal. Must be called before anything worth ending has begun.
pub(super) fn close_on_signal(closing: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        closing.cancel();
        #[expect(clippy::disallowed_methods, reason = "what was acknowledged is durable, so nothing is lost by this")]
        std::process::exit(next(&mut terminate, &mut interrupt).await);
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => TERMINATED,
        _ = interrupt.recv() => INTERRUPTED,
    }
}
