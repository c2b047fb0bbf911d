//! What ten thousand agents in a cluster cost: the control plane's memory, what is written for each start, what is asked of the
//! API server while nothing happens, and how long all of them stay unseen after its restart.
//!
//! etcd, API server and scheduler are the real ones of `scripts/kubernetes`, which this starts and ends. The nodes are not
//! (`nodes`): a Pod on them is a few lines of status. The controller manager is stopped: it would do for each agent what
//! belongs to a real node or volume, and bring back the only real node. The gateways are not asked over a network (`gateway`).
//!
//! The control plane has an account of its own with the Role that is shipped, and the API server's audit log has what it asked
//! for.

#[path = "kubernetes/audit.rs"]
mod audit;
#[path = "../tests/kubernetes/cluster.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod cluster;
#[path = "kubernetes/gateway.rs"]
mod gateway;
#[path = "fleet/many.rs"]
mod many;
#[path = "kubernetes/nodes.rs"]
mod nodes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroone::control::{Agents, ControlPlane, NewUser};
use zeroone::domain::{InstallationId, Plan};
use zeroone::runtime::ContainerRuntime;
use zeroone::runtime::kubernetes::{KubernetesOptions, KubernetesRuntime, Reach};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{Call, Faults, vault};

use audit::Audit;
use cluster::Cluster;
use gateway::Well;
use many::{all_running, create, per_agent, resident_kib, running};

/// As in the program: what ten thousand starts at once have needed is given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the Role and the namespace of `deploy/kubernetes/agents` are.
const NAMESPACE: &str = "zeroone-agents";
const ROLE: [&str; 2] = ["deploy/kubernetes/agents/namespace.yaml", "deploy/kubernetes/agents/role.yaml"];
/// The user of the cluster whose requests are in the audit log.
const ACCOUNT: &str = "zeroone";

/// How many; CI has room for fewer.
const AGENTS: (&str, usize) = ("ZEROONE_BENCH_AGENTS", 10_000);
/// Creates that wait for their answers at once.
const AT_ONCE: usize = 16;
/// How long nothing happens: longer than a watch lasts, and than some sweeps take.
const STEADY: (&str, usize) = ("ZEROONE_BENCH_STEADY_SECS", 330);
/// Longer than an interval of health checks: every agent was checked in it.
const SETTLE: Duration = Duration::from_secs(15);
/// All of it, on a slow machine; what hangs ends.
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if arguments.get(1).is_some_and(|word| word == nodes::WORD) {
        return runtime.block_on(nodes::run(arguments[2].parse().expect("a number")));
    }
    // `cargo test --benches` runs this too; a benchmark is not a test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    assert!(!Cluster::is_up(), "a cluster is up already: scripts/kubernetes down");
    let _down = Down;
    cluster::ok(&["up"]);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk to measure");
    let store = folder.path().join("cluster.redb");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, measure(&store)).await.expect("not within its time") });
}

struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = cluster::tried(&["down"]);
    }
}

fn setting((name, default): (&str, usize)) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A namespace with the account's permissions, and nobody in the cluster but etcd, the API server and the scheduler.
async fn prepare() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ROLE {
        cluster::ok(&["kubectl", "apply", "-f", folder.join(file).to_str().expect("a path")]);
    }
    let user = format!("--user={ACCOUNT}");
    cluster::ok(&["kubectl", "-n", NAMESPACE, "create", "rolebinding", "bench", "--role=zeroone", &user]);
    while cluster::tried(&["kubectl", "-n", NAMESPACE, "get", "serviceaccount", "default"]).is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster::ok(&["signal", "KILL", "kube-controller-manager"]);
    cluster::ok(&["signal", "KILL", "kubelet"]);
    cluster::ok(&["kubectl", "delete", "node", "n1"]);
}

fn kubeconfig() -> PathBuf {
    Cluster::kubeconfig().with_file_name(format!("{ACCOUNT}.kubeconfig"))
}

async fn start(path: &Path, faults: &Faults, installation: InstallationId) -> ControlPlane {
    let options = KubernetesOptions::new("zeroclaw:0.8.7", "zeroone:latest", installation)
        .with_kubeconfig(kubeconfig())
        .with_namespace(NAMESPACE)
        .with_reach(Reach::Pod);
    let runtime = KubernetesRuntime::open(options).await.expect("the cluster is there");
    runtime.ping().await.expect("and allows what is needed");
    let store = Store::open(path, StoreOptions::default().with_installation(installation));
    ControlPlane::builder(store.expect("the store opens"), vault(), faults.runtime(Arc::new(runtime)))
        .gateway(Arc::new(Well))
        .start()
        .await
        .expect("it comes up")
}

async fn measure(path: &Path) {
    let (agents, steady) = (setting(AGENTS), setting(STEADY));
    prepare().await;
    let _nodes = nodes::start(agents).await;
    let mut audit = Audit::new(Cluster::kubeconfig().with_file_name("../logs/audit.log"));
    // Without any: it counts the calls.
    let faults = Faults::new(1);
    let installation = InstallationId::new();
    let plane = start(path, &faults, installation).await;
    let user = NewUser::new("fleet@example.com", Plan::Enterprise);
    let user = plane.create_user(user).await.expect("a new store takes a user").id;

    audit.requests();
    let before = resident_kib();
    let began = Instant::now();
    create(&plane, user, agents, AT_ONCE).await;
    let progress = tokio::spawn(tell(plane.clone(), began));
    all_running(&plane, agents).await;
    progress.abort();
    println!("deploy: {agents} agents RUNNING in {:.1?}", began.elapsed());
    tokio::time::sleep(SETTLE).await;
    let memory = resident_kib().saturating_sub(before);
    println!("memory: {:.1} KiB per agent (goal 20)", per_agent(memory, agents));
    let requests = audit.requests();
    println!("writes: {:.2} per start (goal 3)", per_agent(requests.writes(), agents));
    println!("        {requests}");

    tokio::time::sleep(Duration::from_secs(steady as u64)).await;
    let requests = audit.requests();
    println!("steady: {} lists in {steady} s (goal 0); {requests}", requests.of("list"));
    let memory = resident_kib().saturating_sub(before);
    println!("        {:.1} KiB per agent after it", per_agent(memory, agents));
    assert_eq!(running(&plane), agents, "nothing has happened");

    restarted(&plane, &faults, agents).await;
    println!("        {}", audit.requests());
    assert_eq!(running(&plane), agents, "nobody was harmed");

    plane.shutdown(Agents::Leave).await;
    drop(plane);
    let before = faults.calls(Call::Observe);
    let began = Instant::now();
    let plane = start(path, &faults, installation).await;
    println!("boot: {agents} agents ready in {:.1?}", began.elapsed());
    observed(&faults, before, agents).await;
    all_running(&plane, agents).await;
    println!("      all of them observed after {:.1?}", began.elapsed());
    println!("      {}", audit.requests());
    plane.shutdown(Agents::Leave).await;
}

/// A long wait says how far it is.
async fn tell(plane: ControlPlane, began: Instant) {
    loop {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (memory, elapsed) = (resident_kib() / 1024, began.elapsed());
        println!("        {} RUNNING after {elapsed:.0?}, {memory} MiB", running(&plane));
    }
}

/// Every agent is looked at again after the API server was killed.
async fn restarted(plane: &ControlPlane, faults: &Faults, agents: usize) {
    cluster::ok(&["signal", "KILL", "kube-apiserver"]);
    let away = Instant::now();
    // Those who look meanwhile look in vain; only what is seen afterwards counts.
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster::ok(&["start", "kube-apiserver"]);
    let (back, before) = (Instant::now(), faults.calls(Call::Observe));
    observed(faults, before, agents).await;
    let (since, of_it) = (away.elapsed(), back.elapsed());
    println!(
        "API server: killed and away for {:.1?}; all observed {of_it:.1?} after its return (goal 30 s)",
        since - of_it
    );
    assert_eq!(running(plane), agents, "nobody was harmed");
}

async fn observed(faults: &Faults, before: u64, agents: usize) {
    while faults.calls(Call::Observe) - before < agents as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
