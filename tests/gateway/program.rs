//! The gateway as a program: what it prints, how it ends, what it refuses to start with.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::model::FakeModel;
use super::world::PATIENCE;
use crate::http_client::http_client;
use crate::lines::Lines;

pub(crate) fn command(home: &TempDir, config: &str) -> Command {
    std::fs::create_dir_all(home.path().join(".zeroclaw")).unwrap();
    std::fs::write(home.path().join(".zeroclaw/config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    command.arg("gateway").env_clear().env("HOME", home.path()).env("ZEROCLAW_GATEWAY_PORT", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_logs_with_times_prints_its_code_and_ends_at_once_on_sigterm() {
    let home = TempDir::new().unwrap();
    let mut child = Running(command(&home, "").spawn().unwrap());
    let mut lines = Lines::of(child.0.stdout.take().unwrap());
    let first = lines.next().unwrap();
    let (time, rest) = first.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{first}");
    assert!(rest.contains("gateway starting") && !first.contains('\u{1b}'), "{first}");
    let code = lines
        .by_ref()
        .find_map(|line| line.trim().strip_prefix("Send: POST /pair with header X-Pairing-Code: ").map(str::to_owned));
    assert_eq!(code.unwrap().len(), 6);
    assert!(lines.by_ref().any(|line| line.contains("Press Ctrl+C")));

    let asked = Instant::now();
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").arg("-TERM").arg(pid).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());
    assert!(asked.elapsed() < PATIENCE);
    assert!(lines.any(|line| line.contains("gateway stopped")));
}

pub(crate) fn refusal(home: &TempDir, config: &str, env: &[(&str, &str)]) -> String {
    let output = command(home, config).envs(env.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn what_it_cannot_start_with_is_said_without_repeating_it() {
    let home = TempDir::new().unwrap();
    let broken = refusal(&home, "[channels_config.telegram]\nbot_token = \"planted\n", &[]);
    assert!(broken.contains("line 2") && !broken.contains("planted"), "{broken}");
    assert!(refusal(&home, "", &[("PROVIDER", "gtp")]).contains("must be one of"));
    assert!(refusal(&home, "", &[("ZEROCLAW_GATEWAY_HOST", "0.0.0.0")]).contains("refusing to listen on 0.0.0.0"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(refusal(&home, "", &[("ZEROCLAW_GATEWAY_PORT", &port)]).contains("cannot listen"));
}

#[test]
fn a_public_address_is_listened_on_when_asked_for() {
    let home = TempDir::new().unwrap();
    let mut command = command(&home, "[gateway]\nhost = \"[::]\"\n");
    let mut child = Running(command.env("ZEROCLAW_ALLOW_PUBLIC_BIND", "true").spawn().unwrap());
    let mut lines = Lines::of(child.0.stdout.take().unwrap());
    assert!(lines.any(|line| line.contains("listening on http://[::]:")));
}

/// A gateway's output, read line by line and kept.
pub(crate) struct Output {
    lines: Lines,
    pub(crate) seen: Vec<String>,
}

impl Output {
    pub(crate) fn of(child: &mut Running) -> Self {
        Self { lines: Lines::of(child.0.stdout.take().unwrap()), seen: vec![] }
    }

    /// The first line that has this text, among those that were seen too: what different tasks print comes in any order.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut looked_at = 0;
        loop {
            if let Some(line) = self.seen[looked_at..].iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            looked_at = self.seen.len();
            match self.lines.next() {
                Some(line) => self.seen.push(line),
                None => panic!("no line with {text} in {:?}", self.seen),
            }
        }
    }

    pub(crate) fn url(&mut self) -> String {
        self.until("listening on ").split_once("listening on ").unwrap().1.to_owned()
    }

    pub(crate) fn code(&mut self) -> String {
        self.until("Send: POST /pair").rsplit_once(' ').unwrap().1.to_owned()
    }
}

/// Pairs, and returns the whole answer.
pub(crate) async fn pair(http: &reqwest::Client, url: &str, code: String) -> Value {
    let paired = http.post(format!("{url}/pair")).header("X-Pairing-Code", code).send().await.unwrap();
    paired.json().await.unwrap()
}

/// The secrets of a busy agent with all kinds of trouble do not reach its output.
#[tokio::test]
async fn no_secret_is_ever_printed() {
    let home = TempDir::new().unwrap();
    let config = "api_key = \"sk-planted\"\ndefault_provider = \"custom:http://127.0.0.1:9/v1\"\n\
                  [reliability]\nprovider_retries = 1\nprovider_backoff_ms = 1\n\
                  [channels_config.telegram]\nbot_token = \"1:planted\"\napi_base = \"http://127.0.0.1:9\"\n\
                  [channels_config.whatsapp]\naccess_token = \"planted\"\nphone_number_id = \"1\"\n\
                  verify_token = \"planted\"\napp_secret = \"planted\"\n[unknown]\nsecret = \"planted\"\n";
    let mut child = Running(command(&home, config).env("RUST_LOG", "trace").spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let http = http_client(PATIENCE);
    let token = pair(&http, &url, code).await["token"].as_str().unwrap().to_owned();
    let message = json!({ "message": "planted question" });
    let request = http.post(format!("{url}/webhook")).bearer_auth(&token).header("X-Idempotency-Key", "planted\tkey");
    assert_eq!(request.json(&message).send().await.unwrap().status(), 502);
    output.until("cannot ask Telegram");
    output.until("no answer");
    let printed = output.seen.join("\n");
    assert!(printed.contains("unknown"), "the unknown key is named");
    assert!(!printed.contains("planted") && !printed.contains(&token[3..]), "{printed}");
}

/// Also under a umask that lets everybody read, and wherever the files are copied to.
#[tokio::test]
async fn what_an_agent_writes_is_for_its_owner_alone() {
    let home = TempDir::new().unwrap();
    let model = FakeModel::start().await;
    let plain = command(&home, &format!("default_provider = \"custom:{}\"\ndefault_model = \"m\"\n", model.url()));
    let mut open = Command::new("sh");
    open.args(["-c", "umask 000; exec \"$0\" gateway"]).arg(plain.get_program()).env_clear();
    open.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdout(Stdio::piped());
    let mut child = Running(open.spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let http = http_client(PATIENCE);
    let token = pair(&http, &url, code).await["token"].as_str().unwrap().to_owned();
    for (path, body) in [
        ("/webhook", json!({ "message": "hello, remember this" })),
        ("/api/memory", json!({ "key": "k", "content": "c" })),
        ("/api/cron", json!({ "schedule": "0 9 * * *", "command": "say hello" })),
    ] {
        let answer = http.post(format!("{url}{path}")).bearer_auth(&token).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path} {}", answer.status());
    }
    // Not what the test itself has made.
    let theirs = [home.path().to_owned(), home.path().join(".zeroclaw")];
    let (mut folders, mut files) = (vec![home.path().to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let about = entry.metadata().unwrap();
            if about.is_dir() {
                folders.push(entry.path());
            }
            if !theirs.contains(&entry.path()) {
                files += 1;
                assert_eq!(about.permissions().mode() & 0o077, 0, "{}", entry.path().display());
            }
        }
    }
    assert!(files > 3, "it has written something");
}

/// Not a byte can be written: the agent says so where it matters, and answers all the same.
#[tokio::test]
async fn a_full_disk_is_an_error_for_what_has_to_be_kept_and_for_nothing_else() {
    let home = TempDir::new().unwrap();
    let model = FakeModel::start().await;
    let config = format!("default_provider = \"custom:{}\"\ndefault_model = \"m\"\n", model.url());
    let plain = command(&home, &config);
    // No file may grow, which is the nearest to a full disk that needs no rights; the signal for it is ignored, so that
    // writing fails as it does there.
    let mut full = Command::new("sh");
    full.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" gateway"]).arg(plain.get_program()).env_clear();
    full.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdout(Stdio::piped());
    let mut child = Running(full.spawn().unwrap());
    let mut output = Output::of(&mut child);
    let (url, code) = (output.url(), output.code());
    let http = http_client(PATIENCE);
    let paired = pair(&http, &url, code).await;
    assert_eq!((&paired["paired"], &paired["persisted"]), (&json!(true), &json!(false)));
    let token = paired["token"].as_str().unwrap();
    let send = async |method: &str, path: &str, body: String| {
        let request = http.request(method.parse().unwrap(), format!("{url}{path}")).bearer_auth(token);
        let answer = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(send("POST", "/webhook", json!({ "message": "hi" }).to_string()).await.1["response"], "echo: hi");
    for (method, path, body, error) in [
        ("PUT", "/api/config", config.clone(), "Failed to save config"),
        ("POST", "/api/cron", json!({ "schedule": "0 9 * * *", "command": "x" }).to_string(), "The jobs cannot"),
        ("POST", "/api/memory", json!({ "key": "k", "content": "c" }).to_string(), "The memory cannot"),
    ] {
        let (status, answer) = send(method, path, body).await;
        assert_eq!(status, 500, "{path}");
        assert!(answer["error"].as_str().unwrap().starts_with(error), "{answer}");
    }
    let unchanged = std::fs::read_to_string(home.path().join(".zeroclaw/config.toml")).unwrap();
    assert_eq!(unchanged, config);
}
