//! What an embedded agent costs: time from start to `/health`, memory at rest, time on top of a call of the model, time to
//! recall among many notes.
//!
//! `cargo bench --bench gateway`. Each figure stands beside its floor, measured in the same run: an empty process for the
//! start, the same call made without the gateway for the message.

#[path = "../tests/support/http_client.rs"]
mod http_client;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Json;
use axum::routing::post;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use http_client::http_client;

const STARTS: usize = 30;
const WARM_UP: usize = 200;
const MESSAGES: usize = 3_000;
/// Nothing here takes longer, or something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Agent {
    process: Child,
    address: SocketAddr,
    code: String,
    /// From the call that starts the process to the first 200 of `/health`.
    started_in: Duration,
    _home: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    fn start(model: SocketAddr) -> Self {
        Self::start_with(model, "")
    }

    fn start_with(model: SocketAddr, config: &str) -> Self {
        let home = TempDir::new().expect("a folder for the agent");
        std::fs::create_dir(home.path().join(".zeroclaw")).expect("a folder for its configuration");
        std::fs::write(home.path().join(".zeroclaw/config.toml"), config).expect("its configuration");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port").port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let started = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_zeroone"))
            .arg("gateway")
            .env_clear()
            .env("HOME", home.path())
            .env("ZEROCLAW_GATEWAY_PORT", port.to_string())
            .env("ZEROCLAW_PROVIDER", format!("custom:http://{model}/v1"))
            .env("ZEROCLAW_MODEL", "m")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        while !healthy(address) {
            assert!(started.elapsed() < PATIENCE, "no /health");
            std::thread::sleep(Duration::from_micros(200));
        }
        let started_in = started.elapsed();
        // Without pairing there is no code, and these lines would not end.
        let wants_code = !config.contains("require_pairing = false");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let mut banner = lines.by_ref().take_while(|_| wants_code);
        let code = banner
            .find_map(|line| {
                line.trim().strip_prefix("Send: POST /pair with header X-Pairing-Code: ").map(str::to_owned)
            })
            .unwrap_or_default();
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address, code, started_in, _home: home }
    }

    /// Resident memory in KiB.
    fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The same once nobody has asked anything for a while, as an agent is nearly always.
    fn rss_at_rest(&self) -> u64 {
        std::thread::sleep(Duration::from_secs(4));
        self.rss_kib()
    }
}

fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Answers at once and always the same, on a thread of its own.
fn start_model() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let answer = json!({ "choices": [{ "message": { "content": "hi" }, "finish_reason": "stop" }] });
            let router = axum::Router::new().route("/v1/chat/completions", post(move || async move { Json(answer) }));
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, router).await
        })
    });
    address
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn times(client: &Client, url: &str, body: &Value) -> Vec<Duration> {
    let mut times = Vec::with_capacity(MESSAGES);
    for number in 0..WARM_UP + MESSAGES {
        let started = Instant::now();
        let answer = client.post(url).json(body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.bytes().await.expect("a body");
        if number >= WARM_UP {
            times.push(started.elapsed());
        }
    }
    times
}

fn show(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{name:<44} p50 {:>9.3?}  p95 {:>9.3?}  max {:>9.3?}", at(50), at(95), at(100));
    at(50)
}

fn main() {
    let model = start_model();
    let floor = (0..STARTS).map(|_| {
        let started = Instant::now();
        Command::new("true").status().expect("an empty process");
        started.elapsed()
    });
    show("an empty process (floor)", floor.collect());
    show("start to /health 200", (0..STARTS).map(|_| Agent::start(model).started_in).collect());

    let agent = Agent::start(model);
    println!("{:<44} {} KiB", "memory right after /health", agent.rss_kib());
    println!("{:<44} {} KiB", "memory at rest, not paired", agent.rss_at_rest());
    runtime().block_on(async {
        let client = http_client(PATIENCE);
        let pair = client.post(format!("http://{}/pair", agent.address)).header("X-Pairing-Code", &agent.code);
        let paired: Value = pair.send().await.expect("an answer").json().await.expect("a token");
        assert!(paired["token"].is_string());
    });
    println!("{:<44} {} KiB", "memory at rest, paired", agent.rss_at_rest());
    messages(model);
    recall(model);
}

/// Time on top of a call of the model, with and without remembering each message.
fn messages(model: SocketAddr) {
    for auto_save in [false, true] {
        let config = format!(
            "[gateway]\nrequire_pairing = false\nwebhook_rate_limit_per_minute = 0\n[memory]\nauto_save = {auto_save}\n"
        );
        let agent = Agent::start_with(model, &config);
        runtime().block_on(async {
            let client = http_client(PATIENCE);
            let messages = json!([{ "role": "system", "content": "x" }, { "role": "user", "content": "hi" }]);
            let body = json!({ "model": "m", "messages": messages, "temperature": 0.7, "stream": false });
            let direct = times(&client, &format!("http://{model}/v1/chat/completions"), &body).await;
            let direct = show("the model alone (floor)", direct);
            let body = json!({ "message": "hi" });
            let through = times(&client, &format!("http://{}/webhook", agent.address), &body).await;
            let through = show(&format!("/webhook, auto_save {auto_save}"), through);
            println!("{:<44} {:>9.3?}", "on top of the model, p50", through.saturating_sub(direct));
        });
        println!("{:<44} {} KiB", format!("memory right after {MESSAGES} messages"), agent.rss_kib());
        println!("{:<44} {} KiB", "memory at rest after them", agent.rss_at_rest());
    }
}

/// Time on top of an answer without memories, with so many notes, whatever the message is.
fn recall(model: SocketAddr) {
    const NOTES: usize = 10_000;
    const QUESTIONS: usize = 200;
    let config = |backend: &str| {
        format!(
            "[gateway]\nrequire_pairing = false\nwebhook_rate_limit_per_minute = 0\n[memory]\nbackend = \"{backend}\"\n\
             auto_save = false\n"
        )
    };
    let (none, full) = (Agent::start_with(model, &config("none")), Agent::start_with(model, &config("sqlite")));
    let words = ["harbour", "window", "deploy", "invoice", "green", "tea", "the", "of", "and", "Tuesday"];
    let note = |number: usize| {
        let word = |step: usize| words[(number / step) % words.len()];
        format!("the {} and the {} of the {} number {number}", word(1), word(7), word(31))
    };
    let questions = [
        ("a short question", "When is the deploy window?".to_owned()),
        ("common words alone", "the and of the and of the".to_owned()),
        ("one word, 60 KB of it", "the ".repeat(15_000)),
        ("8,000 different words", (0..8_000).map(|number| format!("word{number} ")).collect()),
        ("all words of the notes", words.join(" ")),
        ("a script without blanks", "用户喜欢绿茶和红茶".repeat(500)),
    ];
    runtime().block_on(async {
        let client = http_client(PATIENCE);
        for number in 0..NOTES {
            let body = json!({ "key": format!("note {number}"), "content": note(number) });
            let stored = client.post(format!("http://{}/api/memory", full.address)).json(&body).send().await;
            assert!(stored.expect("an answer").status().is_success());
        }
        for (name, question) in questions {
            let mut p50 = Vec::new();
            for agent in [&none, &full] {
                let mut times = Vec::with_capacity(QUESTIONS);
                for _ in 0..QUESTIONS {
                    let started = Instant::now();
                    let request = client.post(format!("http://{}/api/chat", agent.address));
                    let answer = request.json(&json!({ "message": question })).send().await.expect("an answer");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await.expect("a body");
                    times.push(started.elapsed());
                }
                times.sort_unstable();
                p50.push((times[QUESTIONS / 2], times[QUESTIONS * 95 / 100]));
            }
            let on_top = |at: fn(&(Duration, Duration)) -> Duration| at(&p50[1]).saturating_sub(at(&p50[0]));
            println!(
                "{:<44} p50 {:>9.3?}  p95 {:>9.3?}",
                format!("recall among {NOTES} notes, {name}"),
                on_top(|times| times.0),
                on_top(|times| times.1)
            );
        }
    });
}
