//! What happens to agents and to their cluster behind the control plane's back. Never are there two runs of an agent: the
//! name of its Pod sees to it, and an independent watch looks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{self, ZEROCLAW};
use crate::life::{Zeroone, pod_of};
use crate::twins::Twins;
use crate::world::{World, until};

pub(crate) fn uid(world: &World, pod: &str) -> Option<String> {
    world.kubectl(&["get", "pod", pod, "--output", "jsonpath={.metadata.uid}"]).ok()
}

pub(crate) async fn a_killed_container_comes_back(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let container = world.container(&pod_of(&id)).unwrap();
    cluster::ok(&["docker", "kill", &container]);
    until("another run", async || {
        let agent = zeroone.agent(&id).await;
        (agent["restarts"].as_u64() > Some(0) && agent["status"] == "RUNNING").then_some(())
    })
    .await;
    zeroone.talk(&id).await;
    let events = zeroone.service.get(&format!("/api/agents/{id}/events")).await.1.to_string();
    assert!(events.contains("137"), "{events}");
    // The node restarts the container where it is, or we made another Pod: one of the two, never both.
    assert_eq!(world.names("pods").len(), 1);
    twins.were_none(2).await;
}

pub(crate) async fn a_pod_that_was_deleted_by_hand_comes_back(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let before = uid(world, &pod_of(&id)).unwrap();
    world.kubectl(&["delete", "pod", &pod_of(&id), "--wait=false"]).unwrap();
    until("another Pod", async || uid(world, &pod_of(&id)).filter(|uid| *uid != before)).await;
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    assert_eq!(world.names("pods"), [pod_of(&id)]);
    twins.were_none(2).await;
}

pub(crate) async fn a_missing_image_is_told(world: &World) {
    let zeroone = Zeroone::start(world, "zeroclaw:0.8.99").await;
    let id = zeroone.create().await;
    let waits = until("the reason shows", async || {
        let agent = zeroone.agent(&id).await;
        agent["statusReason"]["message"].as_str().filter(|why| why.contains("Image")).map(str::to_owned)
    })
    .await;
    assert!(waits.contains("0.8.99") || waits.contains("ImagePull"), "{waits}");
    let failed = zeroone.becomes(&id, "ERROR").await;
    let reason = failed["statusReason"]["message"].as_str().unwrap();
    assert!(reason.contains("ImagePull"), "{failed:#}");
}

pub(crate) async fn a_quota_that_is_used_up_is_told(world: &World) {
    cluster::apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": "agents", "namespace": world.namespace }, "spec": { "hard": { "pods": "1" } },
    }));
    until("the quota counts", async || {
        (world.get(&["resourcequota", "agents"])["status"]["hard"]["pods"] == "1").then_some(())
    })
    .await;
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let first = zeroone.running().await;
    let second = zeroone.create().await;
    until("the quota is told", async || {
        let agent = zeroone.agent(&second).await;
        let told = agent["statusReason"]["message"].as_str().is_some_and(|why| why.contains("exceeded quota"));
        (told && agent["statusReason"]["code"] != Value::Null).then_some(())
    })
    .await;
    // Room again: it starts by itself, or as soon as somebody says so.
    zeroone.tell(&first, "stop").await;
    zeroone.becomes(&first, "STOPPED").await;
    zeroone.tell(&second, "start").await;
    zeroone.becomes(&second, "RUNNING").await;
}

/// Killed in each step of a deployment: the agent runs in the end, once.
pub(crate) async fn a_control_plane_that_is_killed_goes_on_at_every_step(world: &World) {
    let twins = Twins::watch(world);
    let mut zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.create().await;
    let steps: [&[&str]; 3] = [&["secrets"], &["pods"], &["pods", "--field-selector", "status.phase=Running"]];
    for step in steps {
        until("the step is done", async || {
            let list = world.get(step);
            let ours = |item: &Value| item["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("zc-"));
            list["items"].as_array()?.iter().any(ours).then_some(())
        })
        .await;
        zeroone.kill_and_start();
    }
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    let uid_of_run = uid(world, &pod_of(&id)).unwrap();
    zeroone.kill_and_start();
    zeroone.becomes(&id, "RUNNING").await;
    zeroone.talk(&id).await;
    assert_eq!(uid(world, &pod_of(&id)), Some(uid_of_run), "what runs is taken over as it is");
    assert_eq!(world.left().len(), 3, "one Pod, one Secret, one claim: {:?}", world.left());
    twins.were_none(1).await;
}

pub(crate) async fn an_api_server_that_is_killed_or_stopped_harms_nobody(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let before = uid(world, &pod_of(&id)).unwrap();
    cluster::ok(&["signal", "STOP", "kube-apiserver"]);
    let hung = async {
        // The data path needs no API server.
        zeroone.talk(&id).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        zeroone.talk(&id).await;
    };
    hung.await;
    let (_, ready) = zeroone.service.get("/readyz?verbose").await;
    cluster::ok(&["signal", "CONT", "kube-apiserver"]);
    assert!(ready.to_string().contains("no answer") || ready.to_string().contains("not answer"), "{ready}");
    cluster::ok(&["signal", "KILL", "kube-apiserver"]);
    zeroone.talk(&id).await;
    cluster::ok(&["start", "kube-apiserver"]);
    until("the cluster is seen again", async || (zeroone.service.get("/readyz").await.0 == 200).then_some(())).await;
    let agent = zeroone.agent(&id).await;
    assert_eq!((agent["status"].as_str(), agent["restarts"].as_u64()), (Some("RUNNING"), Some(0)), "{agent:#}");
    assert_eq!(uid(world, &pod_of(&id)), Some(before.clone()));
    // And what happens from now on is heard of.
    world.kubectl(&["delete", "pod", &pod_of(&id), "--wait=false"]).unwrap();
    until("another Pod", async || uid(world, &pod_of(&id)).filter(|uid| *uid != before)).await;
    zeroone.becomes(&id, "RUNNING").await;
    twins.were_none(2).await;
}

pub(crate) async fn a_node_that_is_lost_gets_no_second_pod(world: &World) {
    let twins = Twins::watch(world);
    let zeroone = Zeroone::start(world, ZEROCLAW[0]).await;
    let id = zeroone.running().await;
    let before = uid(world, &pod_of(&id)).unwrap();
    let container = world.container(&pod_of(&id)).unwrap();
    cluster::ok(&["signal", "KILL", "kubelet"]);
    let told = until("it is unknown", async || {
        let (_, why) = zeroone.service.get(&format!("/api/agents/{id}/explain")).await;
        why["unknownSince"].is_string().then_some(())
    });
    told.await;
    // The agent hangs, and nobody can tell whether it does.
    cluster::ok(&["docker", "pause", &container]);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(uid(world, &pod_of(&id)), Some(before.clone()), "a second one was started");
    }
    cluster::ok(&["docker", "unpause", &container]);
    cluster::ok(&["start", "kubelet"]);
    zeroone.becomes(&id, "RUNNING").await;
    until("it answers", async || {
        let agent = zeroone.agent(&id).await;
        (agent["status"] == "RUNNING" && agent["statusReason"] == Value::Null).then_some(())
    })
    .await;
    zeroone.talk(&id).await;
    assert_eq!(uid(world, &pod_of(&id)), Some(before), "it is the one that it was");
    twins.were_none(1).await;
}
