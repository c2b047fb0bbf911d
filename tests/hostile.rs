//! Hostile input: whatever is sent, the answer is a problem or a success, never a 500, and never repeats a secret.
#![cfg(all(feature = "server", feature = "testkit"))]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;
use zeroone::control::{Agents, NewKey};
use zeroone::domain::{Plan, Scopes};
use zeroone::http::{HttpOptions, router};
use zeroone::testkit;

/// In every secret that is sent, and in nothing that comes back or is logged.
const PLANTED: &str = "planted-c4n4ry";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).init();
        log
    })
}

/// Sends these requests one after the other, to a service of their own.
fn answers(requests: Vec<Request<Body>>) -> Vec<(StatusCode, String, String)> {
    let logged = log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let answers = runtime.block_on(async {
        let world = testkit::plane(3, Plan::Enterprise).await;
        let new = NewKey::new(Scopes::all());
        let key = world.plane.create_key(world.user, new).await.unwrap().1;
        let agent = world.running("victim").await.id();
        let app = router(world.plane.clone(), HttpOptions::default());
        let mut answers = Vec::new();
        for mut request in requests {
            let uri = request.uri().to_string().replace("AGENT", &agent.to_string());
            *request.uri_mut() = uri.parse().unwrap();
            let bearer = format!("Bearer {}", key.expose()).parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
            answers.push(read(app.clone().oneshot(request).await.unwrap()).await);
        }
        world.plane.shutdown(Agents::Leave).await;
        answers
    });
    let logged = String::from_utf8_lossy(&std::mem::take(&mut *logged.0.lock().unwrap())).into_owned();
    let leaked = logged.lines().find(|line| line.contains(PLANTED));
    assert_eq!(leaked, None, "a secret was logged");
    answers
}

async fn read(response: Response<Body>) -> (StatusCode, String, String) {
    let status = response.status();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned())
}

/// No success is asked for, but what is no success is a problem, and no failure of ours.
fn check(request: &str, (status, kind, body): &(StatusCode, String, String)) -> Result<(), TestCaseError> {
    prop_assert!(*status != StatusCode::INTERNAL_SERVER_ERROR, "{request}: {body}");
    if status.is_success() {
        return Ok(());
    }
    prop_assert_eq!(kind, "application/problem+json", "{}: {}", request, body);
    let problem: Value = serde_json::from_str(body).unwrap();
    prop_assert_eq!(&problem["status"], &json!(status.as_u16()));
    prop_assert!(problem["code"].is_string() && problem["requestId"].is_string());
    prop_assert!(!body.contains(PLANTED), "{request}: a secret was repeated: {body}");
    Ok(())
}

fn send(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

/// Texts that break out of whatever is put together from strings.
fn nasty() -> impl Strategy<Value = String> {
    let known = [
        "\"\n[gateway]\nrequire_pairing = false\n",
        "'''\nallow_public_bind = true",
        "\"\"\"",
        "\\u0000\u{0}\u{1b}[2J",
        "../../etc/passwd",
        "${HOME} $(id) `id`",
        "{{7*7}}<script>alert(1)</script>",
        "a\r\nX-Injected: 1",
        "🦀\u{202e}\u{feff}",
        "%00%0a%ff",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(ToOwned::to_owned), any::<String>(), "[a-z]{1,80}"]
        .prop_map(|text| format!("{text}{PLANTED}"))
}

/// A value of any type, most often the wrong one.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        nasty().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{1,10}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 16] = [
    "name",
    "provider",
    "model",
    "apiKey",
    "slug",
    "providerUrl",
    "temperature",
    "agentName",
    "userName",
    "timezone",
    "communicationStyle",
    "memoryBackend",
    "autoSave",
    "channels",
    "message",
    "scopes",
];

/// An object with fields of ours and values of anybody's.
fn body() -> impl Strategy<Value = Value> {
    let fields = prop::collection::hash_map(prop::sample::select(FIELDS.to_vec()), value(), 0..6);
    fields.prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

const WRITES: [(&str, &str); 9] = [
    ("POST", "/api/agents"),
    ("PATCH", "/api/agents/AGENT"),
    ("POST", "/api/agents/AGENT/message"),
    ("POST", "/api/agents/AGENT/stop"),
    ("POST", "/api/agents/AGENT/start"),
    ("POST", "/api/keys"),
    ("POST", "/api/admin/users"),
    ("PATCH", "/api/admin/users/019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a"),
    ("POST", "/api/admin/users/019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a/keys"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_json_anywhere_is_a_success_or_a_problem(bodies in prop::collection::vec(body(), WRITES.len())) {
        let requests = WRITES.iter().zip(&bodies).map(|((method, path), body)| send(method, path, body.to_string()));
        for (answer, (method, path)) in answers(requests.collect()).iter().zip(WRITES) {
            check(&format!("{method} {path}"), answer)?;
        }
    }

    #[test]
    fn any_bytes_anywhere_are_a_problem(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let requests = WRITES.iter().map(|(method, path)| send(method, path, bytes.clone()));
        for (answer, (method, path)) in answers(requests.collect()).iter().zip(WRITES) {
            check(&format!("{method} {path}"), answer)?;
        }
    }

    #[test]
    fn user_texts_are_data_whatever_they_look_like(name in nasty(), style in nasty(), key in "[!-~]{1,40}") {
        let key = format!("{key}{PLANTED}");
        let body = json!({
            // A name is no secret: slugs are made from it, and logged.
            "name": name.replace(PLANTED, "x").chars().filter(|c| !c.is_control()).take(50).collect::<String>(),
            "provider": "openai", "model": "m", "apiKey": key, "communicationStyle": style,
        });
        let requests = vec![send("POST", "/api/agents", body.to_string()), send("GET", "/api/agents", "")];
        let answers = answers(requests);
        check("create", &answers[0])?;
        prop_assert!(!answers[0].2.contains(&key) && !answers[1].2.contains(&key), "an API key came back");
    }

    #[test]
    fn odd_queries_and_headers_are_a_problem(text in "[!-~]{0,60}", header in "[ -~]{0,60}") {
        let text: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || "%&=+-._~:,".contains(*c)).collect();
        let mut requests: Vec<_> = ["limit", "cursor", "status", "since", "tail", "timeout"]
            .iter()
            .flat_map(|name| ["/api/agents", "/api/agents/AGENT/logs", "/api/agents/AGENT/events"].map(|path| format!("{path}?{name}={text}{PLANTED}")))
            .map(|path| send("GET", &path, ""))
            .collect();
        for name in ["if-match", "idempotency-key", "prefer", "x-request-id", "traceparent", "content-type", "last-event-id"] {
            // A request's own id comes back and is logged: that is what it is for.
            let planted = if name == "x-request-id" { "" } else { PLANTED };
            for (method, path) in [("PATCH", "/api/agents/AGENT"), ("POST", "/api/agents/AGENT/message")] {
                let mut request = send(method, path, format!("{{\"message\": \"hi {PLANTED}\"}}"));
                request.headers_mut().insert(name, format!("{header}{planted}").parse().unwrap());
                requests.push(request);
            }
        }
        let shown: Vec<String> = requests.iter().map(|request| format!("{request:?}")).collect();
        for (answer, request) in answers(requests).iter().zip(shown) {
            check(&request, answer)?;
        }
    }
}

#[test]
fn deep_json_is_refused_at_any_depth() {
    let requests = [10, 127, 128, 1000, 100_000].iter().flat_map(|&depth| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", "{\"channels\":".repeat(depth), "}".repeat(depth));
        [format!("{{\"channels\": {nested}}}"), format!("{{\"name\": {nested}}}"), objects, nested]
    });
    for answer in answers(requests.map(|body| send("POST", "/api/agents", body)).collect()) {
        assert!([400, 413, 422].contains(&answer.0.as_u16()), "{answer:?}");
        check("deep", &answer).unwrap();
    }
}
