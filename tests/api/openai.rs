//! Agents as OpenAI's clients see models.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::{Plan, Scope};
use zeroone::http::HttpOptions;

use crate::test_gateway::TestGateway;
use crate::world::{Answer, World, answer};

fn error(answer: &Answer, status: u16) -> &Value {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.body["error"];
    assert!(error["message"].is_string() && error["type"].is_string() && error["code"].is_string(), "{answer:?}");
    error
}

#[tokio::test]
async fn the_callers_agents_are_the_models() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("Ada").await;
    let list = world.get("/v1/models").await;
    assert_eq!((list.status, &list.body["object"]), (200, &json!("list")));
    let ids: Vec<&str> = list.body["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["ada"]);
    for name in ["ada", id.as_str()] {
        assert_eq!(world.get(&format!("/v1/models/{name}")).await.body["id"], "ada");
    }
    let stranger = world.stranger().await;
    let theirs = answer(world.raw(Method::GET, "/v1/models").bearer_auth(&stranger)).await;
    assert_eq!(theirs.body["data"], json!([]));
    let foreign = answer(world.raw(Method::GET, "/v1/models/ada").bearer_auth(&stranger)).await;
    assert_eq!(error(&foreign, 404)["code"], "model_not_found");
}

#[tokio::test]
async fn errors_have_openais_form() {
    let world = World::new(Plan::Pro).await;
    world.created("Ada").await;
    let nobody = answer(world.raw(Method::GET, "/v1/models")).await;
    assert_eq!(error(&nobody, 401)["code"], "invalid_api_key");
    let read = world.key_with(&[Scope::AgentsRead]).await;
    let body = json!({"model": "ada", "messages": [{"role": "user", "content": "hi"}]});
    let refused = answer(world.raw(Method::POST, "/v1/chat/completions").bearer_auth(&read).json(&body)).await;
    assert_eq!(error(&refused, 403)["type"], "permission_error");
    for (body, status, param) in [
        (json!({"messages": []}), 400, "model"),
        (json!({"model": null, "messages": []}), 400, "model"),
        (json!({"model": "nobody", "messages": []}), 404, "model"),
        (json!({"model": "ada", "messages": [{"role": "user", "content": "hi"}], "user": 5}), 400, "user"),
    ] {
        let refused = world.post("/v1/chat/completions", &body).await;
        assert_eq!(error(&refused, status)["param"], param, "{body}");
        error(&world.post("/v1/responses", &body).await, status);
    }
    let broken = world.request(Method::POST, "/v1/chat/completions").body("{").send().await.unwrap();
    assert_eq!(broken.status(), 400);
    error(&world.get("/v1/nothing").await, 404);
}

#[tokio::test]
async fn a_gateway_with_endpoints_of_its_own_gets_the_request_with_its_own_model() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("Ada").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let body =
        json!({"model": "ada", "messages": [{"role": "user", "content": "hi"}], "stop": null, "user": "session-1"});
    let told = world.post("/v1/chat/completions", &body).await;
    assert_eq!((told.status, &told.body["authorized"]), (200, &json!(true)), "{told:?}");
    let passed: Value = serde_json::from_str(told.body["text"].as_str().unwrap()).unwrap();
    assert_eq!(
        passed,
        json!({"model": "default", "messages": [{"role": "user", "content": "hi"}], "user": "session-1"})
    );
    assert_eq!(told.body["headers"]["x-session-id"], "session-1");
}
