//! What the API server shows of an instance, as the trait says it. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::objects::{CONTAINER, Recipe, key_of};
use crate::domain::{Exit, RunId, Timestamp};
use crate::runtime::{InstanceState, ObservedInstance, Run, Wait};
use crate::zeroclaw::profile::GATEWAY_PORT;

/// What a node is stuck with until somebody changes something.
const STUCK: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
];

/// An instance without a Pod.
pub(super) fn of_secret(meta: &ObjectMeta) -> Option<ObservedInstance> {
    let recipe = Recipe::read(meta)?;
    Some(ObservedInstance {
        key: key_of(meta)?,
        state: InstanceState::Created,
        engine_id: meta.name.clone().unwrap_or_default(),
        spec_hash: recipe.spec_hash,
        died: None,
        created_now: false,
        data_created_now: false,
    })
}

/// An instance with one.
pub(super) fn of_pod(pod: &Pod, now: Timestamp) -> Option<ObservedInstance> {
    let recipe = Recipe::read(&pod.metadata)?;
    let state = state(pod, now);
    let died = match &state {
        InstanceState::Running(_) | InstanceState::Starting(_) => last_exit(pod),
        _ => None,
    };
    Some(ObservedInstance {
        key: key_of(&pod.metadata)?,
        state,
        engine_id: pod.metadata.name.clone().unwrap_or_default(),
        spec_hash: recipe.spec_hash,
        died,
        created_now: false,
        data_created_now: false,
    })
}

pub(super) fn state(pod: &Pod, now: Timestamp) -> InstanceState {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let run = run(pod, status);
    // Before everything else: the API server knows no more of it than it did then.
    if let Some(run) = run.clone().filter(|_| is_lost(pod, status, now)) {
        return InstanceState::Unreachable(run);
    }
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return InstanceState::Exited(ended(status));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return run.map_or_else(|| starting(pod, "it is being removed", false), InstanceState::Ending);
    }
    let container = container(status);
    match container.and_then(|container| container.state.as_ref()) {
        Some(ContainerState { running: Some(_), .. }) => {
            run.map_or_else(|| starting(pod, "it has no address yet", false), InstanceState::Running)
        }
        Some(ContainerState { terminated: Some(terminated), .. }) => InstanceState::Exited(exit(terminated)),
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            match last_exit(pod) {
                Some(exit) if reason == "CrashLoopBackOff" => InstanceState::Exited(exit),
                _ if reason == "PodInitializing" => initializing(pod, status),
                _ => waiting_for(pod, reason, waiting.message.as_deref()),
            }
        }
        _ => initializing(pod, status),
    }
}

/// Its files are being staged, or it has no node yet.
fn initializing(pod: &Pod, status: &PodStatus) -> InstanceState {
    let states = status.init_container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
    for state in states {
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            if reason != "PodInitializing" {
                return waiting_for(pod, reason, waiting.message.as_deref());
            }
        }
        if let Some(terminated) = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0) {
            let why = terminated.message.as_deref().or(terminated.reason.as_deref()).unwrap_or("it failed");
            return starting(pod, &format!("its files cannot be staged: {why}"), true);
        }
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    match scheduled {
        Some(condition) if condition.status == "False" => {
            starting(pod, condition.message.as_deref().unwrap_or("no node has been found"), false)
        }
        Some(_) => starting(pod, "its node prepares it", false),
        None => starting(pod, "the scheduler looks for a node", false),
    }
}

fn waiting_for(pod: &Pod, reason: &str, message: Option<&str>) -> InstanceState {
    let why = message.map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"));
    starting(pod, &why, STUCK.contains(&reason))
}

fn starting(pod: &Pod, why: &str, stuck: bool) -> InstanceState {
    let since = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    InstanceState::Starting(Wait { since, why: Arc::from(why), stuck })
}

/// Whether nobody hears of its node. We put no readiness probe into it, so a node says "ready" of each container that
/// runs; only the controller that watches nodes takes that back. A deletion that no node confirms tells it as well.
fn is_lost(pod: &Pod, status: &PodStatus, now: Timestamp) -> bool {
    let condition = |kind: &str| {
        status.conditions.iter().flatten().find(|condition| condition.type_ == kind).map(|found| found.status.as_str())
    };
    let forgotten = pod.metadata.deletion_timestamp.as_ref().is_some_and(|until| is_unconfirmed(until.0, now));
    let runs = container(status)
        .is_some_and(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
    runs && (forgotten
        || status.reason.as_deref() == Some("NodeLost")
        || (condition("Ready") == Some("False") && condition("ContainersReady") == Some("True")))
}

/// Whether a Pod that was to be gone by then has no node that would confirm it.
pub(super) fn is_unconfirmed(gone_by: Timestamp, now: Timestamp) -> bool {
    crate::domain::elapsed(gone_by, now) > UNCONFIRMED
}

/// A node that is there confirms the end of a Pod within some seconds of its time.
const UNCONFIRMED: std::time::Duration = std::time::Duration::from_secs(60);

/// The run of the container that there is, over or not.
pub(super) fn run(pod: &Pod, status: &PodStatus) -> Option<Run> {
    let container = container(status)?;
    let state = container.state.as_ref()?;
    let began = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    let began = began.or_else(|| state.terminated.as_ref()?.started_at.as_ref())?;
    let address: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    Some(Run {
        run_id: run_id(pod, container.container_id.as_deref()?)?,
        started_at: began.0,
        endpoint: SocketAddr::new(address, GATEWAY_PORT),
    })
}

/// Each container of each Pod is a run of its own.
fn run_id(pod: &Pod, container: &str) -> Option<RunId> {
    let id = container.rsplit('/').next().unwrap_or(container);
    Some(RunId(format!("{}/{}", pod.metadata.uid.as_deref()?, id.get(..12).unwrap_or(id)).into()))
}

/// Whether its node is about to start the container again, without a wait in between.
pub(super) fn is_restarted(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let over = container(status)
        .and_then(|container| container.state.as_ref())
        .is_some_and(|state| state.terminated.is_some());
    over && pod.metadata.deletion_timestamp.is_none() && status.phase.as_deref() == Some("Running")
}

fn container(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER)
}

/// How the container before the present one ended.
fn last_exit(pod: &Pod) -> Option<Exit> {
    container(pod.status.as_ref()?)?.last_state.as_ref()?.terminated.as_ref().map(exit)
}

fn exit(terminated: &ContainerStateTerminated) -> Exit {
    let oom = terminated.reason.as_deref() == Some("OOMKilled");
    Exit { code: Some(terminated.exit_code), oom, asked: false, reason: None }
}

/// The end of a Pod that nobody restarts: a node has evicted it, or was shut down.
fn ended(status: &PodStatus) -> Exit {
    let terminated = container(status).and_then(|container| container.state.as_ref()?.terminated.as_ref());
    let told = terminated.map(exit).unwrap_or_default();
    let reason = status.reason.as_deref().map(|reason| match status.message.as_deref() {
        Some(message) => format!("{reason}: {message}").into(),
        None => Arc::from(reason),
    });
    Exit { reason, ..told }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "status": status,
        }))
        .unwrap()
    }

    fn with_container(container: Value) -> Pod {
        let mut whole = json!({ "name": "agent", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "docker://0123456789abcdef" });
        whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        pod(json!({ "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [whole] }))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn seen(pod: &Pod) -> InstanceState {
        state(pod, at("2026-01-01T01:00:00Z"))
    }

    fn run_of_it() -> Run {
        let endpoint = SocketAddr::from(([10, 0, 0, 7], GATEWAY_PORT));
        Run { run_id: RunId("u/0123456789ab".into()), started_at: at("2026-01-01T00:00:01Z"), endpoint }
    }

    const RUNS: &str = r#"{"running":{"startedAt":"2026-01-01T00:00:01Z"}}"#;

    fn runs() -> Value {
        serde_json::from_str(RUNS).unwrap()
    }

    fn why(state: InstanceState) -> (String, bool) {
        let InstanceState::Starting(wait) = state else { panic!("{state:?}") };
        (wait.why.to_string(), wait.stuck)
    }

    #[test]
    fn a_run_is_a_container_of_a_pod() {
        assert_eq!(seen(&with_container(json!({ "state": runs() }))), InstanceState::Running(run_of_it()));
    }

    #[test]
    fn what_is_waited_for_is_told() {
        assert_eq!(why(seen(&pod(json!({})))), ("the scheduler looks for a node".into(), false));
        let full = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "message": "0/3 nodes are available: 3 Insufficient memory." }] });
        assert_eq!(why(seen(&pod(full))), ("0/3 nodes are available: 3 Insufficient memory.".into(), false));
        let pulling = json!({ "state": { "waiting": { "reason": "ContainerCreating" } } });
        assert_eq!(why(seen(&with_container(pulling))), ("ContainerCreating".into(), false));
        let missing = json!({ "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } } });
        assert_eq!(why(seen(&with_container(missing))), ("ErrImagePull: no such image".into(), true));
    }

    #[test]
    fn ends_have_code_and_reason() {
        let ended = |reason: &str| json!({ "terminated": { "exitCode": 137, "reason": reason } });
        let died = with_container(json!({ "state": ended("Error") }));
        assert_eq!(seen(&died), InstanceState::Exited(Exit::with_code(137)));
        let waits = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let loops = with_container(json!({ "state": waits, "lastState": ended("OOMKilled") }));
        assert_eq!(
            seen(&loops),
            InstanceState::Exited(Exit { code: Some(137), oom: true, asked: false, reason: None })
        );
        let evicted = pod(json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on disk" }));
        let reason = Some("Evicted: The node was low on disk".into());
        assert_eq!(seen(&evicted), InstanceState::Exited(Exit { code: None, oom: false, asked: false, reason }));
    }

    #[test]
    fn a_lost_node_and_an_end_that_is_under_way_are_told_apart() {
        let mut lost = with_container(json!({ "state": runs() }));
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status });
        let told = json!([condition("Ready", "False"), condition("ContainersReady", "True")]);
        lost.status.as_mut().unwrap().conditions = serde_json::from_value(told).unwrap();
        assert_eq!(seen(&lost), InstanceState::Unreachable(run_of_it()));

        let mut ending = with_container(json!({ "state": runs() }));
        ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:59:30Z")).unwrap();
        assert_eq!(seen(&ending), InstanceState::Ending(run_of_it()));
        ending.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:30Z")).unwrap();
        assert_eq!(seen(&ending), InstanceState::Unreachable(run_of_it()), "no node has confirmed it");
    }
}
