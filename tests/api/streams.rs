//! What goes on while one looks: logs, events, samples; and what the agent says of itself.

use reqwest::Method;
use serde_json::json;
use zeroone::domain::{AgentId, Plan};

use crate::world::{World, answer, next_event, until};

const SSE: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test]
async fn a_timeline_is_told_in_order_and_resumed() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/events");
    let page = world.get(&format!("{path}?limit=2")).await.body;
    assert_eq!(page["data"][0]["cause"], "created");
    for field in ["seq", "time", "from", "to", "cause", "attempt", "detail"] {
        assert!(page["data"][0].get(field).is_some(), "no {field}: {page}");
    }
    let next = page["nextCursor"].as_str().unwrap();
    let rest = world.get(&format!("{path}?cursor={next}")).await.body;
    assert!(rest["data"][0]["seq"].as_u64() > page["data"][1]["seq"].as_u64());
    let last = rest["data"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["to"], &rest["nextCursor"]), (&json!("RUNNING"), &json!(null)));

    let request = world.request(Method::GET, &path).header(SSE.0, SSE.1);
    let before_last = (last["seq"].as_u64().unwrap() - 1).to_string();
    let mut stream = request.header("last-event-id", before_last).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut buffer = String::new();
    let (kind, event_id, data) = next_event(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((&kind[..], event_id, &data), ("transition", Some(last["seq"].to_string()), &last));
    world.command(&id, "stop").await;
    let mut seen = Vec::new();
    while seen.last() != Some(&json!("STOPPED")) {
        seen.push(next_event(&mut stream, &mut buffer).await.unwrap().2["to"].clone());
    }
    assert!(seen.contains(&json!("STOPPING")), "{seen:?}");
    world.delete(&format!("/api/agents/{id}")).await;
    while next_event(&mut stream, &mut buffer).await.is_some() {}
}

#[tokio::test]
async fn a_timeline_that_was_put_back_says_so_and_goes_on() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/events");
    let page = world.get(&path).await.body;
    let newest = page["data"].as_array().unwrap().last().unwrap()["seq"].clone();
    // As of a client that was here before a backup was restored.
    let request = world.request(Method::GET, &path).header(SSE.0, SSE.1).header("last-event-id", "9999");
    let (mut stream, mut buffer) = (request.send().await.unwrap(), String::new());
    let (kind, _, data) = next_event(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((&kind[..], &data["resumedAfter"]), ("gap", &newest));
    world.command(&id, "stop").await;
    assert_eq!(next_event(&mut stream, &mut buffer).await.unwrap().2["to"], "STOPPING");
}

#[tokio::test]
async fn one_stream_tells_of_all_of_the_callers_agents_and_ends_with_the_service() {
    let world = World::new(Plan::Pro).await;
    let mut stream = world.request(Method::GET, "/api/events").send().await.unwrap();
    let theirs = world.as_admin(Method::POST, "/api/agents", Some(&crate::world::new_agent("theirs"))).await;
    let id = world.running("a").await;
    let mut buffer = String::new();
    loop {
        let (kind, _, data) = next_event(&mut stream, &mut buffer).await.unwrap();
        assert_eq!((&kind[..], &data["agentId"]), ("transition", &json!(id)));
        assert_ne!(data["agentId"], theirs.body["id"]);
        if data["to"] == "RUNNING" {
            break;
        }
    }
    world.shut();
    while next_event(&mut stream, &mut buffer).await.is_some() {}
}

#[tokio::test]
async fn all_events_resume_after_the_last_id_and_tell_of_a_removal() {
    let world = World::new(Plan::Pro).await;
    let mut stream = world.request(Method::GET, "/api/events").send().await.unwrap();
    let id = world.running("a").await;
    let mut buffer = String::new();
    let (kind, first, created) = next_event(&mut stream, &mut buffer).await.unwrap();
    assert_eq!((&kind[..], &created["cause"], &created["agentId"]), ("transition", &json!("created"), &json!(id)));
    drop(stream);
    world.delete(&format!("/api/agents/{id}")).await;

    let resume = |id: String| world.request(Method::GET, "/api/events").header("last-event-id", id).send();
    let mut stream = resume(first.clone().unwrap()).await.unwrap();
    let mut buffer = String::new();
    let (mut seen, mut last) = (Vec::new(), first.unwrap().parse::<u64>().unwrap());
    loop {
        let (kind, offset, data) = next_event(&mut stream, &mut buffer).await.unwrap();
        let offset = offset.unwrap().parse::<u64>().unwrap();
        assert!(offset > last, "{offset} after {last}");
        last = offset;
        assert_eq!(data["agentId"], json!(id));
        if kind == "removed" {
            break;
        }
        seen.push(data["to"].clone());
    }
    for status in ["STARTING", "RUNNING", "STOPPING"] {
        assert!(seen.contains(&json!(status)), "{status}: {seen:?}");
    }

    // An id of another store, such as before a backup was restored.
    let mut stream = resume((last + 1000).to_string()).await.unwrap();
    let (kind, offset, _) = next_event(&mut stream, &mut String::new()).await.unwrap();
    assert_eq!((&kind[..], offset), ("gap", Some(last.to_string())));
}

#[tokio::test]
async fn logs_come_as_json_as_text_and_by_the_line() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/logs");
    let lines = world.get(&path).await.body["lines"].clone();
    assert!(lines[0]["text"].as_str().unwrap().contains("listening"), "{lines}");
    assert_eq!(lines[0]["stream"], "stdout");
    assert!(lines[0]["time"].is_string());
    let last = world.get(&format!("{path}?tail=1")).await.body["lines"].clone();
    assert_eq!(last, json!([lines.as_array().unwrap().last().unwrap()]));
    assert_eq!(world.get(&format!("{path}?since=2999-01-01T00:00:00Z")).await.body["lines"], json!([]));
    let text = answer(world.request(Method::GET, &path).header("accept", "text/plain")).await;
    assert_eq!(text.text.lines().count(), lines.as_array().unwrap().len());
    for query in ["tail=0", "tail=5001", "since=yesterday"] {
        world.get(&format!("{path}?{query}")).await.problem(422, "invalid");
    }
}

#[tokio::test]
async fn a_followed_log_goes_on_over_restarts_each_line_once() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/logs");
    let before = world.get(&path).await.body["lines"].as_array().unwrap().clone();
    let mut stream = world.request(Method::GET, &format!("{path}?follow=true")).send().await.unwrap();
    let mut buffer = String::new();
    for line in &before {
        let (kind, _, data) = next_event(&mut stream, &mut buffer).await.unwrap();
        assert_eq!((&kind[..], &data), ("line", line));
    }
    assert!(world.fakes.engine().crash(id.parse::<AgentId>().unwrap()));
    let (kind, ..) = next_event(&mut stream, &mut buffer).await.unwrap();
    assert_eq!(kind, "restart");
    let (kind, _, data) = next_event(&mut stream, &mut buffer).await.unwrap();
    assert_eq!(kind, "line");
    assert!(data["text"].as_str().unwrap().contains("listening"), "{data}");
    assert!(!before.contains(&data));
}

#[tokio::test]
async fn samples_and_health_are_those_of_a_running_agent() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let agent = format!("/api/agents/{id}");
    let stats = world.get(&format!("{agent}/stats")).await;
    for field in ["cpuPercent", "memoryMb", "memoryLimitMb", "pids", "networkRxBytes", "networkTxBytes", "at"] {
        assert!(stats.body.get(field).is_some(), "no {field}: {stats:?}");
    }
    assert_eq!(world.get(&agent).await.body["memoryMb"], stats.body["memoryMb"]);
    let mut stream = world.request(Method::GET, &format!("{agent}/stats?stream=true")).send().await.unwrap();
    let (kind, _, data) = next_event(&mut stream, &mut String::new()).await.unwrap();
    assert_eq!((&kind[..], &data["pids"]), ("usage", &stats.body["pids"]));
    let health = world.get(&format!("{agent}/health")).await;
    assert_eq!((health.status, &health.body["status"]), (200, &json!("ok")), "{health:?}");
    world.command(&id, "stop").await;
    world.reach(&id, "STOPPED").await;
    for what in ["stats", "health"] {
        let refused = world.get(&format!("{agent}/{what}")).await;
        refused.problem(503, "agent-not-ready");
        assert!(refused.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn an_explanation_says_why_what_next_and_what_can_be_done() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/explain");
    let well = world.get(&path).await.body;
    assert_eq!((&well["status"], &well["lastError"]), (&json!("RUNNING"), &json!(null)), "{well}");
    assert!(well["because"].is_string() && well["next"].is_string());
    assert!(well["allowed"].as_array().unwrap().contains(&json!("stop")));
    assert!(!well["lastLogLines"].as_array().unwrap().is_empty());
    world.fakes.engine().crash(id.parse::<AgentId>().unwrap());
    until("its death is told", async || world.get(&path).await.body["lastError"]["cause"].is_string()).await;
    world.reach(&id, "RUNNING").await;
    assert_eq!(world.get(&path).await.body["restarts"], 1);
}

#[tokio::test]
async fn incidents_are_told_newest_first_page_by_page() {
    let world = World::new(Plan::Pro).await;
    let id = world.running("a").await;
    let path = format!("/api/agents/{id}/incidents");
    assert_eq!(world.get(&path).await.body, json!({"data": [], "nextCursor": null}));
    let agent = id.parse::<AgentId>().unwrap();
    for restarts in 1..=2 {
        let killed =
            if restarts == 1 { world.fakes.engine().crash(agent) } else { world.fakes.engine().out_of_memory(agent) };
        assert!(killed);
        until("it recovered", async || {
            let record = world.get(&format!("/api/agents/{id}")).await.body;
            record["restarts"] == restarts && record["status"] == "RUNNING"
        })
        .await;
    }
    let page = world.get(&format!("{path}?limit=1")).await.body;
    let newest = &page["data"][0];
    assert_eq!((&newest["cause"], &newest["code"]), (&json!("oom"), &json!("oom-killed")), "{page}");
    let older = world.get(&format!("{path}?limit=1&cursor={}", page["nextCursor"].as_str().unwrap())).await.body;
    let oldest = &older["data"][0];
    assert_eq!(
        (&oldest["cause"], &oldest["exitCode"], &older["nextCursor"]),
        (&json!("exit"), &json!(137), &json!(null))
    );
    for incident in [newest, oldest] {
        assert_eq!(incident["state"], "recovered", "{incident}");
        let times = ["detectedAt", "startedAt", "healthyAt", "pairedAt", "endedAt"].map(|at| {
            incident[at].as_str().unwrap_or_else(|| panic!("no {at}: {incident}")).parse::<jiff::Timestamp>().unwrap()
        });
        assert!(times.is_sorted(), "{incident}");
    }
    world.get(&format!("{path}?limit=0")).await.problem(422, "invalid");
}
