//! What machines ask.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::domain::Plan;

use crate::world::{World, answer, until};

#[tokio::test]
async fn it_says_that_it_lives_and_whether_it_is_ready() {
    let world = World::new(Plan::Pro).await;
    world.running("a").await;
    assert_eq!(answer(world.raw(Method::GET, "/livez")).await.body, json!({"status": "ok"}));
    assert_eq!(answer(world.raw(Method::GET, "/readyz")).await.body, json!({"status": "ready"}));
    let verbose = answer(world.raw(Method::GET, "/readyz?verbose")).await.body;
    assert_eq!(verbose["details"]["agents"]["RUNNING"], 1, "{verbose}");
    assert_eq!(verbose["details"]["runtime"]["reachable"], true);
    assert_eq!(verbose["details"]["store"]["writable"], true);
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_operators() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    assert!(world.fakes.engine().crash(id.parse().unwrap()));
    until("it recovered", async || world.get(&format!("/api/agents/{id}")).await.body["restarts"] == 1).await;
    world.reach(&id, "RUNNING").await;
    let metrics = answer(world.raw(Method::GET, "/metrics")).await;
    assert_eq!(metrics.status, 200, "{metrics:?}");
    for line in [
        r#"zeroone_agents{status="RUNNING"} 1"#,
        r#"zeroone_http_requests_total{method="POST",route="/api/agents",status="202"} 1"#,
        r#"zeroone_http_request_duration_seconds_count{method="POST",route="/api/agents",class="2xx"} 1"#,
        r#"zeroone_store_rows{table="agents"} 1"#,
        "zeroone_orphan_instances 0",
        concat!("zeroone_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        r#"zeroone_recovery_seconds_count{cause="exit"} 1"#,
        r#"zeroone_recovery_seconds_bucket{le="300.0",cause="exit"} 1"#,
        r#"zeroone_recovery_seconds_bucket{le="+Inf",cause="exit"} 1"#,
        r#"zeroone_recovery_seconds_count{cause="oom"} 0"#,
    ] {
        assert!(metrics.text.contains(line), "no {line} in\n{}", metrics.text);
    }
    assert!(!metrics.text.contains(&id), "ids make a time series each");
    // On behalf of somebody elsewhere.
    let passed_on = || world.raw(Method::GET, "/metrics").header("x-forwarded-for", "192.0.2.1");
    answer(passed_on()).await.problem(403, "forbidden");
    answer(passed_on().bearer_auth(&world.key)).await.problem(403, "forbidden");
    assert_eq!(answer(passed_on().bearer_auth(&world.admin)).await.status, 200);
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => drop(found.insert(target)),
                    member => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_document_describes_every_route_and_refers_to_nothing_that_is_not_there() {
    let world = World::new(Plan::Pro).await;
    let document = answer(world.raw(Method::GET, "/api/openapi.json")).await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document, zeroone::http::openapi());
    for (method, path) in [
        ("post", "/api/agents"),
        ("get", "/api/agents"),
        ("get", "/api/agents/{id}"),
        ("patch", "/api/agents/{id}"),
        ("delete", "/api/agents/{id}"),
        ("post", "/api/agents/{id}/start"),
        ("post", "/api/agents/{id}/stop"),
        ("post", "/api/agents/{id}/restart"),
        ("get", "/api/agents/{id}/wait"),
        ("get", "/api/agents/{id}/logs"),
        ("get", "/api/agents/{id}/stats"),
        ("get", "/api/agents/{id}/health"),
        ("post", "/api/agents/{id}/message"),
        ("get", "/api/agents/{id}/events"),
        ("get", "/api/agents/{id}/explain"),
        ("get", "/api/agents/{id}/incidents"),
        ("get", "/api/events"),
        ("get", "/api/me"),
        ("post", "/api/keys"),
        ("delete", "/api/keys/{id}"),
        ("post", "/api/admin/users/{id}/keys"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    ] {
        let operation = &document["paths"][path][method];
        let problem = &operation["responses"]["500"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{method} {path}: {operation}");
        assert_eq!(operation["security"].is_array(), path.starts_with("/api/"), "{method} {path}");
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} is not there");
    }
}
