//! Nodes that run nothing: a process of its own that says of each Pod on them that it runs, confirms each end, gives each claim
//! its volume, and shows of each log the line with the pairing code.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{
    ApiResource, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Object;
use kube::{Api, Client, Config};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use zeroone::domain::Timestamp;

use crate::NAMESPACE;
use crate::cluster::{Cluster, HOST};

/// The first argument of this program where it is the nodes.
pub const WORD: &str = "nodes";
/// Fewer than Kubernetes allows, so that there is room to choose.
const PODS_PER_NODE: usize = 100;
/// Changes at a time.
const AT_ONCE: usize = 16;
const READY: &str = "ready";
/// The one volume that all claims get: nobody mounts it.
const VOLUME: &str = "bench";

/// What is needed of an object: to read all of a Pod would take most of the time.
type Light<S> = Object<S, Phase>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnNode {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfVolume {
    volume_name: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Phase {
    phase: Option<String>,
}

/// Starts the process; it ends with the handle.
pub async fn start(agents: usize) -> Child {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.arg(WORD).arg(agents.to_string()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert_eq!(lines.next_line().await.expect("it says something").as_deref(), Some(READY));
    child
}

/// What the process does.
pub async fn run(agents: usize) {
    let client = client(&Cluster::kubeconfig()).await;
    let port = serve_logs().await;
    let nodes: Api<Node> = Api::all(client.clone());
    for n in 0..=agents / PODS_PER_NODE {
        let name = format!("bench-{n}");
        let node = serde_json::from_value(node(&name, port)).expect("a node");
        nodes.create(&PostParams::default(), &node).await.expect("a node is taken");
        // The controller of nodes would take the taint away; there is none.
        let usable = Patch::Merge(json!({ "spec": { "taints": null } }));
        nodes.patch(&name, &PatchParams::default(), &usable).await.expect("and used");
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = serde_json::from_value(json!({
        "metadata": { "name": VOLUME },
        "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/nowhere" } },
    }))
    .expect("a volume");
    volumes.create(&PostParams::default(), &volume).await.expect("a volume is taken");
    let kubelet = Arc::new(Kubelet::new(light::<Pod, _>(&client)));
    let claims = light::<PersistentVolumeClaim, OfVolume>(&client);
    println!("{READY}");
    tokio::join!(
        for_each(light::<Pod, OnNode>(&client), move |pod| {
            let kubelet = Arc::clone(&kubelet);
            async move { kubelet.act(pod).await }
        }),
        for_each(claims.clone(), move |claim| bind(claims.clone(), claim)),
    );
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("the cluster's");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("it is complete");
    Client::try_from(config).expect("a client")
}

fn light<K, S>(client: &Client) -> Api<Light<S>>
where
    K: kube::Resource<DynamicType = ()>,
    S: Clone + std::fmt::Debug,
{
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::erase::<K>(&()))
}

fn node(name: &str, port: u16) -> serde_json::Value {
    let room =
        json!({ "cpu": "16", "memory": "64Gi", "ephemeral-storage": "200Gi", "pods": PODS_PER_NODE.to_string() });
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{ "type": "InternalIP", "address": Ipv4Addr::from(HOST).to_string() }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "none://0", "kubeletVersion": "v1.20.2", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    })
}

/// All objects of a kind, and whatever becomes of them, without end.
async fn for_each<S, F>(api: Api<Light<S>>, act: impl Fn(Light<S>) -> F)
where
    S: Clone + std::fmt::Debug + for<'de> Deserialize<'de> + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let begin = async |object| {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("it is never closed");
        let work = act(object);
        tokio::spawn(async move {
            work.await;
            drop(turn);
        });
    };
    loop {
        if let Ok(list) = api.list(&ListParams::default()).await {
            let from = list.metadata.resource_version.unwrap_or_default();
            for object in list.items {
                begin(object).await;
            }
            if let Ok(events) = api.watch(&WatchParams::default(), &from).await {
                let mut events = events.boxed();
                while let Some(Ok(event)) = events.next().await {
                    match event {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => begin(object).await,
                        WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
                        WatchEvent::Error(_) => break,
                    }
                }
            }
        }
        // The API server is away.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Kubelet {
    pods: Api<Light<OnNode>>,
    /// Each Pod begins once, however often it is seen before its status is.
    begun: Mutex<HashSet<String>>,
    addresses: AtomicU32,
}

impl Kubelet {
    fn new(pods: Api<Light<OnNode>>) -> Self {
        Self { pods, begun: Mutex::default(), addresses: AtomicU32::new(u32::from(Ipv4Addr::new(10, 128, 0, 1))) }
    }

    async fn act(&self, pod: Light<OnNode>) {
        let (name, uid) = (pod.metadata.name.unwrap_or_default(), pod.metadata.uid.unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
            let ended = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            // Whatever is still there shows again.
            let _ = self.pods.delete(&name, &ended).await;
            return;
        }
        let waits = pod.status.and_then(|status| status.phase).is_none_or(|phase| phase == "Pending");
        if !waits || pod.spec.node_name.is_none() {
            return;
        }
        let first = self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone());
        if first && self.begin(&name, &uid).await.is_err() {
            self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        }
    }

    async fn begin(&self, name: &str, uid: &str) -> Result<(), kube::Error> {
        let address = Ipv4Addr::from(self.addresses.fetch_add(1, Ordering::Relaxed)).to_string();
        let now = Timestamp::now().to_string();
        let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
        let status = json!({ "status": {
            "phase": "Running",
            "hostIP": Ipv4Addr::from(HOST).to_string(),
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "startTime": now,
            "conditions": conditions.map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": now })),
            "containerStatuses": [{
                "name": "agent", "image": "bench", "imageID": "bench", "ready": true, "started": true, "restartCount": 0,
                "containerID": format!("none://{}", uid.replace('-', "")),
                "state": { "running": { "startedAt": now } },
            }],
        } });
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
    }
}

/// As the controller of volumes would: a claim whose node is chosen gets its volume.
async fn bind(claims: Api<Light<OfVolume>>, claim: Light<OfVolume>) {
    let ObjectMeta { name, annotations, .. } = claim.metadata;
    let chosen = annotations.is_some_and(|all| all.contains_key("volume.kubernetes.io/selected-node"));
    if chosen && claim.spec.volume_name.is_none() {
        let bound = Patch::Merge(json!({
            "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
            "spec": { "volumeName": VOLUME },
        }));
        let _ = claims.patch(&name.unwrap_or_default(), &PatchParams::default(), &bound).await;
    }
}

/// The one thing that the API server asks of a node: a container's output.
async fn serve_logs() -> u16 {
    let certs = Cluster::kubeconfig().with_file_name("");
    let chain = CertificateDer::pem_file_iter(certs.join("server.crt")).expect("the cluster has one");
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("it can be read");
    let key = PrivateKeyDer::from_pem_file(certs.join("server.key")).expect("and its key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("it has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener =
        TcpListener::bind(SocketAddr::from((HOST, 0))).await.expect("the host's end of the cluster's network");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let output = service_fn(|_| async { Ok::<_, Infallible>(http::Response::new(output())) });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), output).await;
            });
        }
    });
    port
}

fn output() -> Full<Bytes> {
    let now = Timestamp::now();
    format!("{now} Send: POST http://localhost/pair with header X-Pairing-Code: 622406\n").into()
}
