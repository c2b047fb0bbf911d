//! `POST /webhook`: from a message to a model's answer, and every way to fail on that road.

use serde_json::json;

use super::model::{FakeModel, Reply};
use super::world::{World, both};

#[tokio::test]
async fn a_message_reaches_the_model_with_persona_key_and_temperature() {
    let world = World::paired("default_temperature = 0.25\nprovider_max_tokens = 77\n").await;
    std::fs::write(world.workspace().join("IDENTITY.md"), "I am Ada.").unwrap();
    let (status, body) = world.say("hi there").await;
    assert_eq!((status.as_u16(), body), (200, json!({ "model": "m", "response": "echo: hi there" })));
    let call = &world.model.calls()[0];
    assert_eq!(call.path, "/v1/chat/completions");
    assert_eq!(call.header("authorization"), "Bearer sk-planted-key");
    assert_eq!(call.body["model"], "m");
    assert_eq!((&call.body["temperature"], &call.body["max_tokens"]), (&json!(0.25), &json!(77)));
    assert_eq!(call.body["messages"][0], json!({ "role": "system", "content": "I am Ada." }));
    assert_eq!(call.body["messages"][1], json!({ "role": "user", "content": "hi there" }));

    std::fs::write(world.workspace().join("SOUL.md"), "Be brief.").unwrap();
    world.say("again").await;
    assert_eq!(world.model.calls()[1].body["messages"][0]["content"], "I am Ada.\n\nBe brief.");
    assert_eq!(world.model.calls()[1].body["messages"].as_array().unwrap().len(), 2, "no history");
}

#[tokio::test]
async fn anthropic_is_spoken_to_in_its_own_words() {
    let model = FakeModel::start().await;
    let config = format!(
        "default_provider = \"anthropic\"\napi_url = \"{}\"\ndefault_model = \"c\"\napi_key = \"k\"\n",
        model.url()
    );
    let mut world = World::with_config(model, &config).await;
    world.pair().await;
    let (status, body) = world.say("hi").await;
    assert_eq!((status.as_u16(), body), (200, json!({ "model": "c", "response": "echo: hi" })));
    let call = &world.model.calls()[0];
    assert_eq!((call.path.as_str(), call.header("x-api-key")), ("/v1/messages", "k"));
    assert!(call.header("authorization").is_empty() && !call.header("anthropic-version").is_empty());
    assert!(call.body["system"].is_string() && call.body["max_tokens"].is_u64());
}

#[tokio::test]
async fn every_openai_compatible_provider_takes_a_base_url() {
    for provider in ["openai", "openrouter", "groq", "mistral", "deepseek", "gemini", "ollama"] {
        let model = FakeModel::start().await;
        let config = format!("default_provider = \"{provider}\"\napi_url = \"{}\"\n", model.url());
        let mut world = World::with_config(model, &config).await;
        world.pair().await;
        assert_eq!(world.say("hi").await.1["response"], "echo: hi", "{provider}");
        assert_eq!(world.model.calls()[0].path, "/v1/chat/completions");
    }
}

#[tokio::test]
async fn strangers_are_refused_before_their_body_is_read() {
    let world = World::new("").await;
    let answer = world.post("/webhook").body("not json").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(world.model.calls().is_empty());
}

#[tokio::test]
async fn what_is_no_message_is_400_and_what_is_too_long_413() {
    let world = World::paired("").await;
    let expected = json!({ "error": "Invalid JSON body. Expected: {\"message\": \"...\"}" });
    for body in ["", "{", "{}", "[]", "{\"message\":1}", "\u{0}", &"[".repeat(20_000)] {
        let answer = world
            .post("/webhook")
            .header("Content-Type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        assert_eq!(both(answer).await, (400.try_into().unwrap(), expected.clone()), "{body:?}");
    }
    for declared in [None, Some("application/x-www-form-urlencoded"), Some("text/plain")] {
        let undeclared = world.post("/webhook").body("{\"message\":\"hi\"}");
        let undeclared = declared.into_iter().fold(undeclared, |request, kind| request.header("Content-Type", kind));
        let (status, answer) = both(undeclared.send().await.unwrap()).await;
        let error = answer["error"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(error.starts_with("Invalid JSON body") && error.contains("Content-Type: application/json"), "{error}");
    }
    for path in ["/webhook", "/api/chat"] {
        let compressed = world.post(path).header("Content-Encoding", "gzip").json(&json!({ "message": "hi" }));
        let (status, answer) = both(compressed.send().await.unwrap()).await;
        assert!(status == 400 && answer["error"].as_str().unwrap().contains("Content-Encoding"), "{path}: {answer}");
        for blank in ["", "  ", "\n\t", "\u{a0}"] {
            let (status, answer) =
                both(world.post(path).json(&json!({ "message": blank })).send().await.unwrap()).await;
            assert!(status == 400 && answer["error"].as_str().unwrap().contains("blank"), "{path}: {answer}");
        }
    }
    assert!(world.model.calls().is_empty());
    let plain = world.post("/webhook").header("Content-Encoding", "identity");
    assert_eq!(plain.json(&json!({ "message": "hi", "stream": null })).send().await.unwrap().status(), 200);
    let chat = world.post("/api/chat").json(&json!({ "message": "hi", "context": null }));
    assert_eq!(chat.send().await.unwrap().status(), 200);
    let bytes = vec![0xff; 20];
    let not_utf8 = world.post("/webhook").header("Content-Type", "application/json").body(bytes).send().await.unwrap();
    assert_eq!(not_utf8.status(), 400);

    let fits = json!({ "message": "x".repeat(65_536 - 14) });
    assert_eq!(fits.to_string().len(), 65_536);
    assert_eq!(world.post("/webhook").json(&fits).send().await.unwrap().status(), 200);
    let long = json!({ "message": "x".repeat(65_536) });
    assert_eq!(world.post("/webhook").json(&long).send().await.unwrap().status(), 413);
    let pieces = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 8192])));
    let chunked =
        world.post("/webhook").header("Content-Type", "application/json").body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(chunked.send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn an_overloaded_model_is_asked_again_and_its_retry_after_obeyed() {
    let world = World::paired("[reliability]\nprovider_retries = 2\nprovider_backoff_ms = 60000\n").await;
    world.model.script([
        Reply::Status(429, vec![("retry-after", "0.01")], "{}"),
        Reply::Status(503, vec![("retry-after", "0")], "{}"),
    ]);
    assert_eq!(world.say("hi").await.1["response"], "echo: hi");
    assert_eq!(world.model.calls().len(), 3);
    // A pause that no caller would sit through is not begun.
    world.model.script([Reply::Status(429, vec![("retry-after", "3600")], "{}")]);
    let (status, body) = world.say("hi").await;
    assert_eq!((status.as_u16(), &body["model"]["retryAfter"]), (502, &json!(3600)));
    assert_eq!(world.model.calls().len(), 4);
}

#[tokio::test]
async fn a_slow_model_is_a_408_that_names_the_limit() {
    let world = World::paired("[gateway]\nrequest_timeout_secs = 1\n").await;
    world.model.script([Reply::Hang]);
    let answer = world.post("/webhook").json(&json!({ "message": "hi" })).send().await.unwrap();
    let (status, body) = both(answer).await;
    assert_eq!((status.as_u16(), &body["model"]["code"]), (408, &json!("timeout")));
    assert!(body["error"].as_str().unwrap().contains("1 s ([gateway] request_timeout_secs"), "{body}");
}

#[tokio::test]
async fn messages_are_limited_per_minute_before_the_token_is_looked_at() {
    let world = World::new("[gateway]\nwebhook_rate_limit_per_minute = 2\n").await;
    for _ in 0..2 {
        assert_eq!(world.say("hi").await.0, 401);
    }
    let (status, body) = world.say("hi").await;
    assert_eq!((status.as_u16(), &body["error"]), (429, &json!("Too many webhook requests. Please retry later.")));
}

#[tokio::test]
async fn an_answer_comes_in_pieces_to_those_who_ask_for_them_and_is_kept_in_its_session() {
    let world = World::paired("[memory]\nauto_save = false\n").await;
    let ask = |message: &str, accept: &'static str| {
        let request = world.post("/webhook").header("X-Session-Id", "s").header("accept", accept);
        request.json(&json!({ "message": message, "stream": true })).send()
    };
    let text = ask("one two", "text/event-stream").await.unwrap().text().await.unwrap();
    let events: Vec<&str> = text.split("\n\n").filter(|event| event.starts_with("event: ")).collect();
    assert!(events[0].starts_with("event: token\ndata: {\"delta\":"), "{text}");
    let done = events.last().unwrap().strip_prefix("event: done\ndata: ").unwrap();
    let done: serde_json::Value = serde_json::from_str(done).unwrap();
    assert_eq!(done, json!({ "model": "m", "response": "echo: one two" }));
    // Asked for by half: whole, as ZeroClaw 0.8 answers then.
    let (status, whole) = both(ask("three", "application/json").await.unwrap()).await;
    assert_eq!((status.as_u16(), &whole["response"]), (200, &json!("echo: three")));
    let calls = world.model.calls();
    assert_eq!(calls.last().unwrap().body["messages"].as_array().unwrap().len(), 4, "the earlier turn is there");
}
