//! `POST /api/chat`: the loop with tools.

use serde_json::{Value, json};

use super::model::{FakeModel, Reply};
use super::world::{World, both};

async fn chat(world: &World, message: &str) -> (u16, Value) {
    let (status, body) = both(world.post("/api/chat").json(&json!({ "message": message })).send().await.unwrap()).await;
    (status.as_u16(), body)
}

/// What the model was told by the tool that it called last.
fn last_result(world: &World) -> String {
    let calls = world.model.calls();
    let messages = calls.last().unwrap().body["messages"].as_array().unwrap().clone();
    let result = messages.last().unwrap();
    assert_eq!(result["role"], "tool");
    result["content"].as_str().unwrap().to_owned()
}

/// Lets the model call one tool and returns what it was told.
async fn call(world: &World, tool: &'static str, arguments: Value) -> String {
    world.model.script([Reply::Tools(vec![(tool, arguments)])]);
    assert_eq!(chat(world, "go").await.0, 200);
    last_result(world)
}

#[tokio::test]
async fn context_is_passed_on_and_tools_are_offered() {
    let world = World::paired("").await;
    let request = json!({
        "message": "and now?",
        "context": ["first", { "role": "assistant", "content": "second" }, { "role": "system", "content": "third" }],
    });
    let (status, body) = both(world.post("/api/chat").json(&request).send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!((&body["reply"], &body["response"]), (&json!("echo: and now?"), &json!("echo: and now?")));
    assert_eq!(body["usage"], json!({ "input_tokens": 11, "output_tokens": 7 }));
    let asked = &world.model.calls()[0].body;
    let roles: Vec<&str> = asked["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "system", "user"]);
    let tools: Vec<&str> =
        asked["tools"].as_array().unwrap().iter().map(|t| t["function"]["name"].as_str().unwrap()).collect();
    assert!(tools.contains(&"memory_store") && !tools.contains(&"http_fetch") && !tools.contains(&"send_message"));
}

#[tokio::test]
async fn a_tool_is_run_and_its_result_goes_back_to_the_model() {
    let world = World::paired("").await;
    world.model.script([
        Reply::Tools(vec![
            ("memory_store", json!({ "key": "tea", "content": "Ada likes green tea" })),
            ("time", json!({ "timezone": "Europe/Zurich" })),
        ]),
        Reply::Text("I will remember that.".into()),
    ]);
    let (status, body) = chat(&world, "I like green tea").await;
    assert_eq!((status, &body["reply"]), (200, &json!("I will remember that.")));
    assert_eq!(
        body["tool_calls"],
        json!([{ "name": "memory_store", "success": true }, { "name": "time", "success": true }])
    );
    assert_eq!(body["usage"]["input_tokens"], 22, "both calls are counted");
    let second = &world.model.calls()[1].body["messages"];
    let second = second.as_array().unwrap();
    assert_eq!(second[second.len() - 3]["tool_calls"][0]["function"]["name"], "memory_store");
    assert_eq!(
        (&second[second.len() - 2]["tool_call_id"], &second[second.len() - 2]["content"]),
        (&json!("call_0"), &json!("remembered"))
    );

    // What is remembered is put beside a message that has to do with it.
    chat(&world, "which tea?").await;
    let system = world.model.calls()[2].body["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system.contains("Ada likes green tea"), "{system}");
}

#[tokio::test]
async fn anthropic_calls_tools_too() {
    let model = FakeModel::start().await;
    let config = format!("default_provider = \"anthropic-custom:http://{}\"\n", model.address);
    let mut world = World::with_config(model, &config).await;
    world.pair().await;
    world.model.script([Reply::Tools(vec![("time", json!({}))]), Reply::Text("noon".into())]);
    assert_eq!(chat(&world, "time?").await.1["reply"], "noon");
    let second = &world.model.calls()[1].body;
    assert_eq!(second["messages"][2]["content"][0]["type"], "tool_result");
    assert!(second["tools"][0]["input_schema"].is_object());
}

#[tokio::test]
async fn a_model_that_never_stops_calling_tools_is_stopped() {
    let world = World::paired("[agent]\nmax_tool_iterations = 3\n").await;
    world.model.script((0..3).map(|_| Reply::Tools(vec![("time", json!({}))])));
    assert_eq!(chat(&world, "go").await.0, 200);
    let calls = world.model.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls[2].body["tools"].is_array() && calls[3].body["tools"].is_null(), "the last round offers none");
    // One that calls what it was not offered has no answer.
    world.model.script((0..9).map(|_| Reply::Tools(vec![("time", json!({}))])));
    let (status, body) = chat(&world, "go").await;
    assert_eq!((status, &body["model"]["code"]), (502, &json!("empty_answer")));
    assert_eq!(world.model.calls().len(), 8);
}

#[tokio::test]
async fn what_a_tool_cannot_do_is_told_to_the_model_and_ends_nothing() {
    let world = World::paired("").await;
    for (tool, arguments, expected) in [
        ("nope", json!({}), "no such tool"),
        ("memory_store", json!({ "key": "" }), "the arguments cannot be used"),
        ("memory_store", json!({ "key": " ", "content": "x" }), "the key must have"),
        ("memory_forget", json!({ "key": "missing" }), "no entry"),
        ("time", json!({ "timezone": "Mars" }), "no IANA time zone"),
        ("file_read", json!({ "path": "../config.toml" }), "within the workspace"),
        ("file_read", json!({ "path": "/etc/passwd" }), "within the workspace"),
        ("file_write", json!({ "path": "state/cron.json", "content": "[]" }), "gateway's own"),
        ("cron_add", json!({ "schedule": "x", "command": "y" }), "cron expression"),
        ("cron_remove", json!({ "id": "x" }), "no job"),
        ("http_fetch", json!({ "url": "http://example.org" }), "no such tool"),
        ("send_message", json!({ "channel": "slack", "to": "C", "text": "x" }), "not configured"),
    ] {
        let told = call(&world, tool, arguments).await;
        assert!(told.starts_with("Error: ") && told.contains(expected), "{tool}: {told}");
    }
}

#[tokio::test]
async fn files_and_jobs_are_kept() {
    let world = World::paired("").await;
    call(&world, "file_write", json!({ "path": "notes/a.md", "content": "hello" })).await;
    assert_eq!(std::fs::read_to_string(world.workspace().join("notes/a.md")).unwrap(), "hello");
    assert_eq!(call(&world, "file_read", json!({ "path": "notes/a.md" })).await, "hello");
    let added: Value = serde_json::from_str(
        &call(&world, "cron_add", json!({ "schedule": "0 9 * * *", "command": "greet", "tz": "Asia/Tokyo" })).await,
    )
    .unwrap();
    let listed = call(&world, "cron_list", json!({})).await;
    assert!(listed.contains("greet") && listed.contains("Asia/Tokyo"));
    assert_eq!(call(&world, "cron_remove", json!({ "id": added["id"] })).await, "removed");
    call(&world, "memory_store", json!({ "key": "tea", "content": "green" })).await;
    assert!(call(&world, "memory_recall", json!({ "query": "green" })).await.contains("\"tea\""));
}

#[tokio::test]
async fn pages_are_fetched_from_allowed_hosts_and_never_from_here_unless_said() {
    use axum::routing::get;
    let routes = axum::Router::new()
        .route("/page", get(|| async { "the page" }))
        .route("/loop", get(|| async { axum::response::Redirect::temporary("/loop") }))
        .route("/away", get(|| async { axum::response::Redirect::temporary("http://example.net/") }))
        .route("/hop", get(|| async { axum::response::Redirect::temporary("/page") }));
    let site = super::world::serve(routes).await;
    let rules = "[http_request]\nenabled = true\nallowed_domains = [\"127.0.0.1\", \"localhost\"]\n";
    let url = |path: &str| json!({ "url": format!("http://{site}{path}") });

    let strict = World::paired(rules).await;
    assert!(call(&strict, "http_fetch", url("/page")).await.contains("not a public one"));
    let by_name = json!({ "url": format!("http://localhost:{}/page", site.port()) });
    assert!(call(&strict, "http_fetch", by_name).await.contains("not a public one"));
    assert!(
        call(&strict, "http_fetch", json!({ "url": "http://example.net/" })).await.contains("not among the allowed")
    );

    let open = World::paired(&format!("{rules}allowed_private_hosts = [\"127.0.0.1\"]\n")).await;
    assert_eq!(call(&open, "http_fetch", url("/page")).await, "the page");
    assert_eq!(call(&open, "http_fetch", url("/hop")).await, "the page");
    assert!(call(&open, "http_fetch", url("/loop")).await.contains("redirects more than"));
    assert!(call(&open, "http_fetch", url("/away")).await.contains("not among the allowed"));
    assert!(call(&open, "http_fetch", url("/missing")).await.contains("404"));
}

#[tokio::test]
async fn the_whole_answer_has_a_limit_of_time() {
    let world = World::paired("[agent]\ntimeout_secs = 1\n").await;
    world.model.script([Reply::Hang]);
    assert_eq!(chat(&world, "hi").await.0, 408);
}
