//! The same requests to a real ZeroClaw 0.1.7 and to ours: the same status, and no field of its bodies missing from ours.
//!
//! `ZEROONE_TEST_ZEROCLAW=/path/to/zeroclaw cargo test --all-features --test gateway -- --ignored`

use std::process::{Child, Command, Stdio};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::model::{FakeModel, Reply};
use super::world::{PATIENCE, World, both, eventually};
use crate::http_client::http_client;
use crate::lines::Lines;

/// A real ZeroClaw that does not outlive its test.
struct ZeroClaw {
    child: Child,
    url: String,
    code: String,
    _home: TempDir,
}

impl Drop for ZeroClaw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ZeroClaw {
    async fn start(model: &FakeModel) -> Self {
        let program =
            std::env::var("ZEROONE_TEST_ZEROCLAW").expect("ZEROONE_TEST_ZEROCLAW must name a zeroclaw binary");
        let home = TempDir::new().unwrap();
        // It cannot be asked to choose a port by itself and to say which.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(program)
            .arg("gateway")
            .env_clear()
            .env("HOME", home.path())
            .env("ZEROCLAW_WORKSPACE", home.path().join("workspace"))
            .env("ZEROCLAW_GATEWAY_PORT", port.to_string())
            .env("PROVIDER", format!("custom:{}", model.url()))
            .env("ZEROCLAW_MODEL", "m")
            .env("API_KEY", "k")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = Lines::of(child.stdout.take().unwrap());
        let code = lines
            .find_map(|line| {
                line.trim().strip_prefix("Send: POST /pair with header X-Pairing-Code: ").map(str::to_owned)
            })
            .expect("it printed no code");
        let url = format!("http://127.0.0.1:{port}");
        let http = http_client(PATIENCE);
        eventually(async || http.get(format!("{url}/health")).send().await.ok()).await;
        Self { child, url, code, _home: home }
    }
}

/// One of the two, as a client sees it.
struct Side<'a> {
    http: Client,
    url: String,
    token: String,
    model: &'a FakeModel,
    /// How often a request that got no answer is sent. ZeroClaw closes the connection of a body that is too long without
    /// reading it, and the system's reset can overtake its 413. Ours reads on, and has to answer at once.
    attempts: usize,
}

impl Side<'_> {
    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        request.header("Authorization", format!("Bearer {}", self.token))
    }

    async fn send(&self, case: &Case) -> (u16, Value) {
        let mut request = self.request(case.method, case.path);
        for (name, value) in &case.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &case.body {
            request = request.body(body.clone());
        }
        let mut left = self.attempts;
        let response = loop {
            left -= 1;
            match request.try_clone().expect("no body is a stream").send().await {
                Ok(response) => break response,
                Err(error) if left > 0 && !error.is_timeout() => {}
                Err(error) => panic!("{} {}: {error:?}", case.method, case.path),
            }
        };
        let (status, body) = both(response).await;
        (status.as_u16(), body)
    }
}

struct Case {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<String>,
}

fn get(path: &'static str) -> Case {
    Case { method: "GET", path, headers: vec![], body: None }
}

fn send(method: &'static str, path: &'static str, body: Value) -> Case {
    Case { method, path, headers: vec![("content-type", "application/json")], body: Some(body.to_string()) }
}

fn cases() -> Vec<Case> {
    vec![
        get("/health"),
        get("/api/status"),
        get("/api/config"),
        get("/api/tools"),
        get("/api/cost"),
        get("/api/integrations"),
        get("/api/cli-tools"),
        get("/api/health"),
        get("/api/doctor"),
        send("POST", "/api/memory", json!({ "key": "k", "content": "green tea" })),
        get("/api/memory"),
        get("/api/memory?query=tea"),
        get("/api/memory?category=core"),
        Case { method: "DELETE", path: "/api/memory/k", headers: vec![], body: None },
        Case { method: "DELETE", path: "/api/memory/k", headers: vec![], body: None },
        send("POST", "/api/memory", json!("not an object")),
        send("POST", "/api/cron", json!({ "schedule": "0 9 * * *", "command": "echo hi" })),
        get("/api/cron"),
        send("POST", "/webhook", json!({ "message": "hi there" })),
        send("POST", "/webhook", json!({ "text": "hi" })),
        send("POST", "/webhook", json!({ "message": "x".repeat(70_000) })),
        Case { method: "POST", path: "/webhook", headers: vec![], body: Some("{\"message\":\"hi\"}".into()) },
        Case {
            method: "POST",
            path: "/webhook",
            headers: vec![("content-type", "application/json")],
            body: Some("{".into()),
        },
        Case { method: "PUT", path: "/api/config", headers: vec![], body: Some("not toml".into()) },
        Case { method: "POST", path: "/whatsapp", headers: vec![], body: Some("{}".into()) },
        get("/whatsapp?hub.mode=subscribe&hub.verify_token=x&hub.challenge=y"),
        Case { method: "POST", path: "/nextcloud-talk", headers: vec![], body: Some("{}".into()) },
        get("/no/such/page"),
        Case { method: "POST", path: "/no/such/page", headers: vec![], body: None },
    ]
}

/// Fields whose keys are names of things, and differ by nature.
const NAMED: [&str; 4] = ["channels", "components", "by_model", "properties"];

/// What of `theirs` is missing from `ours` or of another kind.
fn missing(theirs: &Value, ours: &Value, at: &str, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    Some(_) if NAMED.contains(&key.as_str()) => {}
                    Some(other) => missing(value, other, &format!("{at}/{key}"), found),
                    None => found.push(format!("{at}/{key}")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(first), Some(other)) = (theirs.first(), ours.first()) {
                missing(first, other, &format!("{at}[]"), found);
            }
        }
        (theirs, ours) if std::mem::discriminant(theirs) == std::mem::discriminant(ours) => {}
        _ => found.push(format!("{at} is of another kind")),
    }
}

/// Where ours answers differently on purpose: docs/gateway.md says why.
fn differs_on_purpose(case: &Case) -> bool {
    // A body that is JSON but not what is wanted is 400 in ours everywhere, with words; 422 in ZeroClaw outside /webhook.
    case.path == "/api/memory" && case.body.as_deref() == Some("\"not an object\"")
}

#[tokio::test]
#[ignore = "needs a real ZeroClaw: ZEROONE_TEST_ZEROCLAW=/path/to/zeroclaw"]
async fn the_same_request_has_the_same_status_and_shape() {
    let model = FakeModel::start().await;
    let zeroclaw = ZeroClaw::start(&model).await;
    let mut world = World::new("").await;
    let http = http_client(PATIENCE);

    for code in ["nope", zeroclaw.code.as_str(), zeroclaw.code.as_str()] {
        let ours_code = if code == "nope" { "nope".to_owned() } else { world.code().unwrap() };
        let theirs =
            both(http.post(format!("{}/pair", zeroclaw.url)).header("X-Pairing-Code", code).send().await.unwrap())
                .await;
        let ours = both(http.post(world.url("/pair")).header("X-Pairing-Code", ours_code).send().await.unwrap()).await;
        assert_eq!(theirs.0, ours.0, "/pair");
        let mut found = vec![];
        missing(&theirs.1, &ours.1, "/pair", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
    // The codes are used; two worlds of our own give tokens to go on with.
    drop(zeroclaw);
    let zeroclaw = ZeroClaw::start(&model).await;
    world = World::paired("").await;
    let paired = both(
        http.post(format!("{}/pair", zeroclaw.url)).header("X-Pairing-Code", &zeroclaw.code).send().await.unwrap(),
    )
    .await
    .1;
    let theirs = Side {
        http: http.clone(),
        url: zeroclaw.url.clone(),
        token: paired["token"].as_str().unwrap().into(),
        model: &model,
        attempts: 20,
    };
    let ours = Side { http, url: world.url(""), token: world.token().into(), model: &world.model, attempts: 1 };

    let mut found = vec![];
    for case in cases() {
        let (their_status, their_body) = theirs.send(&case).await;
        let (our_status, our_body) = ours.send(&case).await;
        if differs_on_purpose(&case) {
            continue;
        }
        let name = format!("{} {} {:.40}", case.method, case.path, case.body.as_deref().unwrap_or_default());
        if their_status != our_status {
            found.push(format!("{name}: {their_status} there, {our_status} here"));
        } else if their_status < 400 {
            missing(&their_body, &our_body, &name, &mut found);
        } else if their_body["error"].is_string() != our_body["error"].is_string() && !their_body.is_null() {
            found.push(format!("{name}: errors look different"));
        }
    }
    for side in [&theirs, &ours] {
        side.model.script((0..9).map(|_| Reply::Status(400, vec![], "{}")));
    }
    let failing = send("POST", "/webhook", json!({ "message": "fail" }));
    // On purpose: ZeroClaw hides why its model failed behind a 500, ours tells it.
    let (their_answer, our_answer) = (theirs.send(&failing).await, ours.send(&failing).await);
    assert_eq!(their_answer, (500, json!({ "error": "LLM request failed" })));
    assert_eq!((our_answer.0, &our_answer.1["model"]["status"]), (502, &json!(400)));
    for authorization in ["", "bearer x", "Bearer zc_wrong"] {
        let ask = |side: &Side<'_>| {
            side.http.get(format!("{}/api/status", side.url)).header("Authorization", authorization).send()
        };
        let (their_answer, our_answer) = (ask(&theirs).await.unwrap(), ask(&ours).await.unwrap());
        assert_eq!(both(their_answer).await, both(our_answer).await);
    }
    assert!(found.is_empty(), "{found:#?}");
}
