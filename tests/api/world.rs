//! A service on a loopback port, and a client that is used to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroone::control::{
    AccountSettings, Agents, ControlPlane, KeyFile, NewKey, NewUser, Orphans, Registration, Settings,
};
use zeroone::domain::{
    AgentId, ApiKey, HostPort, ModelQuestion, ModelRefusal, Origin, Plan, PortRange, Profile, Scope, Scopes, Slug,
    UserId,
};
use zeroone::http::{BackupOptions, HttpOptions, ServeOptions, front, router, serve};
use zeroone::runtime::{ContainerRuntime as _, InstanceKey, InstanceSpec};
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, FakeDisk, Fakes};
use zeroone::vault::{MasterKey, MasterKeySource, Vault};

use crate::http_client::http_client;

/// Longer than anything here takes, so that only what hangs gets there.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

pub struct World {
    pub fakes: Fakes,
    pub disk: FakeDisk,
    settings: Settings,
    pub plane: ControlPlane,
    options: HttpOptions,
    server: JoinHandle<std::io::Result<()>>,
    pub at: SocketAddr,
    pub http: Client,
    /// Of a user with all scopes.
    pub admin: String,
    pub user: UserId,
    /// Of another user, with what users may do.
    pub key: String,
}

/// An answer that was read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl World {
    pub async fn new(plan: Plan) -> Self {
        Self::with(plan, HttpOptions::default()).await
    }

    pub async fn with(plan: Plan, options: HttpOptions) -> Self {
        Self::on(settings(PortRange::default()), plan, options).await
    }

    pub async fn with_accounts(plan: Plan, options: HttpOptions, accounts: AccountSettings) -> Self {
        Self::on(settings(PortRange::default()).with_accounts(accounts), plan, options).await
    }

    /// Its agents get ports on which a test can listen in their place.
    pub async fn with_free_ports(options: HttpOptions) -> Self {
        Self::on(settings(free_ports()), Plan::Pro, options).await
    }

    /// The same with gateways of this version.
    pub async fn of_version(profile: Profile) -> Self {
        let (fakes, disk, settings) = (Fakes::new(7), FakeDisk::new(), settings(free_ports()));
        let options = StoreOptions::default()
            .with_installation(fakes.installation())
            .with_now(fakes.engine().now())
            .with_check_integrity(false);
        let store = Store::in_memory(disk.clone(), options).unwrap();
        let plane = ControlPlane::builder(store, testkit::vault(), fakes.runtime())
            .gateway(fakes.gateway())
            .clock(fakes.clock())
            .settings(settings.clone())
            .profile(profile)
            .start()
            .await
            .unwrap();
        Self::of(plane, fakes, disk, settings, Plan::Pro, HttpOptions::default()).await
    }

    /// With all that a route may need: a master key in a file and a folder to back up, which are both in `folder`, open
    /// registration, and ports on which a test can listen.
    pub async fn complete(folder: &Path) -> Self {
        let accounts = AccountSettings::default().with_registration(Registration::Open);
        let (fakes, disk) = (Fakes::new(7), FakeDisk::new());
        let settings = settings(free_ports()).with_accounts(accounts).with_orphans(Orphans::Report);
        let options = StoreOptions::default()
            .with_installation(fakes.installation())
            .with_now(fakes.engine().now())
            .with_check_integrity(false);
        let store = Store::in_memory(disk.clone(), options).unwrap();
        let key = folder.join("master.key");
        let vault = Vault::new(&MasterKey::load(MasterKeySource::FileOrNew(key.clone())).unwrap());
        let plane = ControlPlane::builder(store, vault, fakes.runtime())
            .gateway(fakes.gateway())
            .clock(fakes.clock())
            .settings(settings.clone())
            .key_keeper(KeyFile::new(key).with_own(true))
            .start()
            .await
            .unwrap();
        let backup = BackupOptions::new(folder, |_, _| Ok(()));
        let options = HttpOptions::default()
            .with_backup(backup)
            .with_list_models(|question| Box::pin(async move { models(question) }));
        Self::of(plane, fakes, disk, settings, Plan::Pro, options).await
    }

    async fn on(settings: Settings, plan: Plan, options: HttpOptions) -> Self {
        let (fakes, disk) = (Fakes::new(7), FakeDisk::new());
        let plane = testkit::start(&fakes, &disk, settings.clone()).await.unwrap();
        Self::of(plane, fakes, disk, settings, plan, options).await
    }

    async fn of(
        plane: ControlPlane,
        fakes: Fakes,
        disk: FakeDisk,
        settings: Settings,
        plan: Plan,
        options: HttpOptions,
    ) -> Self {
        let operator = user(&plane, "root@example.org", Plan::Enterprise).await;
        let admin = key(&plane, operator, Scopes::all()).await;
        let user = user(&plane, "ada@example.org", plan).await;
        let own = key(&plane, user, Scopes::user()).await;
        let (at, server) = listen(&plane, &options).await;
        Self { fakes, disk, settings, plane, options, server, at, http: http_client(PATIENCE), admin, user, key: own }
    }

    /// Ends the service and starts it again on the same store and engine.
    pub async fn restart(&mut self) {
        self.options.closing.cancel();
        self.plane.shutdown(Agents::Leave).await;
        (&mut self.server).await.unwrap().unwrap();
        self.options.closing = CancellationToken::new();
        self.plane = testkit::start(&self.fakes, &self.disk, self.settings.clone()).await.unwrap();
        (self.at, self.server) = listen(&self.plane, &self.options).await;
        self.http = http_client(PATIENCE);
    }

    /// The same service by its router alone, as an embedder may have it.
    pub async fn routed(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let app = router(self.plane.clone(), self.options.clone());
        tokio::spawn(serve(listener, app, self.options.closing.clone(), ServeOptions::default()));
        at
    }

    pub fn shut(&self) {
        self.options.closing.cancel();
    }

    pub async fn key_with(&self, scopes: &[Scope]) -> String {
        key(&self.plane, self.user, scopes.iter().copied().collect()).await
    }

    /// Revokes a key of [`World::key_with`]: a user may have fifty.
    pub async fn forget(&self, key: &str) {
        let hash = ApiKey::hash_of(key);
        let keys = self.plane.accounts().keys_of(self.user);
        let id = keys.into_iter().find(|(key, _)| key.hash == hash).map(|(key, _)| key.id).unwrap();
        self.plane.remove_key(self.user, id).await.unwrap();
    }

    pub async fn stranger(&self) -> String {
        let stranger = user(&self.plane, "eve@example.org", Plan::Pro).await;
        key(&self.plane, stranger, Scopes::user()).await
    }

    pub fn raw(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.at))
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.raw(method, path).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Posts without a body.
    pub async fn command(&self, id: &str, command: &str) -> Answer {
        answer(self.request(Method::POST, &format!("/api/agents/{id}/{command}"))).await
    }

    pub async fn as_admin(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.raw(method, path).bearer_auth(&self.admin);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    /// Creates an agent and gives its id.
    pub async fn created(&self, name: &str) -> String {
        let created = self.post("/api/agents", &new_agent(name)).await;
        assert_eq!(created.status, 202, "{created:?}");
        created.body["id"].as_str().unwrap().to_owned()
    }

    /// Creates an agent and waits until it runs.
    pub async fn running(&self, name: &str) -> String {
        let id = self.created(name).await;
        self.reach(&id, "RUNNING").await;
        id
    }

    /// An instance of this installation that no agent claims, and its agent's id.
    pub async fn orphan(&self, origin: Option<Origin>) -> String {
        let agent = AgentId::new();
        let key = InstanceKey { agent, slug: Slug::parse("lost").unwrap() };
        let spec = InstanceSpec::new(key, vec!["gateway".into()], Plan::Free.limits())
            .with_port(HostPort::try_from(49_999).ok())
            .with_origin(origin.map(Arc::new));
        self.fakes.runtime().ensure_created(&spec).await.unwrap();
        agent.to_string()
    }

    pub async fn reach(&self, id: &str, status: &str) -> Value {
        let reached = self.get(&format!("/api/agents/{id}/wait?status={status}&timeout=30")).await;
        assert_eq!(reached.status, 200, "{reached:?}");
        reached.body
    }

    pub async fn status(&self, id: &str) -> String {
        self.get(&format!("/api/agents/{id}")).await.body["status"].as_str().unwrap_or("gone").to_owned()
    }
}

impl Answer {
    /// What every problem must have, and its code.
    pub fn problem(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["status"], status);
        for text in ["title", "detail", "instance"] {
            assert!(self.body[text].is_string(), "no {text}: {self:?}");
        }
        assert!(self.body["retryable"].is_boolean());
        assert_eq!(self.body["requestId"], self.headers["x-request-id"].to_str().unwrap());
        &self.body
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    pub fn pointers(&self) -> Vec<&str> {
        self.body["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }
}

pub fn new_agent(name: &str) -> Value {
    json!({"name": name, "provider": "openai", "model": "gpt-5", "apiKey": "sk-planted-key"})
}

pub async fn answer(request: RequestBuilder) -> Answer {
    read(request.send().await.unwrap()).await
}

pub async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

/// Asks until it is so.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The next event of a stream: its kind, its id and its data.
pub async fn next_event(stream: &mut Response, buffer: &mut String) -> Option<(String, Option<String>, Value)> {
    loop {
        if let Some((event, rest)) = buffer.clone().split_once("\n\n") {
            rest.clone_into(buffer);
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
            match field("event:") {
                Some(kind) => {
                    let data = serde_json::from_str(&field("data:").unwrap_or_default()).unwrap();
                    return Some((kind, field("id:"), data));
                }
                // A comment that keeps the connection open.
                None => continue,
            }
        }
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("a stream is silent").ok()??;
        buffer.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

async fn listen(plane: &ControlPlane, options: &HttpOptions) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let app = front(plane.clone(), options.clone());
    let serving = ServeOptions::default().with_grace(Duration::from_secs(1));
    (at, tokio::spawn(serve(listener, app, options.closing.clone(), serving)))
}

/// A provider that takes one key.
fn models(question: ModelQuestion) -> Result<Vec<String>, ModelRefusal> {
    match question.key.as_ref().map(|key| key.expose().as_str()) {
        Some("sk-planted-key") => Ok(vec!["gpt-5".into(), "gpt-5-mini".into()]),
        _ => Err(ModelRefusal::new("api.openai.com answered 401").with_status(401)),
    }
}

fn settings(ports: PortRange) -> Settings {
    Settings::default().with_domain("agents.example.org").with_ports(ports)
}

/// A few ports that nobody listens on, other ones with every call: tests run side by side.
fn free_ports() -> PortRange {
    const COUNT: u16 = 3;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 200).unwrap() * 20;
    loop {
        let first = 45_000 + (spread + COUNT * NEXT.fetch_add(1, Ordering::Relaxed)) % 5_000;
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        if (first..first + COUNT).all(|port| free(&port)) {
            return PortRange::from(HostPort::try_from(first).unwrap(), COUNT).unwrap();
        }
    }
}

async fn user(plane: &ControlPlane, email: &str, plan: Plan) -> UserId {
    plane.create_user(NewUser::new(email, plan)).await.unwrap().id
}

async fn key(plane: &ControlPlane, user: UserId, scopes: Scopes) -> String {
    let new = NewKey::new(scopes);
    plane.create_key(user, new).await.unwrap().1.expose().clone()
}
