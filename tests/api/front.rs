//! The short way to agents, beside the router's.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::Scope;
use zeroone::http::HttpOptions;

use crate::test_gateway::TestGateway;
use crate::world::{Answer, World, answer};

/// What of an answer is the same whenever it is given.
fn lasting(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let passing = ["x-request-id", "date", "ratelimit-remaining", "ratelimit-reset"];
    let headers = answer.headers.iter().filter(|(name, _)| !passing.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut body = answer.body.clone();
    for field in ["requestId", "headers"] {
        body.as_object_mut().map(|body| body.remove(field));
    }
    (answer.status, headers, body)
}

#[tokio::test]
async fn the_short_way_and_the_router_give_the_same_answers() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let routed = world.routed().await;
    let (stranger, reader) = (world.stranger().await, world.key_with(&[Scope::AgentsRead]).await);
    let keys = [("own", &world.key), ("admin", &world.admin), ("stranger", &stranger), ("reader", &reader)];
    let message = || Some(json!({ "message": "hello" }));
    let requests = [
        (Method::POST, "message".to_owned(), message()),
        (Method::POST, "message".to_owned(), Some(json!({ "message": 1 }))),
        (Method::POST, "message".to_owned(), None),
        (Method::GET, "message".to_owned(), None),
        (Method::POST, "gateway/webhook".to_owned(), message()),
        (Method::GET, "gateway/health?a=b".to_owned(), None),
        (Method::PUT, "gateway/api/config".to_owned(), message()),
        (Method::POST, "gateway/pair".to_owned(), None),
        (Method::GET, "gateway//health".to_owned(), None),
        (Method::TRACE, "gateway/health".to_owned(), None),
        (Method::GET, "gateway/".to_owned(), None),
    ];
    for (method, path, body) in &requests {
        for (whose, key) in keys.iter().copied().chain([("nobody", &String::new())]) {
            for agent in [&id, "01a00000-0000-7000-8000-000000000000"] {
                let mut answers = Vec::new();
                for at in [world.at, routed] {
                    let url = format!("http://{at}/api/agents/{agent}/{path}");
                    let mut request = world.http.request(method.clone(), url).bearer_auth(key);
                    if let Some(body) = body {
                        request = request.json(body);
                    }
                    answers.push(answer(request).await);
                }
                let what = format!("{method} {path} by {whose} to {agent}");
                assert_eq!(lasting(&answers[0]), lasting(&answers[1]), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn both_ways_are_counted_and_written_down_alike() {
    let world = World::with_free_ports(HttpOptions::default()).await;
    let id = world.running("a").await;
    let _gateway = TestGateway::of(&world, &id).await;
    let routed = world.routed().await;
    let records = async || {
        let audit = answer(world.raw(Method::GET, "/api/admin/audit?limit=200").bearer_auth(&world.admin)).await;
        let records = audit.body["data"].as_array().unwrap().clone();
        let refused = records.into_iter().filter(|record| record["outcome"] == "refused");
        refused
            .map(|record| (record["action"].clone(), record["target"].clone(), record["code"].clone()))
            .collect::<Vec<_>>()
    };
    let mut written = Vec::new();
    for at in [world.at, routed] {
        let before = records().await.len();
        let url = format!("http://{at}/api/agents/{id}/gateway/pair");
        assert_eq!(answer(world.http.post(url).bearer_auth(&world.key)).await.status, 403);
        let url = format!("http://{at}/api/agents/{id}/message");
        assert_eq!(answer(world.http.post(url).bearer_auth("zo_wrong")).await.status, 401);
        let all = records().await;
        written.push(all[..all.len() - before].to_vec());
        let metrics = world.http.get(format!("http://{at}/metrics")).bearer_auth(&world.admin);
        let metrics = answer(metrics).await.text;
        for (route, status) in [("/api/agents/{id}/gateway/{*path}", 403), ("/api/agents/{id}/message", 401)] {
            let sample = format!("{{method=\"POST\",route=\"{route}\",status=\"{status}\"}} 1");
            assert!(metrics.contains(&sample), "{at}: {sample} in {metrics}");
        }
    }
    assert_eq!(written[0].len(), 2, "{written:?}");
    assert_eq!(written[0], written[1]);
}
