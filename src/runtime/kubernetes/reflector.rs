//! What the API server told of an installation's Pods and Secrets: listed once, then kept up to date by the watch.
//!
//! With it, looking at an instance and listing all of them cost the API server nothing, however many there are: it has to read
//! all objects of a namespace to find those of one label. It is used only while its watch is alive; without one, each look
//! is a question. What changes an instance asks for its Pod itself all the same.
//!
//! What this process makes is entered as soon as the API server has confirmed it, so that no look is older than our own last
//! step.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::objects::{self, AGENT, INSTANCE};
use super::observe;
use crate::domain::{AgentId, Timestamp};
use crate::runtime::{InstanceState, ObservedInstance};

/// Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Reflector(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// The watch that feeds it, if one is alive.
    feeder: Option<u64>,
    feeders: u64,
    /// How far in history the watch of each kind has come: it has told of everything before.
    pods_at: u64,
    secrets_at: u64,
    objects: Objects,
}

/// The objects of an installation.
#[derive(Default)]
pub(super) struct Objects {
    pods: HashMap<AgentId, KeptPod>,
    secrets: Secrets,
}

/// By the name as well: there are two of an agent while one takes the place of the other.
type Secrets = BTreeMap<(AgentId, String), KeptSecret>;

/// What is needed of a Pod: all of it would be ten times as much.
struct KeptPod {
    uid: String,
    version: u64,
    /// When it was to be gone at the latest, if it was deleted.
    gone_by: Option<Timestamp>,
    seen: ObservedInstance,
}

impl KeptPod {
    /// None for what is no instance's.
    fn of(pod: &Pod, now: Timestamp) -> Option<(AgentId, Self)> {
        let seen = observe::of_pod(pod, now)?;
        let kept = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            version: version(&pod.metadata),
            gone_by: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            seen,
        };
        Some((kept.seen.key.agent, kept))
    }

    /// A deletion that no node confirms becomes the sign of a lost one without any event.
    fn seen(&self, now: Timestamp) -> ObservedInstance {
        let mut seen = self.seen.clone();
        if let InstanceState::Ending(run) = &seen.state
            && self.gone_by.is_some_and(|by| observe::is_unconfirmed(by, now))
        {
            seen.state = InstanceState::Unreachable(run.clone());
        }
        seen
    }
}

/// What is needed of a Secret. Its content stays with the cluster, and so does what only `origin` asks for.
struct KeptSecret {
    uid: String,
    version: String,
    created: Option<Time>,
    recipe: String,
}

impl KeptSecret {
    /// None for what is no instance's.
    fn of(meta: &ObjectMeta) -> Option<((AgentId, String), Self)> {
        let kept = Self {
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            created: meta.creation_timestamp.clone(),
            recipe: meta.annotations.as_ref()?.get(INSTANCE)?.clone(),
        };
        Some(((objects::agent_of(meta)?, meta.name.clone()?), kept))
    }

    fn meta(&self, (agent, name): &(AgentId, String)) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.version.clone()),
            creation_timestamp: self.created.clone(),
            labels: Some(BTreeMap::from([(AGENT.to_owned(), agent.to_string())])),
            annotations: Some(BTreeMap::from([(INSTANCE.to_owned(), self.recipe.clone())])),
            ..ObjectMeta::default()
        }
    }
}

impl Reflector {
    /// The instance, or that there is none; `None` where nothing is known.
    pub(super) fn instance(&self, agent: AgentId, now: Timestamp) -> Option<Option<ObservedInstance>> {
        let kept = self.alive()?;
        if let Some(pod) = kept.objects.pods.get(&agent) {
            return Some(Some(pod.seen(now)));
        }
        let secrets = objects::newest_first(kept.objects.secrets_of(agent));
        Some(secrets.first().and_then(observe::of_secret))
    }

    pub(super) fn instances(&self, now: Timestamp) -> Option<Vec<ObservedInstance>> {
        Some(self.alive()?.objects.instances(now))
    }

    /// The Secrets of an instance, with what makes it one and nothing else.
    pub(super) fn secrets(&self, agent: AgentId) -> Option<Vec<ObjectMeta>> {
        Some(self.alive()?.objects.secrets_of(agent))
    }

    /// Whether this very Pod is there; `None` where that is not known.
    pub(super) fn has_pod(&self, agent: AgentId, uid: Option<&str>) -> Option<bool> {
        Some(self.alive()?.objects.pods.get(&agent).is_some_and(|pod| Some(pod.uid.as_str()) == uid))
    }

    /// From an answer of the API server. One that the watch has come past may be out of date: it may be gone by now.
    pub(super) fn enter_pod(&self, pod: &Pod) {
        let mut kept = self.kept();
        if version(&pod.metadata) > kept.pods_at {
            kept.objects.put_pod(pod, Timestamp::now());
        }
    }

    pub(super) fn forget_pod(&self, meta: &ObjectMeta) {
        self.kept().objects.drop_pod(meta);
    }

    pub(super) fn enter_secret(&self, meta: &ObjectMeta) {
        let mut kept = self.kept();
        if version(meta) > kept.secrets_at {
            kept.objects.put_secret(meta);
        }
    }

    pub(super) fn forget_secret(&self, meta: &ObjectMeta) {
        self.kept().objects.drop_secret(meta);
    }

    /// For a watch that is about to list everything.
    pub(super) fn feeder(&self) -> Feeder {
        let mut kept = self.kept();
        kept.feeders += 1;
        Feeder { reflector: self.clone(), id: kept.feeders }
    }

    fn alive(&self) -> Option<MutexGuard<'_, Kept>> {
        Some(self.kept()).filter(|kept| kept.feeder.is_some())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    /// What is known may be newer: an event can come later than the answer to our own call.
    pub(super) fn put_pod(&mut self, pod: &Pod, now: Timestamp) {
        let Some((agent, pod)) = KeptPod::of(pod, now) else { return };
        if self.pods.get(&agent).is_none_or(|known| known.version <= pod.version) {
            self.pods.insert(agent, pod);
        }
    }

    pub(super) fn put_secret(&mut self, meta: &ObjectMeta) {
        self.secrets.extend(KeptSecret::of(meta));
    }

    pub(super) fn instances(&self, now: Timestamp) -> Vec<ObservedInstance> {
        let at_rest = self.secrets.iter().filter(|((agent, _), _)| !self.pods.contains_key(agent));
        let at_rest = at_rest.filter_map(|(key, secret)| observe::of_secret(&secret.meta(key)));
        let mut found: BTreeMap<_, _> = at_rest.map(|seen| (seen.key.agent, seen)).collect();
        found.extend(self.pods.iter().map(|(agent, pod)| (*agent, pod.seen(now))));
        found.into_values().collect()
    }

    /// This very one: the next Pod has the same name.
    fn drop_pod(&mut self, meta: &ObjectMeta) {
        let Some(agent) = objects::agent_of(meta) else { return };
        if self.pods.get(&agent).is_some_and(|known| Some(&known.uid) == meta.uid.as_ref()) {
            self.pods.remove(&agent);
        }
    }

    fn drop_secret(&mut self, meta: &ObjectMeta) {
        if let (Some(agent), Some(name)) = (objects::agent_of(meta), &meta.name) {
            self.secrets.remove(&(agent, name.clone()));
        }
    }

    fn secrets_of(&self, agent: AgentId) -> Vec<ObjectMeta> {
        let all = self.secrets.range((agent, String::new())..);
        all.take_while(|((of, _), _)| *of == agent).map(|(key, secret)| secret.meta(key)).collect()
    }
}

/// The one watch that feeds a reflector; when it ends, nothing in the reflector counts any more.
pub(super) struct Feeder {
    reflector: Reflector,
    id: u64,
}

impl Feeder {
    /// From here on the reflector is used. `from` is where in history the lists are; what we made since then stays.
    pub(super) fn begin(&self, listed: Objects, from: &Positions) {
        let (pods_from, secrets_from) = (number(&from.pods), number(&from.secrets));
        let mut kept = self.reflector.kept();
        let before = std::mem::replace(&mut kept.objects, listed);
        kept.objects.pods.extend(before.pods.into_iter().filter(|(_, pod)| pod.version > pods_from));
        let newer = before.secrets.into_iter().filter(|(_, secret)| number(&secret.version) > secrets_from);
        kept.objects.secrets.extend(newer);
        (kept.pods_at, kept.secrets_at) = (pods_from, secrets_from);
        kept.feeder = Some(self.id);
    }

    pub(super) fn put_pod(&self, pod: &Pod, now: Timestamp) {
        self.fed(|kept| {
            kept.pods_at = kept.pods_at.max(version(&pod.metadata));
            kept.objects.put_pod(pod, now);
        });
    }

    pub(super) fn drop_pod(&self, meta: &ObjectMeta) {
        self.fed(|kept| {
            kept.pods_at = kept.pods_at.max(version(meta));
            kept.objects.drop_pod(meta);
        });
    }

    pub(super) fn put_secret(&self, meta: &ObjectMeta) {
        self.fed(|kept| {
            kept.secrets_at = kept.secrets_at.max(version(meta));
            kept.objects.put_secret(meta);
        });
    }

    pub(super) fn drop_secret(&self, meta: &ObjectMeta) {
        self.fed(|kept| {
            kept.secrets_at = kept.secrets_at.max(version(meta));
            kept.objects.drop_secret(meta);
        });
    }

    /// Another watch may have taken over.
    fn fed(&self, change: impl FnOnce(&mut Kept)) {
        let mut kept = self.reflector.kept();
        if kept.feeder == Some(self.id) {
            change(&mut kept);
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.fed(|kept| kept.feeder = None);
    }
}

/// Where a watch is in the history of Pods and of Secrets.
#[derive(Debug, Default)]
pub(super) struct Positions {
    pub(super) pods: String,
    pub(super) secrets: String,
}

fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().map_or(0, number)
}

/// Versions grow: of one object always, and of all objects of a kind in every API server that there is.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn meta(agent: AgentId, name: &str, uid: &str, version: u64) -> serde_json::Value {
        let recipe = json!({ "slug": "ada", "generation": 1, "specHash": "h", "image": "i", "command": [], "env": [],
            "cpu": 1.0, "memoryMb": 64 });
        json!({
            "name": name, "uid": uid, "resourceVersion": version.to_string(), "creationTimestamp": NOW,
            "labels": { AGENT: agent.to_string() }, "annotations": { INSTANCE: recipe.to_string() },
        })
    }

    fn pod(agent: AgentId, uid: &str, version: u64, runs: bool) -> Pod {
        let container = json!({ "name": "agent", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "docker://0123456789abcdef", "state": { "running": { "startedAt": NOW } } });
        let status = json!({ "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [container] });
        let status = if runs { status } else { json!({}) };
        serde_json::from_value(json!({ "metadata": meta(agent, "zc-1", uid, version), "status": status })).unwrap()
    }

    fn secret(agent: AgentId, name: &str, version: u64) -> ObjectMeta {
        serde_json::from_value(meta(agent, name, name, version)).unwrap()
    }

    fn at(version: u64) -> Positions {
        Positions { pods: version.to_string(), secrets: version.to_string() }
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn state(reflector: &Reflector, agent: AgentId) -> Option<Option<InstanceState>> {
        Some(reflector.instance(agent, now())?.map(|seen| seen.state))
    }

    #[test]
    fn only_what_a_living_watch_feeds_is_used() {
        let (reflector, agent) = (Reflector::default(), AgentId::new());
        reflector.enter_secret(&secret(agent, "s", 5));
        assert!(reflector.instance(agent, now()).is_none() && reflector.instances(now()).is_none());

        let feeder = reflector.feeder();
        feeder.begin(Objects::default(), &at(9));
        assert_eq!(state(&reflector, agent), Some(None), "gone by the time of the list");
        feeder.put_secret(&secret(agent, "s", 10));
        assert_eq!(state(&reflector, agent), Some(Some(InstanceState::Created)));
        feeder.put_pod(&pod(agent, "a", 11, true), now());
        assert!(matches!(state(&reflector, agent), Some(Some(InstanceState::Running(_)))));
        assert_eq!(reflector.instances(now()).unwrap().len(), 1);

        let next = reflector.feeder();
        next.begin(Objects::default(), &at(12));
        feeder.put_pod(&pod(agent, "a", 13, true), now());
        drop(feeder);
        assert_eq!(state(&reflector, agent), Some(None), "an older watch changes nothing");
        drop(next);
        assert!(reflector.instance(agent, now()).is_none());
    }

    #[test]
    fn what_we_did_is_seen_at_once_and_older_events_do_not_undo_it() {
        let (reflector, agent) = (Reflector::default(), AgentId::new());
        let feeder = reflector.feeder();
        reflector.enter_pod(&pod(agent, "new", 20, false));
        let mut listed = Objects::default();
        listed.put_pod(&pod(agent, "old", 15, true), now());
        feeder.begin(listed, &at(18));
        assert_eq!(reflector.has_pod(agent, Some("new")), Some(true), "it is younger than the list");
        feeder.put_pod(&pod(agent, "old", 19, true), now());
        feeder.drop_pod(&pod(agent, "old", 19, true).metadata);
        assert!(matches!(state(&reflector, agent), Some(Some(InstanceState::Starting(_)))));

        reflector.forget_pod(&pod(agent, "new", 20, false).metadata);
        assert_eq!(reflector.has_pod(agent, Some("new")), Some(false));
        reflector.enter_pod(&pod(agent, "new", 19, false));
        assert_eq!(reflector.has_pod(agent, Some("new")), Some(false), "the watch would have told of it");
    }

    #[test]
    fn the_secrets_of_one_agent_are_its_own() {
        let (reflector, agents) = (Reflector::default(), [AgentId::new(), AgentId::new()]);
        let feeder = reflector.feeder();
        feeder.begin(Objects::default(), &at(1));
        for (name, version) in [("s-1", 2), ("s-2", 3)] {
            feeder.put_secret(&secret(agents[0], name, version));
        }
        feeder.put_secret(&secret(agents[1], "s-3", 4));
        let newest = objects::newest_first(reflector.secrets(agents[0]).unwrap());
        let names: Vec<_> = newest.iter().filter_map(|meta| meta.name.as_deref()).collect();
        assert_eq!(names, ["s-2", "s-1"]);
        reflector.forget_secret(&secret(agents[0], "s-1", 2));
        assert_eq!(reflector.secrets(agents[0]).unwrap().len(), 1);
    }

    #[test]
    fn an_end_that_no_node_confirms_becomes_the_sign_of_a_lost_one() {
        let (reflector, agent) = (Reflector::default(), AgentId::new());
        let feeder = reflector.feeder();
        feeder.begin(Objects::default(), &at(1));
        let mut ending = pod(agent, "a", 2, true);
        ending.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
        feeder.put_pod(&ending, now());
        assert!(matches!(state(&reflector, agent), Some(Some(InstanceState::Ending(_)))));
        let later = crate::domain::later(now(), std::time::Duration::from_secs(120));
        let seen = reflector.instance(agent, later).unwrap().unwrap();
        assert!(matches!(seen.state, InstanceState::Unreachable(_)));
    }
}
