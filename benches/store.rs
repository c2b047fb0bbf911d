//! How many agents' transitions the store makes durable per second, against what the disk allows.
//!
//! The floor is one `pwrite` of 4 KiB and `fdatasync` after the other, on the same disk in the same run: the machine's
//! own speed moves both. Not a divan benchmark: what counts is the rate of many writers, not the time of one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroone::domain::{AgentId, AgentSpec, HostPort, Provider, Secret, Slug, Status, Timestamp, UserId};
use zeroone::internal::store::{Batch, commit};
use zeroone::store::{AgentRecord, LogEntry, Store, StoreOptions};
use zeroone::vault::{Binding, MasterKey, MasterKeySource, Sealed, Vault};
use zeroone::view::{Cause, Code};

const WRITERS: u16 = 64;
const SPAN: Duration = Duration::from_secs(5);
const BOOT_AGENTS: u16 = 10_000;

fn main() {
    // `cargo test --benches` runs this too; a benchmark is not a test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk to measure");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().expect("a runtime");
    let sealed = sealed();

    let floor = floor(&folder.path().join("floor"));
    println!("floor: {floor:.0} pwrite+fdatasync/s, one after the other");
    let (rate, latencies) = runtime.block_on(transitions(&folder.path().join("rate.redb"), &sealed));
    let per_floor = rate / floor;
    println!(
        "store: {rate:.0} durable transitions/s with {WRITERS} writers ({per_floor:.1} per floor write), \
         p50 {:.1?}, p99 {:.1?}",
        quantile(&latencies, 50),
        quantile(&latencies, 99)
    );
    runtime.block_on(run_id(&folder.path().join("boot.redb"), &sealed));
}

fn floor(path: &Path) -> f64 {
    let file = OpenOptions::new().write(true).create_new(true).open(path).expect("a new file");
    let page = [7; 4096];
    let began = Instant::now();
    let mut writes = 0_u32;
    while began.elapsed() < SPAN {
        file.write_all_at(&page, u64::from(writes % 256) * 4096).expect("room on the disk");
        file.sync_data().expect("a disk that syncs");
        writes += 1;
    }
    f64::from(writes) / began.elapsed().as_secs_f64()
}

async fn transitions(path: &Path, sealed: &Sealed) -> (f64, Vec<Duration>) {
    let store = Store::open(path, StoreOptions::default()).expect("a new store");
    fill(&store, WRITERS, sealed).await;
    let began = Instant::now();
    let writers: Vec<_> =
        (0..WRITERS).map(|n| tokio::spawn(keep_writing(store.clone(), agent(n, sealed), began))).collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.expect("a writer that ends well"));
    }
    let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
    store.close().await;
    latencies.sort_unstable();
    (rate, latencies)
}

async fn keep_writing(store: Store, mut agent: AgentRecord, began: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while began.elapsed() < SPAN {
        agent.state.revision += 1;
        let sent = Instant::now();
        commit(&store, Batch::update_agent(&agent, Some(&entry(&agent)))).await.expect("a commit");
        latencies.push(sent.elapsed());
    }
    latencies
}

async fn run_id(path: &Path, sealed: &Sealed) {
    let store = Store::open(path, StoreOptions::default()).expect("a new store");
    fill(&store, BOOT_AGENTS, sealed).await;
    store.close().await;
    let began = Instant::now();
    let store = Store::open(path, StoreOptions::default()).expect("the store again");
    let opened = began.elapsed();
    let began = Instant::now();
    let agents = store.load().await.expect("a sound store").agents.len();
    let bytes = store.stats().await.expect("a sound store").bytes / 1024 / 1024;
    println!("boot: {agents} agents, {bytes} MiB: open and verify {opened:.1?}, load {:.1?}", began.elapsed());
}

async fn fill(store: &Store, agents: u16, sealed: &Sealed) {
    let mut creates = tokio::task::JoinSet::new();
    for n in 0..agents {
        let port = HostPort::try_from(HostPort::RANGE.start() + n).expect("fewer agents than ports");
        let agent = agent(n, sealed);
        let batch = Batch::create_agent(&agent, Some(port), &entry(&agent), None);
        let store = store.clone();
        creates.spawn(async move { commit(&store, batch).await });
        while creates.len() >= usize::from(WRITERS) * 4 {
            creates.join_next().await.expect("one of them").expect("no panic").expect("a commit");
        }
    }
    while let Some(create) = creates.join_next().await {
        create.expect("no panic").expect("a commit");
    }
}

fn agent(n: u16, sealed: &Sealed) -> AgentRecord {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let mut spec = AgentSpec::new(format!("Agent {n}"), Provider::Openrouter, "anthropic/claude-sonnet");
    spec.user_name = Some("Ada".into());
    spec.timezone = "Europe/Zurich".into();
    spec.communication_style = Some("Short and plain; asks when in doubt. ".repeat(10));
    let slug = Slug::parse(&format!("agent-{n}")).expect("a slug");
    let (id, user) = (AgentId::from_bytes(id), UserId::from_bytes([1; 16]));
    let mut record = AgentRecord::new(id, user, slug, Timestamp::UNIX_EPOCH, Arc::new(spec));
    record.api_key = Some(sealed.clone());
    record.channels = Some(sealed.clone());
    record.token = Some(sealed.clone());
    record
}

fn entry(agent: &AgentRecord) -> LogEntry {
    LogEntry::new(Status::Starting, agent, &Cause::new(Code::Paired))
}

fn sealed() -> Sealed {
    let key = MasterKey::load(MasterKeySource::Value(Secret::new("7".repeat(64)))).expect("a key");
    Vault::new(&key).seal(&Binding::named("bench", b""), &[7; 64])
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() - 1) * percent / 100).copied().unwrap_or_default()
}
