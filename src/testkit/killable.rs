//! Runs a service in virtual time until it is killed.

use super::Fakes;

/// Runs `service` on a single-threaded tokio runtime of its own with a paused clock. When it returns, the runtime goes: every
/// task that is left is dropped where it waits, as a process is that is killed. What is on the engine and on the disk
/// stays, and the next service takes up there, at the time that this one ended.
///
/// Must not be called from within a runtime.
///
/// # Panics
/// If the system gives no runtime.
pub fn run_until_killed<T>(fakes: &Fakes, service: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // A task's turn is as short as can be, so that `service` can end between any two of them.
        .event_interval(1)
        .build()
        .expect("a runtime without I/O needs nothing but memory");
    runtime.block_on(async {
        fakes.engine().go_on();
        let outcome = service.await;
        // Outside of the runtime there is no clock that stands still.
        fakes.engine().stand_still();
        outcome
    })
}
