//! The objects of an instance: an immutable Secret with its files and environment, a claim on a volume, and a Pod that the
//! Secret owns. Pure.
//!
//! The Secret is the instance: it is there from the creation to the removal, and all that a start needs is in it. Each
//! change is a Secret of another name, because nodes keep the content of an immutable one for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret as SecretObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::options::KubernetesOptions;
use crate::domain::{AgentId, ImageRef, InstallationId, Origin, Secret, Slug, StagedFile};
use crate::runtime::{InstanceKey, InstanceSpec, RuntimeError, RuntimeResult};
use crate::zeroclaw::profile::{DATA_DIR, GATEWAY_PORT};

pub(super) const INSTALLATION: &str = "zeroone.dev/installation";
pub(super) const AGENT: &str = "zeroone.dev/agent";
pub(super) const INSTANCE: &str = "zeroone.dev/instance";
pub(super) const ORIGIN: &str = "zeroone.dev/origin";
/// Marks a Pod that reaches an agent's data, and is not the agent.
pub(super) const CARRIER: &str = "zeroone.dev/carrier";
/// The one who applies, as the API server records it.
pub(super) const MANAGER: &str = "zeroone";
/// The container of the agent, or of what reaches its data, beside the one that stages its files.
pub(super) const CONTAINER: &str = "agent";
/// ZeroClaw's user and group.
const USER: i64 = 65_534;
/// Bytes of files and environment. The API server takes a mebibyte for the whole object.
const MAX_SECRET: usize = 900 * 1024;
/// Where the files wait for being staged.
const STAGED: &str = "/staged";

/// What a Pod is made from, besides secrets: kept with the Secret, so that a start needs nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recipe {
    pub(super) slug: Slug,
    pub(super) generation: u64,
    pub(super) spec_hash: String,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    /// Names alone.
    pub(super) env: Vec<String>,
    pub(super) cpu: f64,
    pub(super) memory_mb: u32,
}

/// A file among the Secret's keys, as `zeroone stage` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ManifestEntry {
    key: String,
    path: String,
    mode: u32,
}

/// The key of the list of files.
pub(super) const MANIFEST: &str = "manifest";

impl Recipe {
    pub(super) fn of(options: &KubernetesOptions, spec: &InstanceSpec) -> Self {
        Self {
            slug: spec.key.slug.clone(),
            generation: spec.generation,
            spec_hash: spec.hash(),
            image: image_of(options, spec.image.as_ref()),
            command: spec.command.clone(),
            env: spec.env.iter().map(|(name, _)| name.clone()).collect(),
            cpu: spec.cpu,
            memory_mb: spec.memory_mb,
        }
    }

    /// The one that an object of ours carries.
    pub(super) fn read(meta: &ObjectMeta) -> Option<Self> {
        serde_json::from_str(meta.annotations.as_ref()?.get(INSTANCE)?).ok()
    }
}

pub(super) fn image_of(options: &KubernetesOptions, image: Option<&ImageRef>) -> String {
    image.map_or_else(|| options.image.clone(), |image| image.name.clone())
}

/// The name of the Pod and of the claim.
pub(super) fn name(agent: AgentId) -> String {
    format!("zc-{}", data_encoding::HEXLOWER.encode(agent.as_bytes()))
}

/// One that nothing of the agent had before.
fn new_name(agent: AgentId) -> String {
    let unique = uuid::Uuid::now_v7().simple().to_string();
    format!("{}-{}", name(agent), &unique[24..])
}

pub(super) fn selector(installation: InstallationId) -> String {
    format!("{INSTALLATION}={installation}")
}

pub(super) fn selector_of(installation: InstallationId, agent: AgentId) -> String {
    format!("{INSTALLATION}={installation},{AGENT}={agent}")
}

pub(super) fn agent_of(meta: &ObjectMeta) -> Option<AgentId> {
    meta.labels.as_ref()?.get(AGENT)?.parse().ok()
}

pub(super) fn is_of(meta: &ObjectMeta, installation: InstallationId) -> bool {
    installation_of(meta) == Some(installation)
}

pub(super) fn installation_of(meta: &ObjectMeta) -> Option<InstallationId> {
    meta.labels.as_ref()?.get(INSTALLATION)?.parse().ok()
}

pub(super) fn key_of(meta: &ObjectMeta) -> Option<InstanceKey> {
    Some(InstanceKey { agent: agent_of(meta)?, slug: Recipe::read(meta)?.slug })
}

/// The Secrets of an instance, the one that counts first. Two are there only after a crash between two steps.
pub(super) fn newest_first(mut secrets: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    secrets.retain(|meta| Recipe::read(meta).is_some());
    secrets.sort_by_key(|meta| {
        let generation = Recipe::read(meta).map_or(0, |recipe| recipe.generation);
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        std::cmp::Reverse((generation, created, meta.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok())))
    });
    secrets
}

fn labels(installation: InstallationId, agent: AgentId) -> Value {
    json!({ INSTALLATION: installation.to_string(), AGENT: agent.to_string() })
}

/// The content of a Secret: environment by `env-<name>`, files by number.
pub(super) fn content(spec: &InstanceSpec) -> BTreeMap<String, Secret<Vec<u8>>> {
    let env = spec.env.iter().map(|(name, value)| (env_key(name), Secret::new(value.expose().clone().into_bytes())));
    let mut content: BTreeMap<_, _> = env.collect();
    put_files(&mut content, &spec.files);
    content
}

fn env_key(name: &str) -> String {
    format!("env-{name}")
}

/// Puts files in, in place of those with the same paths.
pub(super) fn put_files(content: &mut BTreeMap<String, Secret<Vec<u8>>>, files: &[StagedFile]) {
    let mut manifest = manifest(content);
    for file in files {
        let next = manifest.iter().filter_map(|entry| entry.key.strip_prefix("file-")?.parse::<usize>().ok()).max();
        let known = manifest.iter().position(|entry| entry.path == file.path);
        let key = match known {
            Some(index) => manifest.swap_remove(index).key,
            None => format!("file-{}", next.map_or(0, |last| last + 1)),
        };
        manifest.push(ManifestEntry { key: key.clone(), path: file.path.to_string(), mode: file.mode });
        content.insert(key, file.content.clone());
    }
    let text = serde_json::to_vec(&manifest).expect("plain data always has a JSON form");
    content.insert(MANIFEST.into(), Secret::new(text));
}

fn manifest(content: &BTreeMap<String, Secret<Vec<u8>>>) -> Vec<ManifestEntry> {
    content.get(MANIFEST).and_then(|text| serde_json::from_slice(text.expose()).ok()).unwrap_or_default()
}

/// The Secret of an instance, under a name that no Secret had before.
pub(super) fn secret(
    options: &KubernetesOptions,
    agent: AgentId,
    recipe: &Recipe,
    origin: Option<&Arc<Origin>>,
    content: &BTreeMap<String, Secret<Vec<u8>>>,
) -> RuntimeResult<SecretObject> {
    let size: usize = content.values().map(|value| value.expose().len()).sum();
    if size > MAX_SECRET {
        return Err(RuntimeError::Invalid(format!(
            "its files and environment have {} KiB, and a cluster keeps {} at most",
            size / 1024,
            MAX_SECRET / 1024
        )));
    }
    let mut annotations = BTreeMap::from([(INSTANCE.to_owned(), to_json(recipe))]);
    annotations.extend(origin.map(|origin| (ORIGIN.to_owned(), origin.to_json())));
    let data: BTreeMap<_, _> = content.iter().map(|(key, value)| (key, STANDARD.encode(value.expose()))).collect();
    object(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": new_name(agent),
            "labels": labels(options.installation, agent),
            "annotations": annotations,
        },
        "immutable": true,
        "data": data,
    }))
}

pub(super) fn claim(options: &KubernetesOptions, agent: AgentId) -> RuntimeResult<PersistentVolumeClaim> {
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": name(agent), "labels": labels(options.installation, agent) },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": options.storage } },
        },
    });
    if !options.storage_class.is_empty() {
        claim["spec"]["storageClassName"] = json!(options.storage_class);
    }
    object(claim)
}

/// The Pod of a run. It passes the `restricted` standard of Pod security.
pub(super) fn pod(options: &KubernetesOptions, agent: AgentId, owner: &ObjectMeta) -> RuntimeResult<Pod> {
    let (recipe, secret) = (recipe_of(owner)?, owner.name.as_deref().unwrap_or_default());
    let env: Vec<Value> = recipe
        .env
        .iter()
        .map(|name| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret, "key": env_key(name) } } }))
        .collect();
    // A node that is away for a while comes back with its agents; nobody starts a second one meanwhile.
    let tolerated = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .map(|key| json!({ "key": key, "operator": "Exists", "effect": "NoExecute" }));
    let mut pod = beside_data(options, agent, owner, &recipe);
    pod["metadata"]["name"] = json!(name(agent));
    pod["metadata"]["annotations"][INSTANCE] = json!(to_json(&recipe));
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Always");
    spec["terminationGracePeriodSeconds"] = json!(5);
    spec["tolerations"] = json!(tolerated);
    let container = &mut spec["containers"][0];
    container["image"] = json!(recipe.image);
    container["args"] = json!(recipe.command);
    container["env"] = json!(env);
    container["resources"] = resources(options, &recipe);
    if !options.runtime_class.is_empty() {
        spec["runtimeClassName"] = json!(options.runtime_class);
    }
    object(pod)
}

/// The Pod that reaches an agent's data, under a name that no Pod had before. Without what the Pod of a run carries to be
/// known by.
pub(super) fn carrier(
    options: &KubernetesOptions,
    agent: AgentId,
    owner: &ObjectMeta,
    token_hash: &str,
    beside: bool,
) -> RuntimeResult<Pod> {
    let mut pod = beside_data(options, agent, owner, &recipe_of(owner)?);
    pod["metadata"]["name"] = json!(new_name(agent));
    pod["metadata"]["labels"][CARRIER] = json!("true");
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Never");
    spec["terminationGracePeriodSeconds"] = json!(1);
    // It ends by itself when nobody asks it anything; this is for whatever keeps it.
    spec["activeDeadlineSeconds"] = json!(3600);
    let container = &mut spec["containers"][0];
    container["image"] = json!(options.stage_image);
    container["args"] =
        json!(["carry", "--data", DATA_DIR, "--token-hash", token_hash, "--port", GATEWAY_PORT.to_string()]);
    container["resources"] = json!({
        "limits": { "cpu": "1", "memory": "256Mi", "ephemeral-storage": "64Mi" },
        "requests": { "cpu": "25m", "memory": "32Mi", "ephemeral-storage": "16Mi" },
    });
    if beside {
        let agents = json!({ "matchLabels": labels(options.installation, agent), "matchExpressions": [
            { "key": CARRIER, "operator": "DoesNotExist" },
        ] });
        spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{ "labelSelector": agents, "topologyKey": "kubernetes.io/hostname" }]);
    }
    object(pod)
}

/// What the Pods of an agent have in common: its files staged into its volume, and one container that has the volume.
fn beside_data(options: &KubernetesOptions, agent: AgentId, owner: &ObjectMeta, recipe: &Recipe) -> Value {
    let (secret, uid) = (owner.name.as_deref().unwrap_or_default(), owner.uid.as_deref().unwrap_or_default());
    let locked = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": labels(options.installation, agent),
            "annotations": { "cluster-autoscaler.kubernetes.io/safe-to-evict": "true" },
            // A drain moves only what has a controller.
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid,
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "initContainers": [{
                "name": "stage",
                "image": options.stage_image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["stage", "--from", STAGED, "--to", DATA_DIR, "--as", secret],
                "securityContext": locked,
                "resources": resources(options, recipe),
                "volumeMounts": [
                    { "name": "data", "mountPath": DATA_DIR },
                    { "name": "staged", "mountPath": STAGED, "readOnly": true },
                ],
            }],
            "containers": [{
                "name": CONTAINER,
                "imagePullPolicy": "IfNotPresent",
                "ports": [{ "containerPort": GATEWAY_PORT }],
                "securityContext": locked,
                "volumeMounts": [
                    { "name": "data", "mountPath": DATA_DIR },
                    { "name": "tmp", "mountPath": "/tmp" },
                ],
            }],
            "volumes": [
                { "name": "data", "persistentVolumeClaim": { "claimName": name(agent) } },
                { "name": "staged", "secret": { "secretName": secret, "defaultMode": 0o440 } },
                { "name": "tmp", "emptyDir": { "sizeLimit": "64Mi" } },
            ],
        },
    })
}

fn resources(options: &KubernetesOptions, recipe: &Recipe) -> Value {
    json!({
        "limits": {
            "cpu": recipe.cpu.to_string(),
            "memory": format!("{}Mi", recipe.memory_mb),
            "ephemeral-storage": "256Mi",
        },
        "requests": {
            "cpu": options.request_cpu,
            "memory": options.request_memory,
            "ephemeral-storage": "32Mi",
        },
    })
}

fn recipe_of(owner: &ObjectMeta) -> RuntimeResult<Recipe> {
    Recipe::read(owner).ok_or_else(|| RuntimeError::Failed("the instance's Secret is damaged".into()))
}

fn to_json(recipe: &Recipe) -> String {
    serde_json::to_string(recipe).expect("plain data always has a JSON form")
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> RuntimeResult<T> {
    serde_json::from_value(value).map_err(|error| RuntimeError::Invalid(format!("no such object: {error}")))
}
