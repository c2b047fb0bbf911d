//! `POST /api/agents/check`: whether a new agent would do, before it is made.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use zeroone::domain::{Plan, Scope};
use zeroone::http::{HttpOptions, ProviderUrls};

use crate::world::{World, answer, new_agent};

const PATH: &str = "/api/agents/check";

/// What the service itself uses.
fn options(provider_urls: ProviderUrls) -> HttpOptions {
    HttpOptions::default()
        .with_list_models(|question| Box::pin(zeroone::gateway::list_models(question)))
        .with_provider_urls(provider_urls)
}

fn at(url: &str, key: &str) -> Value {
    json!({"name": "a", "provider": "openai", "model": "gpt-5", "apiKey": key, "providerUrl": url})
}

/// A provider that takes one key and names two models; gives its address.
async fn provider() -> String {
    use axum::http::{HeaderMap, StatusCode};
    let models = async |headers: HeaderMap| {
        if headers["authorization"] == "Bearer sk-good" {
            Ok(axum::Json(json!({"data": [{"id": "gpt-5"}, {"id": "gpt-5-mini"}]})))
        } else {
            Err((StatusCode::UNAUTHORIZED, "who are you? root:x:0:0"))
        }
    };
    let app = axum::Router::new().route("/v1/models", axum::routing::get(models));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::test]
async fn a_check_says_whether_the_provider_takes_the_key_and_has_the_model() {
    let world = World::with(Plan::Pro, options(ProviderUrls::Any)).await;
    let url = provider().await;
    let good = world.post(PATH, &at(&url, "sk-good")).await;
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!((&good.body["ok"], &good.body["modelKnown"]), (&json!(true), &json!(true)));
    assert_eq!(good.body["models"], json!(["gpt-5", "gpt-5-mini"]));
    let mut other = at(&url, "sk-good");
    other["model"] = json!("gpt-9");
    assert_eq!(world.post(PATH, &other).await.body["modelKnown"], json!(false));
    let refused = world.post(PATH, &at(&url, "sk-planted-wrong")).await;
    assert_eq!((&refused.body["ok"], &refused.body["status"]), (&json!(false), &json!(401)), "{refused:?}");
    // Neither the key nor what a server of the user's choice writes.
    assert!(!refused.text.contains("sk-planted") && !refused.text.contains("root:x"), "{refused:?}");
    let nobody = world.post(PATH, &at("http://127.0.0.1:9/v1", "sk-good")).await;
    assert_eq!((&nobody.body["ok"], &nobody.body["status"]), (&json!(false), &Value::Null), "{nobody:?}");
    assert!(nobody.body["reason"].as_str().unwrap().contains("cannot be reached"), "{nobody:?}");
    assert_eq!(world.get("/api/agents").await.body["data"], json!([]), "nothing was made");
}

#[tokio::test]
async fn a_check_asks_only_where_an_agent_may_be_sent() {
    let url = provider().await;
    let port = url.split(':').nth(2).unwrap();
    let world = World::with(Plan::Pro, options(ProviderUrls::Public)).await;
    let mut ollama = new_agent("a");
    ollama["provider"] = json!("ollama");
    for body in [at(&url, "sk-good"), at(&format!("http://localhost:{port}"), "sk-good"), ollama] {
        let refused = world.post(PATH, &body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/providerUrl"], "{body}");
    }
    let world = World::with(Plan::Pro, options(ProviderUrls::List(vec!["https://models.example".into()]))).await;
    world.post(PATH, &at(&url, "sk-good")).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_check_is_for_those_who_may_make_agents_and_not_too_often() {
    let world = World::with(Plan::Pro, options(ProviderUrls::Any)).await;
    let wrong = world.post(PATH, &json!({"name": "", "provider": "openai", "model": "m"})).await;
    wrong.problem(422, "invalid");
    let reader = world.key_with(&[Scope::AgentsRead]).await;
    answer(world.raw(Method::POST, PATH).bearer_auth(&reader).json(&new_agent("a"))).await.problem(403, "forbidden");
    let url = provider().await;
    let mut refused = false;
    // More than the allowance, since some of it comes back while a busy machine answers.
    for _ in 0..100 {
        refused = refused || world.post(PATH, &at(&url, "sk-good")).await.status == 429;
    }
    assert!(refused);
    let none = World::new(Plan::Pro).await;
    none.post(PATH, &new_agent("a")).await.problem(404, "not-found");
}
