//! The gateway as a program: what it prints, how it ends, what it refuses to start with.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::world::PATIENCE;

fn command(home: &TempDir, config: &str) -> Command {
    std::fs::create_dir_all(home.path().join(".zeroclaw")).unwrap();
    std::fs::write(home.path().join(".zeroclaw/config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    command.arg("gateway").env_clear().env("HOME", home.path()).env("ZEROCLAW_GATEWAY_PORT", "0");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive its test.
struct Running(Child);

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
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
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

fn refusal(home: &TempDir, config: &str, env: &[(&str, &str)]) -> String {
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
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("listening on http://[::]:")));
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
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = Vec::new();
    let mut until = |text: &str, seen: &mut Vec<String>| {
        let line = lines.find(|line| {
            seen.push(line.clone());
            line.contains(text)
        });
        line.unwrap_or_else(|| panic!("no line with {text}"))
    };
    let url = until("listening on ", &mut seen).split_once("listening on ").unwrap().1.to_owned();
    let code = until("Send: POST", &mut seen).rsplit_once(' ').unwrap().1.to_owned();
    let http = super::world::client();
    let paired = http.post(format!("{url}/pair")).header("X-Pairing-Code", code).send().await.unwrap();
    let token = paired.json::<serde_json::Value>().await.unwrap()["token"].as_str().unwrap().to_owned();
    let message = serde_json::json!({ "message": "planted question" });
    let request = http.post(format!("{url}/webhook")).bearer_auth(&token).header("X-Idempotency-Key", "planted\tkey");
    assert_eq!(request.json(&message).send().await.unwrap().status(), 500);
    until("cannot ask Telegram", &mut seen);
    until("no answer", &mut seen);
    let printed = seen.join("\n");
    assert!(!printed.contains("planted") && !printed.contains(&token[3..]), "{printed}");
}
