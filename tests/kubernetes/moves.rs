//! Agents that the cluster moves, cannot place, or ends for what they take.

use std::sync::Arc;

use serde_json::json;
use zeroone::runtime::{DataPolicy, InstanceState};
use zeroone::testkit::conformance::{self, Act, Subject as _};

use crate::chaos::uid;
use crate::cluster::{self, ZEROCLAW};
use crate::life::{Zeroone, pod_of};
use crate::subject::{KubernetesSubject, WORD};
use crate::twins::Twins;
use crate::world::{World, until};

/// What a status is said to wait for, before the cluster's own words.
const BUSY: &str = "the engine has yet to get the instance to run: 0/1 nodes are available";

pub(crate) async fn an_eviction_is_followed_by_another_pod(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let pod = pod_of(&id);
    let before = uid(world, &pod).unwrap();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", world.namespace);
    let eviction = json!({ "apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": { "name": pod } });
    cluster::with_input(&["kubectl", "create", "--raw", &path, "-f", "-"], &eviction);
    until("another Pod", async || uid(world, &pod).filter(|uid| *uid != before)).await;
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    twins.were_none(2).await;
}

/// The only node is drained: the agent waits, with the scheduler's reason, and starts when there is a node again.
pub(crate) async fn a_drained_node_gives_its_agents_away(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let node = Cordoned::drain(&format!("zeroone.dev/agent={id}"));
    let why = until("the reason shows", async || {
        let (_, why) = zeroone.service.get(&format!("/api/agents/{id}/explain")).await;
        Some(why.to_string()).filter(|why| why.contains("unschedulable"))
    })
    .await;
    assert!(why.contains(BUSY), "{why}");
    drop(node);
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    twins.were_none(2).await;
}

/// A node that takes no Pods, until this is dropped.
struct Cordoned;

impl Cordoned {
    fn drain(pods: &str) -> Self {
        let selector = format!("--pod-selector={pods}");
        let cordoned = Self;
        cluster::ok(&["kubectl", "drain", "n1", "--delete-emptydir-data", "--timeout=120s", &selector]);
        cordoned
    }
}

impl Drop for Cordoned {
    fn drop(&mut self) {
        let _ = cluster::tried(&["kubectl", "uncordon", "n1"]);
    }
}

pub(crate) async fn a_volume_that_never_comes_is_told(world: &World) {
    let zeroone = Zeroone::start_with(world, ZEROCLAW[0], &[("ZEROONE_KUBERNETES__STORAGE_CLASS", "none-such")]).await;
    let id = zeroone.create().await;
    let why = until("the reason shows", async || {
        let (_, why) = zeroone.service.get(&format!("/api/agents/{id}/explain")).await;
        Some(why.to_string()).filter(|why| why.contains("PersistentVolumeClaim"))
    })
    .await;
    assert!(why.contains(BUSY), "{why}");
    assert_eq!(zeroone.agent(&id).await["status"], "STARTING");
    zeroone.delete(&id).await;
    until("nothing is left", async || world.left().is_empty().then_some(())).await;
}

/// What takes more memory than its plan is ended by the kernel, and the reason is told.
pub(crate) async fn an_end_for_want_of_memory_is_told_apart(world: &Arc<World>) {
    let subject = KubernetesSubject::new(world).await;
    let runtime = subject.runtime();
    let spec = conformance::spec(&subject, Act::Deaf);
    let spec = spec.with_command(vec![WORD.into(), "hoard".into()]).with_memory_mb(64);
    runtime.ensure_created(&spec).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    // Every run ends so. The engine's word for it comes by an event of its own, which on a busy machine can be later than the
    // kubelet's look at one of them.
    let exit = until("it is ended for want of memory", async || {
        let seen = runtime.observe(&spec.key).await.unwrap()?;
        let exit = match seen.state {
            InstanceState::Exited(exit) => Some(exit),
            _ => seen.died,
        };
        exit.inspect(|exit| assert_eq!(exit.code, Some(137))).filter(|exit| exit.oom)
    })
    .await;
    assert!(!exit.asked);
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
}

pub(crate) async fn a_second_control_plane_is_refused(world: &World) {
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let before = uid(world, &pod_of(&id)).unwrap();
    let refused = zeroone.second();
    assert!(refused.contains("installation-in-use"), "{refused}");
    assert_eq!(uid(world, &pod_of(&id)), Some(before));
    zeroone.talk(&id).await;
}
