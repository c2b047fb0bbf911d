//! `/api/cron` and jobs that run.

use serde_json::{Value, json};

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
