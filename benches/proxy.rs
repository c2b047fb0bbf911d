//! The data path beside nginx, in turns on one machine: a gateway that does nothing, reached directly, through nginx with kept
//! upstream connections, through the libraries alone (`bare`), and through the service by `/gateway/webhook` and by `/message`.
//!
//! `cargo bench --bench proxy`; `-- --secs 2 --rounds 3` for another length, `--requests 1000000` for so many small requests at
//! last, to see whether the service grows; nginx from `$ZEROONE_BENCH_NGINX` or the path, without one its lines are left out. The
//! gateway is this program itself. Ratios are medians of those of each round, in which the ways take turns: machines are noisy.
//! What the processor spends in the middle on a request is told as well: it depends least on what else the machine does.

#[path = "proxy/bare.rs"]
mod bare;
#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod service;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, header};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use bare::Bare;
use service::{EndAgents, Service, new_agent};

const MIB: usize = 1024 * 1024;
const STREAMS: usize = 1000;
const SMALL: &str = r#"{"message":"hello there, how are you today?"}"#;

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("gateway") => return gateway().await,
        Some(bare::WORD) => return bare::run(arguments[1].parse().expect("an address")).await,
        Some(_) | None => {}
    }
    let (secs, rounds) = (Duration::from_secs(argument("--secs", 2)), argument("--rounds", 5));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let program = std::env::current_exe().expect("this program");
    let service = Service::start_with(
        &data,
        &[
            ("ZEROONE_PROCESS__COMMAND", program.to_str().expect("a path")),
            ("ZEROONE_PROCESS__PROFILE", "embedded"),
            ("ZEROONE_RATELIMIT__PER_SECOND", "0"),
            ("ZEROONE_PROXY__OPEN_PER_AGENT", "4000"),
            ("ZEROONE_PROXY__OPEN_PER_USER", "4000"),
        ],
    );
    let (id, agent) = running(&service, "Ada").await;
    let port = u16::try_from(agent["containerPort"].as_u64().expect("a port")).expect("a port");
    let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ours: SocketAddr = service.url.strip_prefix("http://").and_then(|at| at.parse().ok()).expect("an address");
    let nginx = Nginx::start(folder.path(), direct).await;
    let bare = Bare::start(direct);

    let small = Bytes::from_static(SMALL.as_bytes());
    let large = Bytes::from(vec![b'x'; MIB]);
    let way = |name, at, path: String, body: &Bytes, pids| {
        let key = service.key.clone();
        Way { name, at, path, key, body: body.clone(), pids }
    };
    let pid = vec![service.pid()];
    for (body, what) in [(&small, "small"), (&large, "1 MiB")] {
        let mut ways = vec![way("direct", direct, "/webhook".into(), body, vec![])];
        ways.extend(nginx.as_ref().map(|nginx| way("nginx", nginx.at, "/webhook".into(), body, nginx.workers())));
        ways.push(way("bare", bare.at, "/webhook".into(), body, vec![bare.pid()]));
        ways.push(way("gateway", ours, format!("/api/agents/{id}/gateway/webhook"), body, pid.clone()));
        if what == "small" {
            ways.push(way("message", ours, format!("/api/agents/{id}/message"), body, pid.clone()));
        }
        for connections in [16, 64] {
            let before = rss_kib(service.pid());
            let mut found: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
            for _ in 0..rounds {
                for way in &ways {
                    found.entry(way.name).or_default().push(load(way, connections, secs).await);
                }
            }
            println!("\n{what}, {connections} connections");
            for way in &ways {
                let of = &found[way.name];
                let it = |figure: fn(&Figures) -> f64| median(of.iter().map(figure));
                let to_nginx = |figure: fn(&Figures) -> f64| {
                    let nginx = found.get("nginx").into_iter().flatten();
                    median(of.iter().zip(nginx).map(|(it, nginx)| figure(it) / figure(nginx)))
                };
                println!(
                    "  {:8} {:>7.0}/s  {:>4.2} × nginx   p50 {:>6.2} ms   p99 {:>7.2} ms  {:>4.2} × nginx   {:>5.1} µs of processor   errors {}",
                    way.name,
                    it(|it| it.per_second),
                    to_nginx(|it| it.per_second),
                    it(|it| it.p50_ms),
                    it(|it| it.p99_ms),
                    to_nginx(|it| it.p99_ms),
                    it(|it| it.cpu_us),
                    of.iter().map(|it| it.errors).sum::<usize>(),
                );
            }
            let requests: usize = found
                .iter()
                .filter(|(name, _)| matches!(**name, "gateway" | "message"))
                .flat_map(|(_, of)| of)
                .map(|f| f.count)
                .sum();
            println!("  service: {} KiB → {} KiB over {requests} requests", before, rss_kib(service.pid()));
        }
    }
    let many = usize::try_from(argument("--requests", 0)).unwrap_or(0);
    if many > 0 {
        growth(&service, &way("gateway", ours, format!("/api/agents/{id}/gateway/webhook"), &small, pid.clone()), many)
            .await;
        growth(&service, &way("message", ours, format!("/api/agents/{id}/message"), &small, pid), many / 4).await;
    }
    // An agent that is a process has no more than a thousand files.
    streams(&service, ours, &[id, running(&service, "Bob").await.0]).await;
}

async fn running(service: &Service, name: &str) -> (String, Value) {
    let (status, agent) = service.post("/api/agents", &new_agent(name, "http://127.0.0.1:9/v1")).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("an id").to_owned();
    let (status, agent) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200, "{agent}");
    (id, agent)
}

/// What the service weighs after each fifth of so many requests.
async fn growth(service: &Service, way: &Way, requests: usize) {
    let mut weights = Vec::new();
    for _ in 0..5 {
        let mut sent = 0;
        while sent < requests / 5 {
            sent += load(way, 64, Duration::from_secs(2)).await.count;
        }
        weights.push(rss_kib(service.pid()));
    }
    println!("\n{requests} requests by {}: KiB after each fifth: {weights:?}", way.name);
}

/// A thousand event streams that stay open: what each costs.
async fn streams(service: &Service, ours: SocketAddr, agents: &[String]) {
    let before = rss_kib(service.pid());
    let mut open = Vec::new();
    for id in agents.iter().cycle().take(STREAMS) {
        let mut sender = connect(ours).await;
        let request = Request::get(format!("/api/agents/{id}/gateway/sse"))
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, format!("Bearer {}", service.key));
        let response = sender.send_request(request.body(Full::default()).expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        body.frame().await.expect("an event").expect("whole");
        open.push((sender, body));
    }
    let after = rss_kib(service.pid());
    let each = (after - before) as f64 / STREAMS as f64;
    println!("\n{STREAMS} event streams: {before} KiB → {after} KiB, {each:.1} KiB each; goal: 40");
}

/// A way to the gateway.
struct Way {
    name: &'static str,
    at: SocketAddr,
    path: String,
    key: String,
    body: Bytes,
    /// What stands in the middle.
    pids: Vec<u32>,
}

#[derive(Clone)]
struct Figures {
    count: usize,
    errors: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of what stands in the middle, for a request.
    cpu_us: f64,
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn connect(at: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(at).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
    tokio::spawn(connection);
    sender
}

/// As many requests as so many connections can make, one after the other on each.
async fn load(way: &Way, connections: usize, lasts: Duration) -> Figures {
    let (began, used) = (Instant::now(), cpu(&way.pids));
    let one = async || {
        let mut sender = connect(way.at).await;
        let (mut took, mut errors) = (Vec::new(), 0);
        while began.elapsed() < lasts {
            let request = Request::post(&way.path)
                .header(header::HOST, "127.0.0.1")
                .header(header::AUTHORIZATION, format!("Bearer {}", way.key))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(way.body.clone()))
                .expect("a request");
            let sent = Instant::now();
            if sender.ready().await.is_err() {
                sender = connect(way.at).await;
            }
            let answered = match sender.send_request(request).await {
                Ok(response) => response.status() == 200 && response.into_body().collect().await.is_ok(),
                Err(_) => false,
            };
            if answered {
                took.push(sent.elapsed());
            } else {
                errors += 1;
                sender = connect(way.at).await;
            }
        }
        (took, errors)
    };
    let done: Vec<_> =
        futures_util::stream::iter((0..connections).map(|_| one())).buffer_unordered(connections).collect().await;
    let elapsed = began.elapsed().as_secs_f64();
    let errors = done.iter().map(|(_, errors)| errors).sum();
    let mut took: Vec<Duration> = done.into_iter().flat_map(|(took, _)| took).collect();
    took.sort();
    let at = |percent: usize| {
        took.get(took.len().saturating_sub(1) * percent / 100).map_or(0.0, |it| it.as_secs_f64() * 1e3)
    };
    let count = took.len();
    let cpu_us = (cpu(&way.pids) - used).as_secs_f64() * 1e6 / count.max(1) as f64;
    Figures { count, errors, per_second: count as f64 / elapsed, p50_ms: at(50), p99_ms: at(99), cpu_us }
}

/// What these processes have had of the processors.
fn cpu(pids: &[u32]) -> Duration {
    let ticks = pids.iter().filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<u64> = stat.rsplit(") ").next()?.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        Some(fields.get(11)? + fields.get(12)?)
    });
    // A hundred a second on every Linux.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn rss_kib(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

struct Nginx {
    child: Child,
    at: SocketAddr,
}

impl Nginx {
    /// With connections to the gateway that are kept, as many workers as processors, and no log.
    async fn start(folder: &std::path::Path, upstream: SocketAddr) -> Option<Self> {
        let program = std::env::var("ZEROONE_BENCH_NGINX").unwrap_or_else(|_| "nginx".into());
        let at = TcpListener::bind("127.0.0.1:0").await.ok()?.local_addr().ok()?;
        let config = format!(
            "daemon off; pid nginx.pid; error_log stderr; worker_processes auto; events {{ worker_connections 4096; }}
             http {{ access_log off; client_max_body_size 8m; client_body_temp_path t1; proxy_temp_path t2;
             fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; keepalive_requests 10000000;
             upstream gateway {{ server {upstream}; keepalive 64; keepalive_requests 10000000; }}
             server {{ listen {at}; location / {{ proxy_pass http://gateway; proxy_http_version 1.1;
             proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}"
        );
        std::fs::write(folder.join("nginx.conf"), config).ok()?;
        let mut command = Command::new(program);
        command.args(["-p", folder.to_str()?, "-c", "nginx.conf"]).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| println!("no nginx: {error}")).ok()?;
        let nginx = Self { child, at };
        for _ in 0..200 {
            if TcpStream::connect(at).await.is_ok() {
                return Some(nginx);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("nginx does not listen");
        None
    }

    fn workers(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.child.wait();
    }
}

/// A gateway that pairs, and answers everything at once.
async fn gateway() {
    let port = std::env::var("ZEROCLAW_GATEWAY_PORT").ok().and_then(|port| port.parse().ok()).expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    println!(
        "  🔐 PAIRING REQUIRED — use this one-time code:\n     Send: POST /pair with header X-Pairing-Code: 123456"
    );
    let answer = json!({"model": "m", "response": "x".repeat(200)}).to_string();
    let app = Router::new()
        .route("/pair", post(async || axum::Json(json!({"paired": true, "persisted": true, "token": "zc_bench"}))))
        .route("/api/status", get(async || axum::Json(json!({}))))
        .route("/health", get(async || axum::Json(json!({"status": "ok", "paired": true, "require_pairing": true}))))
        .route(
            "/webhook",
            post(async move |_: HeaderMap, body: Body| {
                let mut body = body.into_data_stream();
                while let Some(Ok(_)) = body.next().await {}
                ([(header::CONTENT_TYPE, "application/json")], answer.clone())
            }),
        )
        .route("/sse", get(events))
        .fallback(any(async || axum::http::StatusCode::NOT_FOUND));
    axum::serve(listener, app).await.expect("it serves");
}

async fn events() -> impl IntoResponse {
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"data: 1\n\n"))]);
    let body = Body::from_stream(first.chain(futures_util::stream::pending()));
    ([(header::CONTENT_TYPE, "text/event-stream")], body)
}
