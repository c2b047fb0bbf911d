//! A gateway of one's own for a test: a home folder, a model, and the means to talk to both.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroone::gateway::{Gateway, Options};

use super::model::FakeModel;
use crate::http_client::http_client;

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) model: FakeModel,
    pub(crate) http: Client,
    address: SocketAddr,
    banner: String,
    token: Option<String>,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    /// A gateway with a fake model and `extra` at the end of its `config.toml`; its own table headers may follow.
    pub(crate) async fn new(extra: &str) -> Self {
        let model = FakeModel::start().await;
        let config = format!(
            "default_provider = \"custom:{}\"\ndefault_model = \"m\"\napi_key = \"sk-planted-key\"\n{extra}",
            model.url()
        );
        Self::with_config(model, &config).await
    }

    pub(crate) async fn with_config(model: FakeModel, config: &str) -> Self {
        let home = TempDir::new().unwrap();
        std::fs::create_dir_all(home.path().join(".zeroclaw/workspace")).unwrap();
        std::fs::write(home.path().join(".zeroclaw/config.toml"), config).unwrap();
        let http = http_client(PATIENCE);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut world = Self { home, model, http, address, banner: String::new(), token: None, running: None };
        world.start().await;
        world
    }

    /// A gateway that is paired.
    pub(crate) async fn paired(extra: &str) -> Self {
        let mut world = Self::new(extra).await;
        world.pair().await;
        world
    }

    pub(crate) async fn start(&mut self) {
        let gateway = Gateway::bind(Options::new(self.home.path()).port(0)).await.unwrap();
        self.address = gateway.local_addr();
        self.banner = gateway.banner();
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(gateway.serve(stop.clone())), stop));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((task, stop)) = self.running.take() {
            stop.cancel();
            tokio::time::timeout(PATIENCE, task).await.expect("the gateway did not stop").unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn banner(&self) -> &str {
        &self.banner
    }

    /// The code in the banner's `Send:` line.
    pub(crate) fn code(&self) -> Option<String> {
        self.banner
            .lines()
            .find_map(|line| line.trim().strip_prefix("Send: POST /pair with header X-Pairing-Code: "))
            .map(str::to_owned)
    }

    pub(crate) async fn pair(&mut self) -> Value {
        let code = self.code().expect("the banner has no code");
        let answer = self.post("/pair").header("X-Pairing-Code", code).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        self.token = Some(answer["token"].as_str().unwrap().to_owned());
        answer
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("not paired")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the token, if there is one.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), self.url(path));
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request("POST", path)
    }

    pub(crate) async fn say(&self, message: &str) -> (StatusCode, Value) {
        both(self.post("/webhook").json(&serde_json::json!({ "message": message })).send().await.unwrap()).await
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.home.path().join(".zeroclaw/workspace")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.home.path().join(".zeroclaw/config.toml")
    }

    pub(crate) fn config_text(&self) -> String {
        std::fs::read_to_string(self.config_path()).unwrap()
    }
}

/// Looks until there is something to see.
pub(crate) async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    const BETWEEN: Duration = Duration::from_millis(10);
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(BETWEEN).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it never came true")
}

/// Status and JSON body; `null` where there is none.
pub(crate) async fn both(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Serves a double on a port of its own for the rest of the test.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
