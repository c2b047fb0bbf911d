//! Several cells and their router as operators run them: real programs, real agents, one address.

#[path = "support/http_client.rs"]
mod http_client;
#[path = "support/service.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod service;
#[path = "support/sse.rs"]
mod sse;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use http_client::http_client;
use service::lines::Lines;
use service::{EndAgents, PATIENCE, Service, StandInModel, answer, new_agent, pause, signal};
use sse::Events;

const CELLS: usize = 3;
const PASSWORD: &str = "correct horse battery";

/// Three cells behind a router.
struct World {
    folder: tempfile::TempDir,
    cells: Vec<Option<Service>>,
    at: Vec<SocketAddr>,
    router: Child,
    url: String,
    operator: String,
    client: Client,
    _ends: Vec<EndAgents>,
}

/// A user of one cell, with an agent that runs.
struct Tenant {
    cell: usize,
    user: String,
    email: String,
    key: String,
    agent: Value,
}

fn data(folder: &Path, cell: usize) -> PathBuf {
    folder.join(format!("cell-{cell}"))
}

/// A cell as a Pod of a StatefulSet is started: everything is the same but the name.
fn cell(folder: &Path, number: usize, bind: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    command.args(["serve", "--bind", bind, "--runtime", "process", "--data"]).arg(data(folder, number));
    let first = 2_000_000_000 + 1000 * number;
    command
        .env("ZEROONE_CELL__NUMBER", format!("zeroone-{number}"))
        .env("ZEROONE_CELL__OPERATOR_KEY_FILE", folder.join("operator.key"))
        .env("ZEROONE_PROXY__DOMAIN", "agents.test")
        .env("ZEROONE_PROCESS__UIDS", format!("{first}-{}", first + 999));
    command
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let operator = format!("zo_all_{}", "5a".repeat(32));
        fs::write(folder.path().join("operator.key"), format!("{operator}\n")).expect("it can be written");
        let ends = (0..CELLS).map(|number| EndAgents(data(folder.path(), number))).collect();
        let start = |number| Service::spawn(cell(folder.path(), number, "127.0.0.1:0"), &data(folder.path(), number));
        let cells: Vec<Service> = (0..CELLS).map(start).collect();
        let at = cells.iter().map(|it| it.url["http://".len()..].parse().expect("an address")).collect();
        let mut route = Command::new(env!("CARGO_BIN_EXE_zeroone"));
        route.args(["route", "--bind", "127.0.0.1:0"]).env("ZEROONE_PROXY__DOMAIN", "agents.test");
        route.args(cells.iter().flat_map(|it| ["--cell", &it.url]));
        let log = fs::File::create(folder.path().join("router.log")).expect("a log");
        let mut router = route.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it can be run");
        let mut lines = Lines::of(router.stdout.take().expect("its output is ours"));
        let url = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)).expect("it listens");
        let cells = cells.into_iter().map(Some).collect();
        Self { folder, cells, at, router, url, operator, client: http_client(PATIENCE), _ends: ends }
    }

    fn ask(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(key)
    }

    async fn get(&self, key: &str, path: &str) -> (u16, Value) {
        answer(self.ask(key, Method::GET, path)).await.expect("the router answers")
    }

    async fn post(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        answer(self.ask(key, Method::POST, path).json(body)).await.expect("the router answers")
    }

    /// A user whom the operator puts into this cell, with an agent.
    async fn tenant(&self, cell: usize, model: &StandInModel) -> Tenant {
        let email = format!("tenant{cell}@example.org");
        let body = json!({ "email": email, "plan": "pro" });
        let request =
            self.ask(&self.operator, Method::POST, "/api/admin/users").header("zeroone-cell", cell).json(&body);
        let (status, user) = answer(request).await.unwrap();
        assert_eq!(status, 201, "{user}");
        let user = user["id"].as_str().unwrap().to_owned();
        let (status, key) = self.post(&self.operator, &format!("/api/admin/users/{user}/keys"), &json!({})).await;
        assert_eq!(status, 201, "{key}");
        let key = key["key"].as_str().unwrap().to_owned();
        assert!(key.starts_with(&format!("zo_{cell}_")), "its number is in the key");
        let (status, agent) = self.post(&key, "/api/agents", &new_agent("Ada", &model.url)).await;
        assert_eq!(status, 202, "{agent}");
        let wait = format!("/api/agents/{}/wait?status=RUNNING&timeout=80", agent["id"].as_str().unwrap());
        let (status, agent) = self.get(&key, &wait).await;
        assert_eq!(status, 200, "{agent}");
        Tenant { cell, user, email, key, agent }
    }

    async fn ready(&self) -> Value {
        self.get("none", "/readyz").await.1
    }

    async fn until_cell(&self, number: usize, answers: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.ready().await["cells"][number]["answers"] != answers {
            assert!(Instant::now() < deadline, "{}", self.ready().await);
            pause().await;
        }
    }

    async fn sign_in(&self, email: &str, password: &str) -> reqwest::Response {
        let body = json!({ "email": email, "password": password });
        let request = self.client.post(format!("{}/api/auth/login", self.url)).json(&body);
        request.send().await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.router.kill();
        let _ = self.router.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.path().join("router.log")).unwrap_or_default());
        }
    }
}

impl Tenant {
    fn id(&self) -> &str {
        self.agent["id"].as_str().unwrap()
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/agents/{}/{rest}", self.id())
    }

    async fn says(&self, world: &World, words: &str) -> (u16, Value) {
        world.post(&self.key, &self.path("message"), &json!({ "message": words })).await
    }

    async fn answers(&self, world: &World) {
        let (status, said) = self.says(world, "hello").await;
        assert_eq!((status, said["response"].as_str()), (200, Some("echo: hello")), "cell {}: {said}", self.cell);
    }
}

/// What somebody sees who knows nothing of cells.
async fn all_ways_lead_through(world: &World, tenant: &Tenant) {
    tenant.answers(world).await;
    let mut events = Events::open(world.ask(&tenant.key, Method::GET, &tenant.path("events"))).await;
    assert!(events.next().await.is_some());
    let request =
        world.ask(&tenant.key, Method::POST, &tenant.path("message")).json(&json!({ "message": "in pieces" }));
    let mut pieces = Events::open(request).await;
    let mut text = String::new();
    while let Some(event) = pieces.next().await {
        text.push_str(event.data["text"].as_str().or(event.data["delta"].as_str()).unwrap_or_default());
        text.push_str(event.data["response"].as_str().unwrap_or_default());
        if event.kind == "done" {
            break;
        }
    }
    assert!(text.contains("echo: in pieces"), "{text}");

    let target =
        format!("{}{}?token={}", world.url.replacen("http", "ws", 1), tenant.path("gateway/ws/chat"), tenant.key);
    let (mut socket, _) = tokio_tungstenite::connect_async(target).await.unwrap();
    socket.send(Message::text(json!({ "type": "message", "content": "over a socket" }).to_string())).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = tokio::time::timeout_at(deadline.into(), socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = frame
            && text.contains("echo: over a socket")
        {
            break;
        }
    }
    drop(socket);

    let host = tenant.agent["subdomain"].as_str().unwrap();
    assert_eq!(host, format!("ada-c{}.agents.test", tenant.cell));
    let (status, health) =
        answer(world.client.get(format!("{}/health", world.url)).header("host", host)).await.unwrap();
    assert_eq!(status, 200, "{host}: {health}");
    let (status, models) = world.get(&tenant.key, "/v1/models").await;
    assert_eq!((status, models["data"][0]["id"].as_str()), (200, Some("ada")), "{models}");
}

/// The operator's key over all cells.
async fn the_operator_sees_all(world: &World, tenants: &[Tenant]) {
    for n in 0..9 {
        let body = json!({ "email": format!("placed{n}@example.org"), "plan": "free" });
        let (status, user) = world.post(&world.operator, "/api/admin/users", &body).await;
        assert_eq!(status, 201, "{user}");
        let (status, again) = world.post(&world.operator, "/api/admin/users", &body).await;
        assert_eq!((status, again["code"].as_str()), (409, Some("name-taken")), "in whichever cell: {again}");
    }
    let taken = json!({ "email": tenants[2].email, "plan": "free" });
    assert_eq!(world.post(&world.operator, "/api/admin/users", &taken).await.0, 409, "placed by hand, and found");

    let (mut users, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = world.get(&world.operator, &format!("/api/admin/users?limit=4{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        assert!(page["data"].as_array().unwrap().len() <= 4);
        users.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let count = |start: &str| users.iter().filter(|it| it["email"].as_str().unwrap().starts_with(start)).count();
    assert_eq!((count("admin@"), count("tenant"), count("placed"), users.len()), (3, 3, 9, 15));
    assert!(users.is_sorted_by_key(|user| user["id"].as_str().unwrap().to_owned()), "in the order of creation");

    let (status, agents) = world.get(&world.operator, "/api/admin/agents").await;
    let ids: Vec<&str> = agents["data"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()).collect();
    assert_eq!((status, ids), (200, tenants.iter().map(Tenant::id).collect()));
    for tenant in tenants {
        assert_eq!(world.get(&world.operator, &tenant.path("explain")).await.0, 200);
        assert_eq!(world.get(&world.operator, &format!("/api/admin/users/{}", tenant.user)).await.0, 200);
    }
    let (status, refused) = world.get(&world.operator, "/api/admin/runtime").await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("cell-needed")), "{refused}");
    let one = world.ask(&world.operator, Method::GET, "/api/admin/runtime").header("zeroone-cell", 1);
    assert_eq!(answer(one).await.unwrap().0, 200);
}

/// People do not know their cell either.
async fn people_sign_in(world: &World, tenants: &[Tenant]) {
    for tenant in tenants {
        let path = format!("/api/admin/users/{}/password", tenant.user);
        let set = world.ask(&world.operator, Method::POST, &path).json(&json!({ "password": PASSWORD }));
        let (status, said) = answer(set).await.unwrap();
        assert_eq!(status, 204, "{said}");
        assert_eq!(world.sign_in(&tenant.email, "wrong").await.status(), 401);
        let welcome = world.sign_in(&tenant.email, PASSWORD).await;
        assert_eq!(welcome.status(), 200);
        let cookies: Vec<String> =
            welcome.headers().get_all("set-cookie").iter().map(|it| it.to_str().unwrap().to_owned()).collect();
        let session = cookies[0].split(';').next().unwrap();
        assert!(session.starts_with(&format!("zeroone_session=zs_{}_", tenant.cell)), "{cookies:?}");
        assert!(cookies[1].starts_with(&format!("zeroone_cell={};", tenant.cell)), "{cookies:?}");
        let me = world.client.get(format!("{}/api/me", world.url)).header("cookie", session);
        let (status, me) = answer(me).await.unwrap();
        assert_eq!((status, me["email"].as_str()), (200, Some(tenant.email.as_str())), "{me}");
    }
}

/// A cell dies, and comes back where it was.
async fn one_that_dies_is_named_and_harms_no_other(world: &mut World, tenants: &[Tenant]) {
    let mut events = Events::open(world.ask(&tenants[1].key, Method::GET, &tenants[1].path("events"))).await;
    world.cells[1].take().unwrap().kill();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    let last = last.expect("it had events");
    assert_eq!((last.kind.as_str(), last.data["code"].as_str()), ("error", Some("cell-failed")));

    let (status, refused) = tenants[1].says(world, "anybody there?").await;
    let told = (status, refused["code"].as_str(), refused["cell"].as_u64(), refused["retryable"].as_bool());
    assert_eq!(told, (503, Some("cell-unavailable"), Some(1), Some(true)), "{refused}");
    assert!(refused["detail"].as_str().unwrap().starts_with("Cell 1 does not answer: "), "{refused}");
    for tenant in [&tenants[0], &tenants[2]] {
        tenant.answers(world).await;
    }
    let (status, list) = world.get(&world.operator, "/api/admin/users").await;
    assert_eq!((status, list["cell"].as_u64()), (503, Some(1)), "a list that lacks some is no list: {list}");
    assert_eq!(world.sign_in(&tenants[1].email, PASSWORD).await.status(), 503, "and not a wrong password");
    world.until_cell(1, false).await;
    assert_eq!(world.get("none", "/readyz").await.0, 200, "there are others");
    assert_eq!(world.get("none", "/api/openapi.json").await.0, 200, "any of them");
    let metrics = world.client.get(format!("{}/metrics", world.url)).send().await.unwrap().text().await.unwrap();
    for sample in ["zeroone_router_cell_up{cell=\"1\"} 0", "zeroone_router_cell_up{cell=\"0\"} 1"] {
        assert!(metrics.contains(sample), "{metrics}");
    }
    let counted = |line: &str| line.starts_with("zeroone_router_requests_total{cell=\"1\",outcome=\"unavailable\"} ");
    assert!(metrics.lines().any(|line| counted(line) && !line.ends_with(" 0")), "{metrics}");

    let folder = world.folder.path();
    world.cells[1] = Some(Service::spawn(cell(folder, 1, &world.at[1].to_string()), &data(folder, 1)));
    world.until_cell(1, true).await;
    let (status, agent) = world.get(&tenants[1].key, &tenants[1].path("wait?status=RUNNING&timeout=80")).await;
    assert_eq!(status, 200, "{agent}");
    tenants[1].answers(world).await;
}

/// One that hangs takes a request, and never answers.
async fn one_that_hangs_is_told_from_one_that_is_away(world: &World, tenant: &Tenant) {
    let pid = i32::try_from(world.cells[tenant.cell].as_ref().unwrap().pid()).unwrap();
    signal(pid, 19);
    let (status, refused) = tenant.says(world, "hello?").await;
    signal(pid, 18);
    assert_eq!((status, refused["code"].as_str()), (502, Some("cell-failed")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("may have been carried out"), "{refused}");
    world.until_cell(tenant.cell, true).await;
    tenant.answers(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_cells_are_one_service_and_one_that_dies_harms_no_other() {
    let mut world = World::new();
    let model = StandInModel::start().await;
    for number in 0..CELLS {
        world.until_cell(number, true).await;
    }
    let mut tenants = Vec::new();
    for number in 0..CELLS {
        tenants.push(world.tenant(number, &model).await);
    }
    for tenant in &tenants {
        all_ways_lead_through(&world, tenant).await;
    }
    let (status, stranger) = world.get(&tenants[0].key, &format!("/api/agents/{}", tenants[1].id())).await;
    assert_eq!(status, 404, "another cell's agent is another user's: {stranger}");
    the_operator_sees_all(&world, &tenants).await;
    people_sign_in(&world, &tenants).await;
    one_that_dies_is_named_and_harms_no_other(&mut world, &tenants).await;
    one_that_hangs_is_told_from_one_that_is_away(&world, &tenants[2]).await;

    // A data folder stays the cell that it was.
    world.cells[1].take().unwrap().kill();
    let folder = world.folder.path();
    let wrong = cell(folder, 1, "127.0.0.1:0").env("ZEROONE_CELL__NUMBER", "2").output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && said.contains("cell.number is 2, but this data folder is that of cell 1"),
        "{said}"
    );
}

/// An installation as it was before there were cells becomes cell 0, with all its keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_without_cells_is_as_before_and_becomes_cell_0() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = data(folder.path(), 0);
    let _end = EndAgents(place.clone());
    let model = StandInModel::start().await;
    let before = Service::start(&place);
    assert!(before.key.len() == 3 + 64 && before.key.starts_with("zo_"), "no number where there are no cells");
    let (status, agent) = before.post("/api/agents", &new_agent("Ada", &model.url)).await;
    assert_eq!(status, 202, "{agent}");
    assert_eq!(agent["id"].as_str().unwrap().as_bytes()[14], b'7', "UUIDv7");
    let (key, id) = (before.key.clone(), agent["id"].as_str().unwrap().to_owned());
    assert!(before.end().await.success());

    fs::write(folder.path().join("operator.key"), format!("zo_all_{}", "5a".repeat(32))).unwrap();
    let zero = Service::spawn(cell(folder.path(), 0, "127.0.0.1:0"), &place);
    let mut route = Command::new(env!("CARGO_BIN_EXE_zeroone"));
    // Cell 1 is not there yet.
    let route = route.args(["route", "--bind", "127.0.0.1:0", "--cell", &zero.url, "--cell", "http://127.0.0.1:1"]);
    let mut router = route.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let url = Lines::of(router.stdout.take().unwrap())
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned))
        .expect("it listens");
    let get = async |path: &str| answer(zero.client.get(format!("{url}{path}")).bearer_auth(&key)).await.unwrap();
    let (status, agent) = get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=80")).await;
    assert_eq!(status, 200, "{agent}");
    assert_eq!(get("/api/admin/users").await.0, 200, "the key's own cell alone");
    let made = zero.client.post(format!("{url}/api/keys")).bearer_auth(&key).json(&json!({}));
    let (status, made) = answer(made).await.unwrap();
    assert_eq!((status, made["key"].as_str().map(|key| &key[..5])), (201, Some("zo_0_")), "{made}");
    router.kill().unwrap();
    router.wait().unwrap();
}
