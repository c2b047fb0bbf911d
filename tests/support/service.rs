//! The real program as its users run it: a child process on a data folder of its own, reached over HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http_client::http_client;

#[path = "lines.rs"]
pub mod lines;
use lines::Lines;

/// How long a condition may take to come true; far longer than it ever should on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running `zeroone serve`. Dropped, it is killed; its agents are for [`end_agents`].
pub struct Service {
    child: Child,
    pub url: String,
    pub key: String,
    pub client: reqwest::Client,
}

impl Service {
    /// Starts on `data` and waits until it listens.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = command(data, "process");
        command.envs(env.iter().copied());
        Self::spawn(command, data)
    }

    /// Starts this command and waits until it listens. `data` is its data folder as it is seen from here.
    pub fn spawn(mut command: Command, data: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log_of(data));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("the log beside the data folder can be written"))
            .spawn()
            .expect("the program can be run");
        let stdout = child.stdout.take().expect("its output is ours");
        let url = Lines::of(stdout).find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let Some(url) = url else {
            let log = fs::read_to_string(log_of(data)).unwrap_or_default();
            panic!("the service ended before it listened; {:?}\n{log}", child.wait());
        };
        let key = fs::read_to_string(seen_by(&child, data).join("admin.key"));
        let key = key.expect("the first start left a key").trim().to_owned();
        Self { child, url, key, client: http_client(PATIENCE) }
    }

    /// The folder as this service sees it, which may have file systems of its own.
    pub fn seen(&self, folder: &Path) -> PathBuf {
        seen_by(&self.child, folder)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and gives how it did.
    pub async fn end(mut self) -> std::process::ExitStatus {
        signal(i32::try_from(self.child.id()).expect("a pid"), 15);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            pause().await;
        }
    }

    /// As the machine's power button would, for this one process.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("and nobody else's");
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(reqwest::Method::GET, path)).await.expect("the service answers")
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.request(reqwest::Method::POST, path).json(body)).await.expect("the service answers")
    }

    /// All of the caller's agents, page by page.
    pub async fn agents(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = self.get(&format!("/api/agents?limit=200{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            all.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Waits until every agent is in a status in which it stays, and gives them.
    pub async fn settled(&self) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let agents = self.agents().await;
            let at_rest = |agent: &Value| matches!(agent["status"].as_str(), Some("RUNNING" | "STOPPED" | "ERROR"));
            if agents.iter().all(at_rest) {
                return agents;
            }
            assert!(Instant::now() < deadline, "agents do not settle: {agents:#?}");
            pause().await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service on `data`, not started yet.
pub fn command(data: &Path, runtime: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    command.args(["serve", "--bind", "127.0.0.1:0", "--runtime", runtime, "--data"]).arg(data);
    command
}

/// Where a service on `data` logs.
pub fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}

fn seen_by(child: &Child, folder: &Path) -> PathBuf {
    let root = format!("/proc/{}/root", child.id());
    Path::new(&root).join(folder.strip_prefix("/").unwrap_or(folder))
}

/// Between two looks at a condition.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, Value)> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body = response.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// An agent that talks to `model`.
pub fn new_agent(name: &str, model: &str) -> Value {
    json!({"name": name, "provider": "openai", "model": "stand-in", "apiKey": "sk-test", "providerUrl": model})
}

/// The processes of agents below `data`, by agent: what the kernel says, not what the service believes.
pub fn processes(data: &Path) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(home) = variable(&entry.path(), "HOME") else { continue };
        let Ok(below) = Path::new(&home).strip_prefix(&data) else { continue };
        // Leaders of their own session: not what an agent may have started itself.
        if leads_session(&entry.path(), pid) {
            let agent = below
                .components()
                .map(|part| part.as_os_str().to_string_lossy().into_owned())
                .find(|part| part.len() == 36)
                .unwrap_or_else(|| below.display().to_string());
            found.entry(agent).or_default().push(pid);
        }
    }
    found
}

fn variable(process: &Path, name: &str) -> Option<String> {
    let environment = fs::read(process.join("environ")).ok()?;
    let prefix = format!("{name}=");
    environment
        .split(|byte| *byte == 0)
        .find_map(|pair| String::from_utf8_lossy(pair).strip_prefix(&prefix).map(str::to_owned))
}

fn leads_session(process: &Path, pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(process.join("stat")) else { return false };
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = fields.split(' ').collect();
    fields.first() != Some(&"Z") && fields.get(3).and_then(|session| session.parse().ok()) == Some(pid)
}

/// Ends what agents are left below `data`, so that a failed test leaves nothing behind.
pub struct EndAgents(pub PathBuf);

impl Drop for EndAgents {
    fn drop(&mut self) {
        for pid in processes(&self.0).into_values().flatten() {
            signal(pid, 9);
        }
    }
}

/// Sends a signal, e.g. 9 or 19, to a process found by [`processes`].
pub fn signal(pid: i32, signal: i32) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.is_ok(), "kill can be run");
}

/// A model of the OpenAI kind on a loopback port, which answers `echo: <the last message>`.
pub struct StandInModel {
    pub url: String,
    server: tokio::task::JoinHandle<()>,
}

impl StandInModel {
    pub async fn start() -> Self {
        use axum::{Json, Router, routing::post};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
        let answer = |Json(request): Json<Value>| async move {
            let said = request["messages"].as_array().and_then(|m| m.last()).map(|m| m["content"].clone());
            let text = format!("echo: {}", said.as_ref().and_then(Value::as_str).unwrap_or_default());
            Json(json!({
                "id": "1", "object": "chat.completion", "model": request["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            }))
        };
        let router = Router::new().route("/v1/chat/completions", post(answer));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the stand-in serves");
        });
        Self { url, server }
    }
}

impl Drop for StandInModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}
