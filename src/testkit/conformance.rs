//! What every [`ContainerRuntime`] must do, whatever it runs instances with: a suite for runtimes of one's own.
//!
//! A test says how to make a [`Subject`] and gets one test for each behaviour:
//!
//! ```ignore
//! zeroone::testkit::conformance::tests!(MySubject::new());
//! ```
//! Each behaviour is a function as well, whose documentation is the duty that it checks. The suite grows with the trait: it
//! is not stable as an API. It takes real time, so it must not run under a paused clock.

mod data;
mod lifecycle;
mod logs;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::domain::{AgentId, HostPort, Secret, Slug};
use crate::runtime::{
    ContainerRuntime, DataPolicy, Exit, InstanceKey, InstanceSpec, InstanceState, LogLine, LogQuery, ObservedInstance,
    Run, StagedFile,
};
use futures_util::future::BoxFuture;
use futures_util::stream::StreamExt;

/// A runtime under test, and the hands that do to its instances what the runtime itself would not.
pub trait Subject: Send + Sync {
    /// The runtime under test; each call gives the same one.
    fn runtime(&self) -> Arc<dyn ContainerRuntime>;

    /// The same installation's runtime as a restarted service opens it, beside the first one.
    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>>;

    /// Another installation's runtime on the same engine.
    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>>;

    /// The command of an instance that behaves like this.
    fn command(&self, act: Act) -> Vec<String>;

    /// Ends the instance as a crash would: behind the runtime's back.
    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()>;

    /// Keeps the instance from running without ending it.
    fn pause<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()>;

    /// Listens on the port as a stranger, until what is given back is dropped.
    fn stranger(&self, port: HostPort) -> Box<dyn std::any::Any + Send + Sync> {
        Box::new(TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())).unwrap())
    }

    /// A file of the instance's data folder; `None` if it is not there.
    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>>;
}

/// What an instance does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Prints `line 1` to `line n`, then runs until it is asked to end.
    Count(u32),
    /// Prints `deaf` and runs on when asked to end.
    Deaf,
    /// Ends at once with this status.
    Exit(u8),
}

/// Passes all behaviours to another macro, behind what it is given itself: for a test file with a main of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_behaviours {
    ([$($then:tt)+] $($given:tt)*) => {
        $($then)+! { $($given)* =>
            created_once, started_once, nothing_to_do_is_success, another_hash_makes_it_anew, the_same_hash_is_adopted,
            files_are_staged_between_runs, what_is_not_there_cannot_start, every_start_has_a_run_id_of_its_own,
            exits_have_codes, grace_has_an_end, a_paused_instance_shows_and_can_be_killed, a_taken_port_is_named,
            a_crash_wakes_the_watch, logs_of_one_run_only, logs_by_tail_and_time, a_log_is_resumed_behind_any_line,
            followed_lines_come_once_until_the_end,
            another_installation_is_left_alone, removal_keeps_data_or_not, a_reopened_runtime_goes_on,
            starts_at_once_are_one, usage_of_what_runs, whose_it_is_outlives_everything_else, data_is_read_and_written
        }
    };
}

/// One test for each behaviour, on a subject of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($subject:expr) => {
        $crate::testkit::conformance::behaviours! { [$crate::testkit::conformance::tests] $subject }
    };
    ($subject:expr => $($behaviour:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let subject = $subject;
                $crate::testkit::conformance::$behaviour(&subject).await;
            }
        )+
    };
}
pub use crate::__conformance_behaviours as behaviours;
pub use crate::__conformance_tests as tests;
pub use data::*;
pub use lifecycle::*;
pub use logs::*;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long an instance may take to stop.
pub const GRACE: Duration = Duration::from_secs(20);

/// A spec for a new agent.
pub fn spec(subject: &dyn Subject, act: Act) -> InstanceSpec {
    let agent = AgentId::new();
    InstanceSpec {
        // A slug of its own: on a common engine it is a name, and tests run side by side.
        key: InstanceKey { agent, slug: Slug::parse(&format!("c-{agent}")).unwrap() },
        generation: 1,
        command: subject.command(act),
        env: vec![("API_KEY".into(), "sk-planted-secret".into())],
        files: vec![file("workspace/FIRST.md", "first")],
        image: None,
        port: subject.runtime().caps().host_ports.then(port),
        cpu: 0.5,
        memory_mb: 128,
        own_network: false,
        host_name: None,
        origin: None,
    }
}

/// A file to be staged.
pub fn file(path: &'static str, content: &str) -> StagedFile {
    StagedFile { path: path.into(), content: Secret::new(content.as_bytes().to_vec()), mode: 0o600 }
}

/// A port that is free, and that no other test of this run takes: tests are threads of a process, or neighbouring ones.
pub fn port() -> HostPort {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() * 16 % 9_000).unwrap();
    loop {
        let port = HostPort::RANGE.start() + base + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return HostPort::try_from(port).unwrap();
        }
    }
}

/// Repeats `look` until it answers.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let patience = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < patience {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// What the runtime sees of an instance that must be there.
pub async fn observed(runtime: &dyn ContainerRuntime, key: &InstanceKey) -> ObservedInstance {
    runtime.observe(key).await.unwrap().expect("the instance is there")
}

/// Starts an instance that is there, and waits for its run.
pub async fn started(runtime: &dyn ContainerRuntime, key: &InstanceKey) -> Run {
    let mut state = runtime.start(key).await.unwrap();
    let patience = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < patience {
        match state {
            InstanceState::Running(run) => return run,
            InstanceState::Starting(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            state => panic!("it was started and is {state:?}"),
        }
        state = observed(runtime, key).await.state;
    }
    panic!("it does not run: {state:?}");
}

/// Whether nothing runs; an engine that keeps ended runs shows the last one.
pub fn at_rest(runtime: &dyn ContainerRuntime, state: &InstanceState) -> bool {
    match state {
        InstanceState::Exited(_) => true,
        InstanceState::Created => !runtime.caps().keeps_ended_runs,
        _ => false,
    }
}

/// A file that was staged, read as soon as it must be in the data.
pub async fn staged(subject: &dyn Subject, key: &InstanceKey, path: &str) -> Option<Vec<u8>> {
    let runtime = subject.runtime();
    let starts = runtime.caps().stages_at_start && runtime.observe(key).await.unwrap()?.run().is_none();
    if starts {
        started(&*runtime, key).await;
    }
    let content = subject.read(key, path).await;
    if starts {
        runtime.kill(key).await.unwrap();
    }
    content
}

/// Waits for the exit of an instance that must be there.
pub async fn exited(runtime: &dyn ContainerRuntime, key: &InstanceKey) -> Exit {
    until("the instance exits", || async {
        match runtime.observe(key).await.unwrap()?.state {
            InstanceState::Exited(exit) => Some(exit),
            _ => None,
        }
    })
    .await
}

/// All lines that a query gives.
pub async fn lines(runtime: &dyn ContainerRuntime, key: &InstanceKey, query: LogQuery) -> Vec<LogLine> {
    runtime.logs(key, query).await.unwrap().map(Result::unwrap).collect().await
}

/// Their texts.
pub async fn texts(runtime: &dyn ContainerRuntime, key: &InstanceKey, query: LogQuery) -> Vec<String> {
    lines(runtime, key, query).await.into_iter().map(|line| line.text).collect()
}

/// Waits until the instance has printed this line.
pub async fn printed(runtime: &dyn ContainerRuntime, key: &InstanceKey, run: &Run, text: &str) {
    let query = LogQuery { run_id: Some(run.run_id.clone()), ..LogQuery::default() };
    until(text, || async { texts(runtime, key, query.clone()).await.iter().any(|line| line == text).then_some(()) })
        .await;
}

/// What [`Act::Count`] prints.
pub fn counted(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

/// Removes an instance with its data.
pub async fn end(subject: &dyn Subject, key: &InstanceKey) {
    subject.runtime().remove(key, DataPolicy::Remove).await.unwrap();
}
