//! `/api/cron` and jobs that run.

use serde_json::{Value, json};

use super::model::Reply;
use super::platform::Platform;
use super::world::{World, both, eventually};

async fn jobs(world: &World) -> Vec<Value> {
    both(world.get("/api/cron").send().await.unwrap()).await.1["jobs"].as_array().unwrap().clone()
}

async fn add(world: &World, job: Value) -> (u16, Value) {
    let (status, body) = both(world.post("/api/cron").json(&job).send().await.unwrap()).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn jobs_are_added_listed_kept_over_a_restart_and_removed() {
    let mut world = World::paired("").await;
    let (status, body) =
        add(&world, json!({ "name": "n", "schedule": "30 9 * * 1-5", "command": "greet", "tz": "Europe/Zurich" }))
            .await;
    assert_eq!((status, &body["status"], &body["job"]["enabled"]), (200, &json!("ok"), &json!(true)));
    for bad in [
        json!({ "schedule": "x", "command": "y" }),
        json!({ "schedule": "* * * * *", "command": "" }),
        json!({ "schedule": "* * * * *" }),
        json!({ "schedule": "0 0 1 1 *", "command": "y", "tz": "Mars" }),
    ] {
        assert_eq!(add(&world, bad.clone()).await.0, 400, "{bad}");
    }
    assert!(add(&world, json!({ "schedule": "* * * * * *", "command": "y" })).await.1["warning"].is_string());
    let first = jobs(&world).await.pop().unwrap();
    world.request("DELETE", &format!("/api/cron/{}", first["id"].as_str().unwrap())).send().await.unwrap();
    world.restart().await;
    let listed = jobs(&world).await;
    assert_eq!((listed.len(), &listed[0]["command"], &listed[0]["tz"]), (1, &json!("greet"), &json!("Europe/Zurich")));
    assert!(listed[0]["next_run"].is_string());
    let path = format!("/api/cron/{}", listed[0]["id"].as_str().unwrap());
    assert_eq!(world.request("DELETE", &path).send().await.unwrap().status(), 200);
    assert_eq!(world.request("DELETE", &path).send().await.unwrap().status(), 404);
    assert!(jobs(&world).await.is_empty());
}

#[tokio::test]
async fn a_job_runs_when_it_is_due_and_its_answer_is_delivered() {
    let slack = Platform::start().await;
    let world = World::paired(&format!(
        "[channels_config.slack]\nbot_token = \"xoxb-planted\"\nchannel_id = \"C1\"\napi_base = \"{}\"\n",
        slack.url()
    ))
    .await;
    // Every second: six fields.
    let job = json!({ "schedule": "* * * * * *", "command": "greet", "deliver": { "channel": "slack", "to": "C1" } });
    assert_eq!(add(&world, job).await.0, 200);
    let ran = eventually(async || jobs(&world).await.into_iter().find(|job| job["last_status"] == "ok")).await;
    assert_eq!(ran["last_output"], "echo: greet");
    let posted = eventually(async || slack.calls().into_iter().next()).await;
    assert_eq!((posted.path.as_str(), posted.header("authorization")), ("/chat.postMessage", "Bearer xoxb-planted"));
    assert_eq!(posted.json(), json!({ "channel": "C1", "text": "echo: greet" }));
}

#[tokio::test]
async fn a_run_that_was_due_while_the_gateway_was_down_is_made_up_for_once() {
    let mut world = World::paired("").await;
    add(&world, json!({ "schedule": "0 0 1 1 *", "command": "happy new year" })).await;
    world.stop().await;
    let path = world.workspace().join("state/cron.json");
    let mut saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    saved[0]["next_run"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(&path, saved.to_string()).unwrap();
    world.start().await;
    let ran = eventually(async || jobs(&world).await.into_iter().find(|job| job["last_status"] == "ok")).await;
    assert!(ran["next_run"].as_str().unwrap() > "2026-06");
    assert_eq!(world.model.calls().len(), 1);
}

#[tokio::test]
async fn a_job_without_a_zone_is_in_the_agents_own() {
    for (config, user, zone) in [
        ("timezone = \"Asia/Tokyo\"\n", "", "Asia/Tokyo"),
        ("", "# User\n\n- Name: Ada\n- Time zone: America/New_York\n", "America/New_York"),
        ("timezone = \"Asia/Tokyo\"\n", "- Time zone: America/New_York\n", "Asia/Tokyo"),
        ("", "", "UTC"),
    ] {
        let world = World::paired(config).await;
        std::fs::write(world.workspace().join("USER.md"), user).unwrap();
        let by_client = add(&world, json!({ "schedule": "0 9 * * *", "command": "greet" })).await.1;
        assert_eq!(by_client["job"]["tz"], zone);
        let tools = vec![("cron_add", json!({ "schedule": "0 9 * * *", "command": "greet" }))];
        world.model.script([Reply::Tools(tools), Reply::Text("done".into())]);
        world.post("/api/chat").json(&json!({ "message": "every day at nine" })).send().await.unwrap();
        assert_eq!(jobs(&world).await[1]["next_run"], by_client["job"]["next_run"]);
    }
}

#[tokio::test]
async fn a_reminder_comes_once() {
    let world = World::paired("").await;
    for (number, body) in [
        json!({ "in": "1 second" }),
        json!({ "at": (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string() }),
        json!({ "schedule": "* * * * * *", "once": true }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = body;
        body["command"] = format!("remind {number}").into();
        assert_eq!(add(&world, body).await.0, 200);
    }
    let done = async || jobs(&world).await.iter().all(|job| job["last_status"] == "ok").then_some(());
    eventually(done).await;
    assert!(jobs(&world).await.iter().all(|job| job["enabled"] == false && job["next_run"].is_null()));
    assert_eq!(world.model.calls().len(), 3);
    // The model is told how.
    let tools = both(world.get("/api/tools").send().await.unwrap()).await.1;
    let tool = tools["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "cron_add").unwrap();
    assert!(
        tool["description"].as_str().unwrap().contains("once") && tool["parameters"]["properties"]["in"].is_object()
    );
}

#[tokio::test]
async fn a_model_cannot_make_a_job_that_runs_all_the_time() {
    let world = World::paired("").await;
    for often in
        [json!({ "schedule": "* * * * * *" }), json!({ "every": "5s" }), json!({ "schedule": "*/10 * * * * *" })]
    {
        let mut often = often;
        often["command"] = "again".into();
        world.model.script([Reply::Tools(vec![("cron_add", often)]), Reply::Text("done".into())]);
        let answer = world.post("/api/chat").json(&json!({ "message": "go" })).send().await.unwrap();
        assert_eq!(both(answer).await.1["tool_calls"][0]["success"], false);
    }
    assert!(jobs(&world).await.is_empty());
}

#[tokio::test]
async fn scheduled_prompts_are_not_memories() {
    let world = World::paired("").await;
    add(&world, json!({ "in": "1 second", "command": "check the deploy window" })).await;
    eventually(async || jobs(&world).await.iter().find(|job| job["last_status"] == "ok").map(|_| ())).await;
    world.say("a message").await;
    let said = eventually(async || {
        let entries =
            both(world.get("/api/memory").send().await.unwrap()).await.1["entries"].as_array().unwrap().clone();
        (!entries.is_empty()).then_some(entries)
    })
    .await;
    assert!(said.iter().all(|entry| entry["content"] == "a message"), "{said:?}");
}
