//! Whatever is wrong with a request, a problem says so.

use reqwest::Method;
use serde_json::json;
use zeroone::domain::Plan;

use crate::world::{World, answer, new_agent};

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let world = World::new(Plan::Pro).await;
    answer(world.raw(Method::GET, "/nowhere")).await.problem(404, "not-found");
    world.get("/api/agents/not-an-id").await.problem(404, "not-found");
    world.get("/api/agents/%ff%fe").await.problem(404, "not-found");
    let wrong = answer(world.request(Method::PUT, "/api/agents")).await;
    wrong.problem(405, "method-not-allowed");
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    let post = |kind: Option<&'static str>, body: Vec<u8>| {
        let mut request = world.request(Method::POST, "/api/agents").body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        answer(request)
    };
    let json = Some("application/json");
    post(None, b"{}".into()).await.problem(415, "unsupported-media-type");
    post(Some("text/plain"), b"{}".into()).await.problem(415, "unsupported-media-type");
    post(json, b"".into()).await.problem(400, "malformed");
    post(json, b"{\"name\": }".into()).await.problem(400, "malformed");
    post(json, b"{\"name\": \"\xff\"}".into()).await.problem(400, "malformed");
    post(json, b"[]".into()).await.problem(422, "invalid");
    post(json, vec![b'['; 100_000]).await.problem(400, "malformed");
    post(json, vec![b' '; 10_000_000]).await.problem(413, "too-large");
    let packed = world.request(Method::POST, "/api/agents").header("content-type", "application/json");
    answer(packed.header("content-encoding", "gzip").body("{}")).await.problem(415, "unsupported-media-type");
    // Also where a body may be missing, and for clients of others.
    let id = world.running("a").await;
    for path in [format!("/api/agents/{id}/restart"), format!("/api/agents/{id}/clone"), "/v1/responses".to_owned()] {
        let typed = world.request(Method::POST, &path).header("content-type", "text/plain").body("{}");
        assert_eq!(answer(typed).await.status, 415, "{path}");
    }
    let check = world.request(Method::POST, "/api/agents/check").json(&json!({}));
    answer(check.header("idempotency-key", "x".repeat(256))).await.problem(400, "malformed");
    let huge = world.request(Method::GET, "/api/agents").header("x-large", "x".repeat(40_000));
    answer(huge).await.problem(431, "headers-too-large");
}

#[tokio::test]
async fn requests_keep_a_sane_id_and_get_one_else() {
    let world = World::new(Plan::Pro).await;
    let kept = answer(world.request(Method::GET, "/nowhere").header("x-request-id", "trace-7")).await;
    assert_eq!((kept.header("x-request-id"), &kept.body["requestId"]), ("trace-7", &json!("trace-7")));
    assert_eq!(kept.body["instance"], "/nowhere");
    for odd in ["a b".to_owned(), "x".repeat(200)] {
        let made = answer(world.request(Method::GET, "/livez").header("x-request-id", odd.clone())).await;
        assert_ne!(made.header("x-request-id"), odd);
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_no_success() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    world.plane.store().close().await;
    let refused = world.post("/api/agents", &new_agent("b")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(answer(world.raw(Method::GET, "/readyz")).await.status, 503);
    assert_eq!(answer(world.raw(Method::GET, "/livez")).await.status, 200);
    assert_eq!(world.get(&format!("/api/agents/{id}")).await.status, 200);
}
