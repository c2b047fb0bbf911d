//! What ten thousand agents cost the control plane: memory, the time to come up, a page of the list over HTTP, and the
//! console's pages.
//!
//! The agents run on the fake engine, with health checks on, and are stored in a real file. The engine's own share of the
//! memory is measured first, with the same instances and nobody who looks after them, and taken off.

#[path = "fleet/console.rs"]
mod console;
#[path = "fleet/many.rs"]
mod many;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use zeroone::control::{Agents, Clock, ControlPlane, NewKey, NewUser};
use zeroone::domain::{HostPort, Plan, Scopes, Timestamp, UserId};
use zeroone::http::{HttpOptions, ServeOptions, router, serve};
use zeroone::runtime::{ContainerRuntime, InstanceKey, InstanceSpec};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{Fakes, GatewayBehavior, Pace, new_agent, vault};
use zeroone::zeroclaw::profile::Profile;
use zeroone::zeroclaw::workspace::{self, Staging};

use many::{all_running, create, per_agent, resident_kib};

const AGENTS: usize = 10_000;
/// Creates that wait for their answers at once.
const AT_ONCE: usize = 256;
/// Longer than an interval of health checks: every agent was checked in it.
const SETTLE: Duration = Duration::from_secs(15);
const PAGE: usize = 200;
const PAGES: usize = 2_000;

fn main() {
    // `cargo test --benches` runs this too; a benchmark is not a test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk to measure");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(&folder.path().join("fleet.redb")));
}

async fn measure(path: &Path) {
    let before = resident_kib();
    let idle = fakes();
    fill(&idle).await;
    let engine = resident_kib().saturating_sub(before);
    println!("engine: {:.1} KiB per instance, taken off below", per_agent(engine, AGENTS));

    let fakes = fakes();
    let plane = start(path, &fakes).await;
    let user = NewUser::new("fleet@example.com", Plan::Enterprise);
    let user = plane.create_user(user).await.expect("a new store takes a user").id;
    let before = resident_kib();
    let began = Instant::now();
    create(&plane, user, AGENTS, AT_ONCE).await;
    all_running(&plane, AGENTS).await;
    println!("deploy: {AGENTS} agents RUNNING in {:.1?}", began.elapsed());
    tokio::time::sleep(SETTLE).await;
    let all = resident_kib().saturating_sub(before);
    println!("memory: {:.1} KiB per agent (goal 12)", per_agent(all.saturating_sub(engine), AGENTS));
    let page = page_p50(&plane, user).await;
    println!("page: p50 of {PAGE} agents over HTTP {page:.1?} (goal 2 ms)");

    plane.shutdown(Agents::Leave).await;
    drop(plane);
    let began = Instant::now();
    let plane = start(path, &fakes).await;
    let ready = began.elapsed();
    all_running(&plane, AGENTS).await;
    println!("boot: {AGENTS} agents ready in {ready:.1?} (goal 1 s)");
    plane.shutdown(Agents::Leave).await;
}

fn fakes() -> Fakes {
    let fakes = Fakes::with_clock(1, Clock::System);
    fakes.engine().set_behavior(GatewayBehavior::instant());
    fakes.engine().set_pace(Pace::new(Duration::ZERO));
    fakes
}

async fn start(path: &Path, fakes: &Fakes) -> ControlPlane {
    let store = Store::open(path, StoreOptions::default().with_installation(fakes.installation()));
    ControlPlane::builder(store.expect("the store opens"), vault(), fakes.runtime())
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .start()
        .await
        .expect("it comes up")
}

/// The same instances as the control plane makes, without it.
async fn fill(fakes: &Fakes) {
    let runtime = fakes.runtime();
    for (n, port) in HostPort::all().take(AGENTS).enumerate() {
        let new = new_agent(&format!("Agent {n}"));
        let key = InstanceKey { agent: new.id, slug: zeroone::domain::Slug::suggest(&new.spec.name) };
        let host = runtime.caps().host.unwrap_or("localhost");
        let staging = Staging::new(host, 120);
        let spec = InstanceSpec::new(key.clone(), Profile::Embedded.command(&new.credentials), Plan::Pro.limits())
            .with_env(Profile::Embedded.env(&new.spec, &new.credentials, host, 120))
            .with_files(workspace::files(Profile::Embedded, &new.spec, &new.credentials, &staging))
            .with_port(port);
        runtime.ensure_created(&spec).await.expect("a fake engine creates");
        runtime.start(&key).await.expect("a fake engine starts");
    }
}

/// Pages of the list one after the other on one connection, then the console's, while the agents go on.
async fn page_p50(plane: &ControlPlane, user: UserId) -> Duration {
    let key = NewKey::new(Scopes::all());
    let (_, key) = plane.create_key(user, key).await.expect("a key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("it has one");
    let closing = CancellationToken::new();
    let pages = zeroone::console::router();
    let options = HttpOptions::default().with_rate_limit(None).with_closing(closing.clone()).with_pages(pages);
    let app = router(plane.clone(), options);
    let server = tokio::spawn(serve(listener, app, closing.clone(), ServeOptions::default()));

    let mut connection = BufReader::new(TcpStream::connect(at).await.expect("a connection"));
    let mut times = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let began = Instant::now();
        let page = get_page(&mut connection, at, key.expose()).await;
        times.push(began.elapsed());
        assert!(page.len() > PAGE * 100, "a page of agents");
    }
    let agent = plane.agents(None, None, 1, &[]).agents[0].record.id.to_string();
    let month = Duration::from_secs(29 * 24 * 60 * 60);
    let from = Timestamp::now().checked_sub(month).expect("some weeks ago").to_string();
    console::measure(at, key.expose(), agent, from).await;
    closing.cancel();
    server.await.expect("no panic").expect("it closes");
    times.sort_unstable();
    times[times.len() / 2]
}

/// By hand, so that no client's work is in the figure.
async fn get_page(connection: &mut BufReader<TcpStream>, at: SocketAddr, key: &str) -> Vec<u8> {
    let request = format!("GET /api/agents?limit={PAGE} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it takes the request");
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.expect("a head");
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().expect("a number"),
            Some(_) => {}
            None if line.starts_with("HTTP/1.1") => assert!(line.starts_with("HTTP/1.1 200"), "{line}"),
            None => break,
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.expect("a body");
    body
}
