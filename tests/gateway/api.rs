//! The dashboard's API, the page, metrics, and idempotency.

use serde_json::{Value, json};

use super::model::Reply;
use super::platform::Platform;
use super::world::{World, both, eventually};

async fn get(world: &World, path: &str) -> Value {
    let (status, body) = both(world.get(path).send().await.unwrap()).await;
    assert_eq!(status, 200, "{path}");
    body
}

#[tokio::test]
async fn every_api_route_wants_a_token() {
    let world = World::paired("").await;
    let routes = [
        ("GET", "/api/status"),
        ("GET", "/api/health"),
        ("GET", "/api/config"),
        ("PUT", "/api/config"),
        ("GET", "/api/tools"),
        ("GET", "/api/cli-tools"),
        ("GET", "/api/memory"),
        ("POST", "/api/memory"),
        ("DELETE", "/api/memory/k"),
        ("GET", "/api/cron"),
        ("POST", "/api/cron"),
        ("DELETE", "/api/cron/i"),
        ("GET", "/api/cost"),
        ("GET", "/api/integrations"),
        ("GET", "/api/doctor"),
        ("POST", "/api/doctor"),
        ("GET", "/api/events"),
        ("POST", "/api/chat"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/ws/chat"),
    ];
    for (method, path) in routes {
        let answer = world.http.request(method.parse().unwrap(), world.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{method} {path}");
    }
}

#[tokio::test]
async fn the_status_tells_what_runs() {
    let world = World::paired("[channels_config]\ncli = true\n[channels_config.slack]\nbot_token = \"t\"\n").await;
    let status = get(&world, "/api/status").await;
    assert_eq!(
        (&status["model"], &status["memory_backend"], &status["paired"]),
        (&json!("m"), &json!("sqlite"), &json!(true))
    );
    assert_eq!((&status["channels"]["slack"], &status["channels"]["telegram"]), (&json!(true), &json!(false)));
    assert_eq!(get(&world, "/api/health").await["health"]["components"]["gateway"]["status"], "ok");
    assert!(
        get(&world, "/api/tools").await["tools"].as_array().unwrap().iter().all(|tool| tool["parameters"].is_object())
    );
    assert_eq!(get(&world, "/api/cli-tools").await, json!({ "cli_tools": [] }));
    let integrations = get(&world, "/api/integrations").await;
    let slack = integrations["integrations"].as_array().unwrap().iter().find(|entry| entry["name"] == "slack").unwrap();
    assert_eq!(slack["status"], "Active");
}

#[tokio::test]
async fn settings_are_shown_without_secrets_and_changed_without_losing_them() {
    let mut world = World::paired("# mine\n[channels_config.slack]\nbot_token = \"xoxb-planted\"\n").await;
    let shown = get(&world, "/api/config").await;
    assert_eq!(shown["format"], "toml");
    let content = shown["content"].as_str().unwrap();
    assert!(
        content.contains("# mine") && content.contains("***MASKED***") && !content.contains("planted"),
        "{content}"
    );
    assert!(!content.contains(&world.config_text().split("paired_tokens = [\"").nth(1).unwrap()[..64]));

    let changed = content.replace("default_model = \"m\"", "default_model = \"other\"\ndefault_temperature = 0.1");
    let answer = world.request("PUT", "/api/config").body(changed.clone()).send().await.unwrap();
    assert_eq!(both(answer).await.1, json!({ "status": "ok", "restart_required": [] }));
    assert_eq!(world.say("hi").await.1["model"], "other", "at once");
    assert_eq!(world.model.calls()[0].header("authorization"), "Bearer sk-planted-key");
    let text = world.config_text();
    assert!(text.contains("xoxb-planted") && text.contains("# mine") && !text.contains("MASKED"));
    world.restart().await;
    assert_eq!(world.say("hi").await.1["model"], "other", "and after a restart, with the same token");

    let more = format!("{changed}\n[pairing]\nmax_failures = 9\n");
    let answer = world.request("PUT", "/api/config").body(more).send().await.unwrap();
    assert_eq!(both(answer).await.1["restart_required"], json!(["pairing"]));
    let wiped =
        world.request("PUT", "/api/config").body(format!("default_provider = \"custom:{}\"\n", world.model.url()));
    assert_eq!(wiped.send().await.unwrap().status(), 200);
    world.restart().await;
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 200, "nobody locks themselves out");
}

#[tokio::test]
async fn a_secret_that_is_not_written_again_is_not_sent_to_another_server() {
    let world = World::paired("[channels_config.slack]\nbot_token = \"xoxb-planted\"\n").await;
    let content = get(&world, "/api/config").await["content"].as_str().unwrap().to_owned();
    let elsewhere = super::model::FakeModel::start().await;
    let put = async |text: String| {
        let (status, body) = both(world.request("PUT", "/api/config").body(text).send().await.unwrap()).await;
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    };
    let moved = content.replace(&world.model.url(), &elsewhere.url());
    let (status, error) = put(moved.clone()).await;
    assert!(status == 400 && error.contains("api_key must be written again"), "{error}");
    let (status, error) =
        put(content.replace("bot_token", &format!("api_base = \"{}\"\nbot_token", elsewhere.url()))).await;
    assert!(status == 400 && error.contains("channels_config.slack must be written again"), "{error}");
    world.say("hi").await;
    assert!(elsewhere.calls().is_empty());
    assert_eq!(put(moved.replacen("***MASKED***", "sk-planted-key", 1)).await.0, 200, "who knows it may move it");
    assert_eq!(world.say("hi").await.1["response"], "echo: hi");
    assert_eq!(elsewhere.calls().len(), 1);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_and_change_nothing() {
    let world = World::paired("").await;
    let before = world.config_text();
    for (body, place) in [
        ("bot_token = \"planted", "line 1"),
        ("[gateway]\nport = \"planted\"", "gateway.port"),
        ("default_provider = \"planted\"", "provider"),
        ("default_temperature = 9.0", "default_temperature"),
        ("[gateway]\nhost = \"0.0.0.0\"", "allow_public_bind"),
    ] {
        let (status, answer) = both(world.request("PUT", "/api/config").body(body).send().await.unwrap()).await;
        let error = answer["error"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(
            error.starts_with("Invalid config: ") && error.contains(place) && !error.contains("planted"),
            "{error}"
        );
    }
    assert_eq!(world.config_text(), before);
}

#[tokio::test]
async fn cost_is_counted_per_model_and_day_and_survives_a_restart() {
    let mut world = World::paired("[cost.prices.m]\ninput = 1000000.0\noutput = 2000000.0\n").await;
    assert_eq!(get(&world, "/api/cost").await["cost"]["request_count"], 0);
    world.say("hi").await;
    world.say("hi").await;
    let cost = eventually(async || {
        let cost = get(&world, "/api/cost").await["cost"].clone();
        (cost["request_count"] == 2).then_some(cost)
    })
    .await;
    assert_eq!(
        (&cost["daily_cost_usd"], &cost["session_cost_usd"], &cost["total_tokens"]),
        (&json!(50.0), &json!(50.0), &json!(36))
    );
    assert_eq!(cost["by_model"]["m"]["cost_usd"], 50.0);
    assert_eq!(cost["by_day"].as_object().unwrap().len(), 1);
    world.restart().await;
    let cost = get(&world, "/api/cost").await["cost"].clone();
    assert_eq!((&cost["monthly_cost_usd"], &cost["session_cost_usd"]), (&json!(50.0), &json!(0.0)));
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong() {
    let platform = Platform::start().await;
    let base = platform.url();
    let world =
        World::paired(&format!("[channels_config.github]\naccess_token = \"t\"\napi_base = \"{base}\"\n")).await;
    let healthy = get(&world, "/api/doctor").await;
    assert_eq!(healthy["summary"]["errors"], 0, "{healthy}");
    assert!(healthy["summary"]["warnings"].as_u64().unwrap() >= 3, "no identity, no secret, nobody allowed: {healthy}");
    let world = World::paired("").await;
    std::fs::create_dir_all(world.workspace().join("state")).unwrap();
    std::fs::write(world.workspace().join("memory"), "in the way").unwrap();
    let (_, ill) = both(world.post("/api/doctor").send().await.unwrap()).await;
    assert_eq!(ill["summary"]["errors"], 1, "{ill}");
}

#[tokio::test]
async fn metrics_count_requests_models_and_tools() {
    let world = World::paired("").await;
    world.model.script([Reply::Tools(vec![("time", json!({})), ("made_up", json!({}))])]);
    world.post("/api/chat").json(&json!({ "message": "hi" })).send().await.unwrap();
    world.get("/no/such/page").send().await.unwrap();
    let answer = world.http.get(world.url("/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "open to this machine");
    let text = answer.text().await.unwrap();
    for line in [
        "zeroone_gateway_http_requests_total{route=\"/api/chat\",method=\"POST\",status=\"200\"} 1",
        "zeroone_gateway_http_requests_total{route=\"other\",method=\"GET\",status=\"200\"} 1",
        "zeroone_gateway_model_calls_total{model=\"m\",outcome=\"ok\"} 2",
        "zeroone_gateway_tokens_total{model=\"m\",direction=\"input\"} 22",
        "zeroone_gateway_tool_calls_total{tool=\"time\",outcome=\"ok\"} 1",
        "zeroone_gateway_tool_calls_total{tool=\"unknown\",outcome=\"error\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let proxied = World::new("[gateway]\ntrusted_proxies = [\"127.0.0.1\"]\n").await;
    let stranger = proxied.get("/metrics").header("X-Forwarded-For", "203.0.113.9").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
}

#[tokio::test]
async fn the_page_is_everywhere_where_nothing_else_is() {
    let world = World::new("").await;
    for path in ["/", "/agent", "/deep/link"] {
        let answer = world.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(answer.headers().contains_key("content-security-policy"));
    }
    // The page's own files are there, and what the script asks for are routes of this gateway.
    let page = world.get("/").send().await.unwrap().text().await.unwrap();
    for file in ["_app/app.js", "_app/style.css"] {
        assert!(page.contains(file));
        assert_eq!(world.get(&format!("/{file}")).send().await.unwrap().status(), 200, "{file}");
    }
    assert_eq!(world.get("/_app/other.js").send().await.unwrap().status(), 404);
    assert_eq!(world.get("/api/nope").send().await.unwrap().status(), 404);
    assert_eq!(world.post("/nope").send().await.unwrap().status(), 405);
    assert_eq!(world.post("/health").send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_repeated_key_gives_the_stored_answer_and_a_failed_try_none() {
    let world = World::paired("[reliability]\nprovider_retries = 0\n").await;
    world.model.script([Reply::Status(500, vec![], "{}")]);
    let post = async |path: &str, message: &str| {
        let request = world.post(path).header("X-Idempotency-Key", "k1").json(&json!({ "message": message }));
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().contains_key("x-idempotent-replay");
        let (status, body) = both(answer).await;
        (status.as_u16(), body, replayed)
    };
    assert_eq!(post("/webhook", "hi").await.0, 502);
    let (status, first, replayed) = post("/webhook", "hi").await;
    assert_eq!((status, &first["response"], replayed), (200, &json!("echo: hi"), false));
    assert_eq!(post("/webhook", "hi").await, (200, first, true));
    assert_eq!(world.model.calls().len(), 2);
    assert_eq!(post("/webhook", "other").await.0, 422);
    assert!(!post("/api/chat", "hi").await.2, "each endpoint has keys of its own");
}

#[tokio::test]
async fn a_message_sent_twice_at_once_is_answered_once() {
    let world = World::paired("").await;
    let send = || world.post("/webhook").header("X-Idempotency-Key", "k").json(&json!({ "message": "hi" })).send();
    let answers = futures_util::future::join_all((0..8).map(|_| send())).await;
    for answer in answers {
        assert_eq!(both(answer.unwrap()).await.1["response"], "echo: hi");
    }
    assert_eq!(world.model.calls().len(), 1);
}

#[tokio::test]
async fn browsers_may_call_from_the_listed_origins_alone() {
    // Under one name, another one of its kin, or several at once.
    let names = ["cors_origins", "allowed_origins", "cors_allowed_origins"];
    let all = names.map(|name| format!("{name} = [\"https://chat.example\"]\n")).concat();
    let world = World::paired(&format!("[gateway]\n{all}")).await;
    let ask = async |origin: &str, path: &str| {
        let request = world.http.request(reqwest::Method::OPTIONS, world.url(path)).header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        request.header("Access-Control-Request-Headers", "authorization,content-type").send().await.unwrap()
    };
    for path in ["/v1/chat/completions", "/api/chat", "/v1/models"] {
        let allowed = ask("https://chat.example", path).await;
        assert_eq!(allowed.status(), 204);
        assert_eq!(allowed.headers()["access-control-allow-origin"], "https://chat.example");
        assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization,content-type");
        let (status, body) = both(ask("https://other.example", path).await).await;
        assert_eq!(status, 403);
        assert!(body["error"].as_str().unwrap().contains("cors_origins"), "{body}");
    }
    let answer = world.get("/v1/models").header("Origin", "https://chat.example").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://chat.example");
    assert_eq!(
        (&answer.headers()["cache-control"], &answer.headers()["x-content-type-options"]),
        (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    let other = world.get("/v1/models").header("Origin", "https://other.example").send().await.unwrap();
    assert!(other.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn a_foreign_name_reads_nothing_where_no_token_is_needed() {
    let open = World::new("[gateway]\nrequire_pairing = false\nallowed_hosts = [\"ada.example.org\"]\n").await;
    for (host, status) in [("localhost", 200), ("ada.example.org", 200), ("evil.example", 403)] {
        assert_eq!(open.get("/api/status").header("Host", host).send().await.unwrap().status(), status, "{host}");
    }
    let paired = World::new("").await;
    assert_eq!(paired.get("/metrics").send().await.unwrap().status(), 200);
    assert_eq!(paired.get("/metrics").header("Host", "evil.example").send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_asked_for() {
    let world = World::paired("").await;
    let get = async |accept: &str| world.get("/metrics").header("Accept", accept).send().await.unwrap();
    let text = get("text/plain; version=0.0.4").await;
    assert!(text.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = text.text().await.unwrap();
    assert!(text.contains("# TYPE zeroone_gateway_http_requests_total counter") && !text.contains("# EOF"), "{text}");
    let open = get("application/openmetrics-text; version=1.0.0").await;
    assert!(open.text().await.unwrap().ends_with("# EOF\n"));
    assert_eq!(get("application/json").await.status(), 406);
}
