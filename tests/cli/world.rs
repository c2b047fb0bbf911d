//! The real binary in a folder of its own, and a model for its agents.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lines::Lines;

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A working folder; what still runs in it when the test is over is ended.
pub struct World {
    pub folder: TempDir,
}

/// How a verb ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// `zeroone serve`, ready.
pub struct Serving {
    child: Child,
    /// What it printed up to the line that says where it listens.
    pub greeting: Vec<String>,
    pub url: String,
}

impl World {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Nothing of the environment that the tests run in reaches the program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command
    }

    pub fn serve(&self) -> Serving {
        self.try_serve(&[]).unwrap_or_else(|ended| panic!("it does not serve: {ended:?}"))
    }

    pub fn serve_with(&self, flags: &[&str]) -> Serving {
        self.start(flags, &[]).unwrap_or_else(|ended| panic!("it does not serve: {ended:?}"))
    }

    /// A service on a free port, or how it ended instead.
    pub fn try_serve(&self, env: &[(&str, &str)]) -> Result<Serving, Ended> {
        self.start(&[], env)
    }

    fn start(&self, flags: &[&str], env: &[(&str, &str)]) -> Result<Serving, Ended> {
        let errors = fs::File::create(self.path("stderr")).unwrap();
        let mut command = self.command(&["serve", "--bind", "127.0.0.1:0", "--runtime", "process"]);
        let mut child =
            command.args(flags).envs(env.iter().copied()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        let mut greeting = Vec::new();
        for line in lines {
            if let Some(url) = line.strip_prefix("listening on ") {
                return Ok(Serving { child, greeting, url: url.to_owned() });
            }
            greeting.push(line);
        }
        let code = child.wait().unwrap().code();
        let stderr = fs::read_to_string(self.path("stderr")).unwrap();
        Err(Ended { code, stdout: greeting.join("\n"), stderr })
    }

    pub fn run(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ended {
        let output = self.command(arguments).envs(env.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl World {
    /// A client's verb with this on its standard input.
    pub fn run_with(&self, arguments: &[&str], url: &str, input: &str) -> Ended {
        let mut command = self.command(arguments);
        command.env("ZEROONE_URL", url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for pid in processes_in(self.folder.path()) {
            signal(&pid, "-KILL");
        }
    }
}

impl Serving {
    /// A client's verb that must work; gives what it printed.
    pub fn verb(&self, world: &World, arguments: &[&str]) -> String {
        let ended = world.run(arguments, &[("ZEROONE_URL", &self.url), ("MODEL_KEY", "sk-planted")]);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout.trim_end().to_owned()
    }

    pub fn json(&self, world: &World, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.verb(world, &[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// How a verb fails.
    pub fn refused(&self, world: &World, arguments: &[&str]) -> Ended {
        world.run(arguments, &[("ZEROONE_URL", &self.url)])
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(&self.child.id().to_string(), "-TERM");
        let child = &mut self.child;
        until("the service ends", || child.try_wait().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn signal(pid: &str, signal: &str) {
    let _ = Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status();
}

/// Whether the process runs; one that nobody has waited for yet does not.
pub fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Pids of all processes whose working folder is in `folder`.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
        .filter(|pid| *pid != std::process::id().to_string() && runs(pid))
        .collect()
}

/// A model server that says what it was told. It lives as long as the test.
pub fn echo_model() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().fallback(echo)).await.unwrap();
        });
    });
    format!("http://{address}/v1")
}

async fn echo(body: Bytes) -> axum::Json<Value> {
    let chat: Value = serde_json::from_slice(&body).unwrap();
    let said = chat["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    let message = json!({ "role": "assistant", "content": format!("echo: {said}") });
    axum::Json(json!({ "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] }))
}
