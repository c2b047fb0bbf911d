//! A user beside an attacker: what the attacks of reviews do to the answers that somebody else gets.
//!
//! The user asks for an agent and sends it a message, at a steady rate that does not wait for answers; the attacker is
//! another process with a user, keys and agents of its own, at the lowest priority, because it stands for another machine.
//! Quiet and attacked periods take turns, and the ratio of their p99 is told for each attack.
//!
//! `cargo bench --bench neighbours`; `-- --secs 10` for the length of a period, `--only streams` for one attack.

#[path = "../tests/support/http_client.rs"]
mod http_client;
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod service;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use service::{EndAgents, Service, StandInModel, answer, new_agent};

/// Of each kind of request; the default limit of a key is a hundred a second.
const RATE: u32 = 40;
const GOAL: f64 = 3.0;

/// Name, and what the attacker does. Each is bounded in time by [`attack`].
const ATTACKS: [(&str, &str); 9] = [
    ("silent", "2,000 connections that say nothing"),
    ("streams", "as many event streams as one key gets"),
    ("requests", "requests on 64 connections, as fast as they go"),
    ("guesses", "made-up keys on 64 connections"),
    ("passwords", "wrong passwords on 32 connections"),
    ("kept", "messages of 30 KB whose answers are kept for a retry"),
    ("slow", "300 bodies that come byte by byte"),
    ("large", "bodies of 1 MiB to an agent's gateway on 16 connections"),
    ("restarts", "restarts of two agents, one after the other"),
];

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, kind, url, key, agents @ ..] = arguments.as_slice()
        && word == "attack"
    {
        let attacker = Attacker { url: url.clone(), key: key.clone(), agents: agents.to_vec() };
        return attacker.attack(kind).await;
    }
    let period = Duration::from_secs(argument("--secs").and_then(|secs| secs.parse().ok()).unwrap_or(5));
    let only = argument("--only");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let (key, agents) = person(&service, "user@example.com", &model, 1).await;
    let user = User { service: &service, key, agent: agents[0].clone() };
    let (attackers_key, attackers_agents) = person(&service, "attacker@example.com", &model, 2).await;

    println!("p50 and p99 of {RATE} looks and {RATE} messages a second; goal: p99 within {GOAL} of quiet");
    println!("{:56} {:>16} {:>16} {:>7} {:>7}", "", "quiet, ms", "attacked, ms", "ratio", "failed");
    for (kind, what) in ATTACKS {
        if only.as_ref().is_some_and(|only| only != kind) {
            continue;
        }
        let mut seen = [Seen::default(), Seen::default()];
        for _ in 0..2 {
            seen[0].add(user.live(period).await);
            let mut attacker = Command::new("nice");
            attacker.args(["-n", "19"]).arg(&arguments[0]).args(["attack", kind, &service.url, &attackers_key]);
            let mut attacker = attacker.args(&attackers_agents).stderr(Stdio::null()).spawn().expect("an attacker");
            // It has begun by then, and goes on for longer than is looked at.
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen[1].add(user.live(period).await);
            let _ = attacker.kill();
            let _ = attacker.wait();
            user.settle().await;
        }
        let [quiet, attacked] = &mut seen;
        let [(q50, q99), (a50, a99)] = [quiet.millis(), attacked.millis()];
        println!(
            "{what:56} {q50:>7.1} {q99:>8.1} {a50:>7.1} {a99:>8.1} {:>7.2} {:>7}",
            a99 / q99,
            format!("{}+{}", quiet.failed, attacked.failed)
        );
    }
}

/// A user with so many agents that run, and a key.
async fn person(service: &Service, email: &str, model: &StandInModel, agents: usize) -> (String, Vec<String>) {
    let (status, user) = service.post("/api/admin/users", &json!({"email": email, "plan": "pro"})).await;
    assert_eq!(status, 201, "{user}");
    let keys = format!("/api/admin/users/{}/keys", user["id"].as_str().expect("an id"));
    let (status, key) = service.post(&keys, &json!({"name": "bench"})).await;
    assert_eq!(status, 201, "{key}");
    let key = key["key"].as_str().expect("a key").to_owned();
    let mut ids = Vec::new();
    for number in 0..agents {
        let created = service.client.post(format!("{}/api/agents", service.url)).bearer_auth(&key);
        let body = new_agent(&format!("{} {number}", &email[..4]), &model.url);
        let (status, agent) = answer(created.json(&body)).await.expect("an answer");
        assert_eq!(status, 202, "{agent}");
        let id = agent["id"].as_str().expect("an id").to_owned();
        let (status, agent) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
        assert_eq!(status, 200, "{agent}");
        ids.push(id);
    }
    (key, ids)
}

/// What somebody got.
#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    failed: usize,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.failed += other.failed;
    }

    /// The middle, and the slowest but one of a hundred.
    fn millis(&mut self) -> (f64, f64) {
        self.took.sort_unstable();
        let at = |percent: usize| self.took.get(self.took.len().saturating_sub(1) * percent / 100);
        let [p50, p99] = [50, 99].map(|percent| at(percent).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0));
        (p50, p99)
    }
}

struct User<'a> {
    service: &'a Service,
    key: String,
    agent: String,
}

impl User<'_> {
    /// Looks and messages at the rate, whatever comes of those before.
    async fn live(&self, lasts: Duration) -> Seen {
        let began = Instant::now();
        let pace = Duration::from_secs(1) / RATE;
        let due = |number: u32| tokio::time::Instant::from_std(began + pace * number);
        let count = u32::try_from(lasts.as_millis() / pace.as_millis()).unwrap_or(u32::MAX);
        let one = async |number: u32, message: bool| {
            tokio::time::sleep_until(due(number)).await;
            let sent = Instant::now();
            let path = format!("/api/agents/{}{}", self.agent, if message { "/message" } else { "" });
            let method = if message { Method::POST } else { Method::GET };
            let request = self.service.client.request(method, format!("{}{path}", self.service.url));
            let request = request.bearer_auth(&self.key);
            let request = if message { request.json(&json!({"message": "hello"})) } else { request };
            let answered = answer(request).await.is_ok_and(|(status, _)| status == 200);
            answered.then(|| sent.elapsed())
        };
        let all = (0..count).flat_map(|number| [(number, false), (number, true)]);
        let requests = futures_util::stream::iter(all.map(|(number, message)| one(number, message)));
        let found: Vec<Option<Duration>> = requests.buffer_unordered(count as usize * 2).collect().await;
        let failed = found.iter().filter(|took| took.is_none()).count();
        Seen { took: found.into_iter().flatten().collect(), failed }
    }

    /// Waits until what an attack has left open is gone.
    async fn settle(&self) {
        for _ in 0..100 {
            let began = Instant::now();
            if self.service.get("/livez").await.0 == 200 && began.elapsed() < Duration::from_millis(20) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

struct Attacker {
    url: String,
    key: String,
    agents: Vec<String>,
}

impl Attacker {
    /// Goes on until it is killed, and in no case for long.
    async fn attack(&self, kind: &str) {
        let client = http_client::http_client(Duration::from_secs(30));
        let http = |method: Method, path: &str| client.request(method, format!("{}{path}", self.url));
        let agent = self.agents.first().map_or("", String::as_str);
        let of_agent = |rest: &str| format!("/api/agents/{agent}{rest}");
        let attack = async {
            match kind {
                "silent" => many(2000, async |_| self.silent().await).await,
                "streams" => {
                    many(1000, async |_| {
                        let stream = http(Method::GET, "/api/events").bearer_auth(&self.key).send().await;
                        if let Ok(mut stream) = stream {
                            while let Ok(Some(_)) = stream.chunk().await {}
                        }
                    })
                    .await;
                }
                "requests" => {
                    many(64, async |_| told(http(Method::GET, "/api/agents").bearer_auth(&self.key)).await).await
                }
                "guesses" => {
                    many(64, async |n| {
                        told(http(Method::GET, "/api/agents").bearer_auth(format!("zo_{n:064}"))).await;
                    })
                    .await;
                }
                "passwords" => {
                    let guess = json!({"email": "user@example.com", "password": "not the right one"});
                    many(32, async |_| told(http(Method::POST, "/api/auth/login").json(&guess)).await).await;
                }
                "kept" => {
                    let message = json!({"message": "x".repeat(30_000)});
                    many(16, async |n| {
                        let request = http(Method::POST, &of_agent("/message")).bearer_auth(&self.key);
                        told(request.header("Idempotency-Key", format!("kept-{n}")).json(&message)).await;
                    })
                    .await;
                }
                "slow" => many(300, async |_| self.slow(&of_agent("/message")).await).await,
                "large" => {
                    let body = "x".repeat(1024 * 1024);
                    many(16, async |_| {
                        let request = http(Method::POST, &of_agent("/gateway/webhook")).bearer_auth(&self.key);
                        told(request.body(body.clone())).await;
                    })
                    .await;
                }
                "restarts" => {
                    many(2, async |n| {
                        let id = &self.agents[usize::try_from(n).unwrap_or(0) % self.agents.len()];
                        told(http(Method::POST, &format!("/api/agents/{id}/restart")).bearer_auth(&self.key)).await;
                        let wait = format!("/api/agents/{id}/wait?status=RUNNING&timeout=5");
                        told(http(Method::GET, &wait).bearer_auth(&self.key)).await;
                    })
                    .await;
                }
                other => panic!("no such attack: {other}"),
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(120), attack).await;
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.url.trim_start_matches("http://")).await
    }

    async fn silent(&self) {
        if let Ok(mut stream) = self.connect().await {
            let _ = stream.read(&mut [0; 16]).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    async fn slow(&self, path: &str) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
            self.key
        );
        let Ok(mut stream) = self.connect().await else { return };
        let mut sent = stream.write_all(head.as_bytes()).await.is_ok();
        while sent {
            tokio::time::sleep(Duration::from_millis(500)).await;
            sent = stream.write_all(b" ").await.is_ok();
        }
    }
}

/// So many at once, each again and again with a number of its own.
async fn many(at_once: u64, one: impl AsyncFn(u64)) {
    futures_util::stream::iter(0_u64..).for_each_concurrent(usize::try_from(at_once).ok(), |number| one(number)).await;
}

/// What is answered does not matter, only that it is read.
async fn told(request: reqwest::RequestBuilder) {
    let _: reqwest::Result<(u16, Value)> = answer(request).await;
}
