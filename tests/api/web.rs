//! What browsers, proxies and embedders see: host names, origins, prefixes, callers of an embedder.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http_body_util::BodyExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;
use zeroone::accounts::Caller;
use zeroone::domain::{Plan, Scopes};
use zeroone::http::{HttpOptions, ProviderUrls, router};
use zeroone::testkit;

use crate::world::{World, answer, new_agent};

async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn a_page_with_a_name_of_its_own_reads_nothing() {
    let hosts = vec!["zeroone.example".to_owned()];
    let world = World::with(Plan::Pro, HttpOptions::default().with_hosts(hosts)).await;
    for path in ["/metrics", "/readyz?verbose"] {
        let with_host = async |host: &str| answer(world.raw(Method::GET, path).header("host", host)).await;
        for host in ["localhost:3001", "127.0.0.1", "[::1]:3001", "zeroone.example", "agents.example.org"] {
            assert_eq!(with_host(host).await.status, 200, "{path} {host}");
        }
        for host in ["attacker.example", "localhost.attacker.example:3001"] {
            with_host(host).await.problem(403, "forbidden");
        }
    }
    for name in ["x-real-ip", "via", "cf-connecting-ip", "x-forwarded-for", "forwarded"] {
        answer(world.raw(Method::GET, "/metrics").header(name, "1")).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let world = World::new(Plan::Pro).await;
    for (hosts, status) in [("", "400"), ("Host: a\r\nHost: b\r\n", "400"), ("Host: localhost\r\n", "200")] {
        let answer = raw(&world, &format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{hosts:?}: {answer}");
    }
    let old = raw(&world, "GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_no_others() {
    let cors_origins = vec!["https://chat.example".to_owned()];
    let world = World::with(Plan::Pro, HttpOptions::default().with_cors_origins(cors_origins)).await;
    let preflight = async |world: &World, origin: &str| {
        let request = world.raw(Method::OPTIONS, "/api/agents").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        answer(request.header("access-control-request-headers", "authorization,content-type")).await
    };
    let allowed = preflight(&world, "https://chat.example").await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "https://chat.example"));
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization,content-type");
    assert!(!preflight(&world, "https://attacker.example").await.headers.contains_key("access-control-allow-origin"));
    let called = answer(world.request(Method::GET, "/api/agents").header("origin", "https://chat.example")).await;
    assert_eq!((called.status, called.header("access-control-allow-origin")), (200, "https://chat.example"));
    assert!(!called.headers.contains_key("access-control-allow-credentials"));
    let none = World::new(Plan::Pro).await;
    let refused = preflight(&none, "https://chat.example").await;
    assert!(refused.problem(405, "method-not-allowed")["detail"].as_str().unwrap().contains("cors_origins"));
}

#[tokio::test]
async fn every_problem_has_a_page() {
    let world = World::new(Plan::Pro).await;
    let document = zeroone::http::openapi();
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap().clone();
    assert!(codes.len() > 25);
    for code in codes {
        let path = format!("/problems/{}", code.as_str().unwrap());
        let page = answer(world.raw(Method::GET, &path)).await;
        assert_eq!((page.status, &page.body["code"]), (200, &code));
        let html = answer(world.raw(Method::GET, &path).header("accept", "text/html,*/*")).await;
        assert!(html.header("content-type").starts_with("text/html") && html.text.contains(code.as_str().unwrap()));
    }
    answer(world.raw(Method::GET, "/problems/no-such-code")).await.problem(404, "not-found");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let world = World::new(Plan::Pro).await;
    let get = async |accept: &str| answer(world.raw(Method::GET, "/metrics").header("accept", accept)).await;
    // Something to count.
    assert_eq!(get("*/*").await.status, 200);
    let old = get("text/plain; version=0.0.4").await;
    assert!(old.header("content-type").starts_with("text/plain; version=0.0.4"), "{old:?}");
    assert!(
        !old.text.contains("# EOF") && old.text.contains("# TYPE zeroone_http_requests_total counter"),
        "{}",
        old.text
    );
    assert!(old.text.contains("\nzeroone_agents_cpu_percent 0.0\n"), "nothing is 0, not -0: {}", old.text);
    for accept in ["*/*", "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"] {
        let new = get(accept).await;
        assert!(new.header("content-type").starts_with("application/openmetrics-text"), "{new:?}");
        assert!(new.text.ends_with("# EOF\n"));
    }
}

#[tokio::test]
async fn agents_are_sent_only_where_the_operator_allows() {
    let options = HttpOptions::default().with_provider_urls(ProviderUrls::Public);
    let world = World::with(Plan::Pro, options).await;
    let with_url = |url: &str| {
        let mut body = new_agent("a");
        body["providerUrl"] = json!(url);
        body
    };
    for url in ["http://127.0.0.1:8080/v1", "http://localhost/v1", "http://169.254.169.254/latest", "http://[::1]/v1"] {
        let refused = world.post("/api/agents", &with_url(url)).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/providerUrl"], "{url}");
    }
    let id = world.created("a").await;
    let moved = json!({"providerUrl": "http://10.0.0.1/v1", "apiKey": "sk-1"});
    let refused = world.patch(&format!("/api/agents/{id}"), &moved).await;
    assert_eq!(refused.pointers(), ["/providerUrl"]);
}

/// An embedder that nests the router below `/zo` and lets this user in.
async fn nested() -> (Router<&'static str>, zeroone::control::ControlPlane) {
    let test = testkit::plane(9, Plan::Pro).await;
    let caller = Caller::new(test.user, Scopes::user());
    let options = HttpOptions::default().with_trust_callers(true);
    let api = router(test.plane.clone(), options).layer(axum::Extension(caller));
    (Router::<&'static str>::new().nest("/zo", api), test.plane)
}

async fn call(app: &Router, method: &str, path: &str, body: &Value) -> (u16, Option<String>, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, location, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_nested_router_keeps_its_prefix_and_takes_the_embedders_caller() {
    let (app, plane) = nested().await;
    let app: Router = app.with_state("the embedder's own state");
    let (status, location, agent) = call(&app, "POST", "/zo/api/agents", &new_agent("a")).await;
    assert_eq!(status, 202, "{agent}");
    let location = location.unwrap();
    assert!(location.starts_with("/zo/api/agents/"), "{location}");
    assert_eq!(call(&app, "GET", &location, &json!({})).await.0, 200);
    let (status, _, problem) = call(&app, "GET", "/zo/api/nothing", &json!({})).await;
    assert_eq!((status, &problem["instance"]), (404, &json!("/zo/api/nothing")));
    let (_, _, document) = call(&app, "GET", "/zo/api/openapi.json", &json!({})).await;
    assert_eq!(document["servers"], json!([{"url": "/zo"}]));
    plane.shutdown(zeroone::control::Agents::Leave).await;
}

#[tokio::test]
async fn a_caller_among_the_extensions_is_ignored_unless_trusted() {
    let test = testkit::plane(10, Plan::Pro).await;
    let caller = Caller::new(test.user, Scopes::all());
    let app: Router = router(test.plane.clone(), HttpOptions::default()).layer(axum::Extension(caller));
    assert_eq!(call(&app, "GET", "/api/agents", &json!({})).await.0, 401);
    test.plane.shutdown(zeroone::control::Agents::Leave).await;
}
