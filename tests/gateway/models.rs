//! Models as they are: the answers, refusals and habits of real providers, in shapes made from their documentation.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::model::FakeModel;
use super::world::{World, both, eventually, serve};

/// A call as a server saw it.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Call {
    fn is_streamed(&self) -> bool {
        self.body["stream"] == true || self.path.contains("stream")
    }

    /// Calls after the first have a tool's result in them.
    fn has_result(&self) -> bool {
        let text = self.body.to_string();
        text.contains("\"tool_call_id\"") || text.contains("tool_result") || text.contains("functionResponse")
    }
}

/// A model server whose answers come from a function.
#[derive(Clone)]
struct Scripted {
    calls: Arc<Mutex<Vec<Call>>>,
    url: String,
}

impl Scripted {
    async fn start(answer: impl Fn(&Call, usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = calls.clone();
        let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let call =
                Call { path: uri.path().to_owned(), headers, body: serde_json::from_slice(&body).unwrap_or_default() };
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(call.clone());
                seen.len()
            };
            let answer = answer.clone();
            async move { answer(&call, number) }
        });
        let url = format!("http://{}", serve(router).await);
        Self { calls, url }
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// A paired gateway that asks this server.
    async fn world(&self, extra: &str) -> World {
        let config = format!("default_provider = \"custom:{}/v1\"\n", self.url);
        world(&format!("{config}{FAST}{extra}")).await
    }
}

const FAST: &str = "default_model = \"m\"\napi_key = \"sk-planted-key\"\n\
                    [reliability]\nprovider_retries = 1\nprovider_backoff_ms = 1\n";

async fn world(config: &str) -> World {
    let mut world = World::with_config(FakeModel::start().await, config).await;
    world.pair().await;
    world
}

fn json_answer(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn refusal(status: u16, body: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), json_answer(body)).into_response()
}

fn sse(events: &[Value]) -> Response {
    let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    ([("content-type", "text/event-stream")], format!("{text}data: [DONE]\n\n")).into_response()
}

/// One message in the form that was asked for.
fn said(call: &Call, message: &Value, finish: &str) -> Response {
    if call.is_streamed() {
        return sse(&[
            json!({ "choices": [{ "index": 0, "delta": message }] }),
            json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": finish }] }),
        ]);
    }
    json_answer(&json!({ "choices": [{ "index": 0, "message": message, "finish_reason": finish }] }))
}

async fn chat(world: &World) -> (u16, Value) {
    let answer = world.post("/api/chat").json(&json!({ "message": "hi" })).send().await.unwrap();
    let (status, body) = both(answer).await;
    (status.as_u16(), body)
}

/// The text of a streamed answer, or the error in it.
async fn streamed(world: &World) -> String {
    let request = json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": true });
    let answer = world.post("/v1/chat/completions").json(&request).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let data = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let piece = |event: Value| {
        let error = event["error"]["message"].as_str();
        event["choices"][0]["delta"]["content"].as_str().or(error).unwrap_or_default().to_owned()
    };
    events.map(piece).collect()
}

/// Both forms of an answer.
async fn both_ways(world: &World) -> [String; 2] {
    [chat(world).await.1["reply"].as_str().unwrap_or_default().to_owned(), streamed(world).await]
}

#[tokio::test]
async fn every_shape_of_content_is_read_whole_and_streamed() {
    for content in [
        json!("Hi there"),
        json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": "Hi there" }]),
        json!([{ "type": "text", "text": "Hi " }, { "type": "text", "text": "there" }]),
        json!({ "type": "text", "text": "Hi there" }),
    ] {
        let server = Scripted::start(move |call, _| said(call, &json!({ "content": content }), "stop")).await;
        assert_eq!(both_ways(&server.world("").await).await, ["Hi there", "Hi there"]);
    }
}

#[tokio::test]
async fn every_shape_of_arguments_runs_the_tool() {
    for arguments in [json!("{\"timezone\":\"UTC\"}"), json!({ "timezone": "UTC" }), Value::Null, json!("")] {
        let server = Scripted::start(move |call, _| {
            if call.has_result() {
                return said(call, &json!({ "content": "done" }), "stop");
            }
            let function = json!({ "name": "time", "arguments": arguments });
            let calls = json!([{ "id": "c1", "type": "function", "function": function }]);
            said(call, &json!({ "content": null, "tool_calls": calls }), "tool_calls")
        })
        .await;
        let world = server.world("").await;
        assert_eq!(both_ways(&world).await, ["done", "done"]);
        assert_eq!(chat(&world).await.1["tool_calls"], json!([{ "name": "time", "success": true }]));
    }
}

#[tokio::test]
async fn what_a_provider_puts_beside_its_call_comes_back() {
    for (member, value) in [
        ("reasoning_content", json!("I should look at the clock.")),
        ("reasoning", json!("hm")),
        ("reasoning_details", json!([{ "type": "reasoning.encrypted", "index": 0, "data": "ZGF0YQ==" }])),
    ] {
        let expected = value.clone();
        let server = Scripted::start(move |call, _| {
            let messages = call.body["messages"].as_array().unwrap();
            let earlier = messages.iter().find(|message| message["role"] == "assistant");
            match earlier {
                Some(earlier) if earlier[member] == expected => said(call, &json!({ "content": "done" }), "stop"),
                Some(_) => refusal(400, &json!({ "error": { "message": "missing field" } })),
                None => {
                    let function = json!({ "name": "time", "arguments": "{}" });
                    let mut message = json!({ "content": "", "tool_calls": [{ "id": "c", "index": 0, "type": "function", "function": function }] });
                    message[member] = value.clone();
                    said(call, &message, "tool_calls")
                }
            }
        })
        .await;
        assert_eq!(both_ways(&server.world("").await).await, ["done", "done"], "{member}");
    }
}

#[tokio::test]
async fn packed_answers_are_unpacked_though_they_were_not_asked_for() {
    for coding in ["gzip", "x-gzip", "deflate"] {
        let server = Scripted::start(move |call, _| {
            let message = if call.is_streamed() {
                let event = json!({ "choices": [{ "delta": { "content": "Hi there" }, "finish_reason": "stop" }] });
                format!("data: {event}\n\ndata: [DONE]\n\n")
            } else {
                json!({ "choices": [{ "message": { "content": "Hi there" } }] }).to_string()
            };
            let packed = if coding == "deflate" { stored(&message) } else { gzip(&message) };
            ([("content-encoding", coding)], packed).into_response()
        })
        .await;
        assert_eq!(both_ways(&server.world("").await).await, ["Hi there", "Hi there"], "{coding}");
        assert_eq!(server.calls()[0].headers["accept-encoding"], "identity");
    }
}

/// A block without any compression, as some servers send `deflate`: without zlib's frame.
fn stored(message: &str) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), message.as_bytes()].concat()
}

fn gzip(message: &str) -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u32::try_from(message.len()).unwrap();
    [&head[..], &stored(message), &crc32(message.as_bytes()).to_le_bytes(), &length.to_le_bytes()].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[tokio::test]
async fn an_error_inside_a_good_answer_is_tried_again_like_its_status() {
    for error in [
        json!({ "error": { "code": 429, "message": "Rate limited" } }),
        json!({ "error": { "type": "overloaded_error", "message": "Overloaded" } }),
        json!({ "choices": [{ "message": { "content": "" }, "delta": { "content": "" }, "finish_reason": "error" }] }),
        json!({ "object": "error", "message": "busy", "code": 503 }),
    ] {
        for in_stream in [false, true] {
            let error = error.clone();
            let server = Scripted::start(move |call, number| match number {
                1 if call.is_streamed() => sse(std::slice::from_ref(&error)),
                1 => json_answer(&error),
                _ => said(call, &json!({ "content": "served" }), "stop"),
            })
            .await;
            let world = server.world("").await;
            let text =
                if in_stream { streamed(&world).await } else { chat(&world).await.1["reply"].as_str().unwrap().into() };
            assert_eq!((text.as_str(), server.calls().len()), ("served", 2));
        }
    }
}

#[tokio::test]
async fn nothing_is_tried_again_after_a_piece_was_passed_on() {
    let server = Scripted::start(|_, _| {
        sse(&[
            json!({ "choices": [{ "delta": { "content": "half" } }] }),
            json!({ "error": { "code": 502, "message": "the provider died" } }),
        ])
    })
    .await;
    let text = streamed(&server.world("").await).await;
    assert!(text.starts_with("half") && text.contains("the provider died"), "{text}");
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_without_text_is_an_error_after_one_more_try() {
    for message in [
        json!({ "content": "", "reasoning_content": "Let me think." }),
        json!({ "content": null }),
        json!({ "content": "  \n" }),
        json!({ "content": [{ "type": "thinking", "thinking": "hm" }] }),
    ] {
        let server = Scripted::start(move |call, _| said(call, &message, "stop")).await;
        let world = server.world("").await;
        let (status, body) = both(world.post("/webhook").json(&json!({ "message": "hi" })).send().await.unwrap()).await;
        assert_eq!((status.as_u16(), &body["model"]["code"]), (502, &json!("empty_answer")));
        assert_eq!(server.calls().len(), 2);
        assert!(streamed(&world).await.contains("no text"));
    }
    let server = Scripted::start(|call, number| {
        let text = if number == 1 { "" } else { "at last" };
        said(call, &json!({ "content": text }), "stop")
    })
    .await;
    assert_eq!(chat(&server.world("").await).await.1["reply"], "at last");
}

#[tokio::test]
async fn a_parameter_that_is_refused_is_left_out_and_remembered() {
    let server = Scripted::start(|call, _| {
        for (name, limit) in [("temperature", 1.0), ("max_tokens", 0.0)] {
            if call.body[name].as_f64().is_some_and(|value| value != limit) {
                let message = format!("Unsupported value: '{name}' is not supported with this model.");
                return refusal(
                    400,
                    &json!({ "error": { "message": message, "param": name, "code": "unsupported_value" } }),
                );
            }
        }
        said(call, &json!({ "content": "fine" }), "stop")
    })
    .await;
    let world = server.world("").await;
    assert_eq!(chat(&world).await.1["reply"], "fine");
    assert!(server.calls()[0].body.get("temperature").is_none(), "nothing is sent that nothing set");
    let request = json!({ "messages": [{ "role": "user", "content": "hi" }], "temperature": 0.3, "max_tokens": 9 });
    for calls in [4, 5] {
        let (status, body) = both(world.post("/v1/chat/completions").json(&request).send().await.unwrap()).await;
        assert_eq!((status.as_u16(), &body["choices"][0]["message"]["content"]), (200, &json!("fine")));
        assert_eq!(server.calls().len(), calls, "learned once");
    }
    let last = server.calls().pop().unwrap().body;
    assert_eq!((&last["max_completion_tokens"], &last["temperature"]), (&json!(9), &Value::Null));
}

#[tokio::test]
async fn a_model_without_tools_answers_without_ours() {
    let server = Scripted::start(|call, _| match call.body.get("tools") {
        Some(_) => refusal(400, &json!({ "error": "registry.example/gemma:latest does not support tools" })),
        None => said(call, &json!({ "content": "fine" }), "stop"),
    })
    .await;
    assert_eq!(chat(&server.world("").await).await.1["reply"], "fine");
}

#[tokio::test]
async fn what_the_caller_asked_for_and_the_model_refuses_is_told_by_name() {
    let server = Scripted::start(|call, _| match call.body.get("response_format") {
        Some(_) => refusal(
            400,
            &json!({ "error": { "message": "'response_format' is not supported", "param": "response_format" } }),
        ),
        None => said(call, &json!({ "content": "fine" }), "stop"),
    })
    .await;
    let world = server.world("").await;
    let mut request =
        json!({ "messages": [{ "role": "user", "content": "hi" }], "response_format": { "type": "json_object" } });
    let (status, body) = both(world.post("/v1/chat/completions").json(&request).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["error"]["param"]), (400, &json!("response_format")));
    request["n"] = json!(2);
    let (status, body) = both(world.post("/v1/chat/completions").json(&request).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["error"]["param"]), (400, &json!("n")));
}

#[tokio::test]
async fn each_failure_is_told_apart_with_its_remedy_from_every_endpoint() {
    for (status, body, expected_status, code, words) in [
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-planted-key","code":"invalid_api_key"}}"#,
            json!(401),
            "invalid_api_key",
            "API key",
        ),
        (
            404,
            r#"{"error":{"message":"The model 'm' does not exist","code":"model_not_found"}}"#,
            json!(404),
            "model_not_found",
            "model's name",
        ),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
            json!(429),
            "insufficient_quota",
            "credit",
        ),
        (402, r#"{"error":{"message":"Insufficient Balance"}}"#, json!(402), "insufficient_quota", "credit"),
        (200, "garbage", Value::Null, "unreadable_answer", "compatible API"),
        (200, r#"{"choices":[]}"#, Value::Null, "unreadable_answer", "compatible API"),
        (200, "<!doctype html><html></html>", Value::Null, "web_page", "address"),
        (302, "", json!(302), "invalid_request", "redirects"),
        (500, "<html>Bad gateway</html>", json!(500), "server_error", "later"),
    ] {
        let server = Scripted::start(move |_, _| (StatusCode::from_u16(status).unwrap(), body).into_response()).await;
        let world = server.world("").await;
        for path in ["/webhook", "/api/chat", "/v1/chat/completions", "/v1/responses"] {
            let request = json!({ "message": "hi", "input": "hi", "messages": [{ "role": "user", "content": "hi" }] });
            let keep: &[&str] = match path {
                "/v1/chat/completions" => &["messages"],
                "/v1/responses" => &["input"],
                _ => &["message"],
            };
            let request: Value = keep.iter().map(|name| ((*name).to_owned(), request[*name].clone())).collect();
            let (answered, body) = both(world.post(path).json(&request).send().await.unwrap()).await;
            let text = body.to_string();
            assert_eq!((answered.as_u16(), &body["model"]["status"]), (502, &expected_status), "{path} {body}");
            assert_eq!(body["model"]["code"], code, "{path} {body}");
            assert!(body["model"]["message"].as_str().unwrap().contains(words), "{path} {body}");
            assert!(!text.contains("planted") && body["error"] != Value::Null, "{text}");
        }
    }
    for (url, code) in [("http://127.0.0.1:9/v1", "unreachable"), ("http://model.invalid/v1", "dns")] {
        let world = world(&format!("default_provider = \"custom:{url}\"\n{FAST}")).await;
        let (status, body) = chat(&world).await;
        assert_eq!((status, &body["model"]["code"]), (502, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn failures_are_events_and_metrics() {
    let server = Scripted::start(|_, _| refusal(401, &json!({ "error": { "message": "no" } }))).await;
    let world = server.world("").await;
    assert_eq!(chat(&world).await.0, 502);
    let events = world.get("/api/events").header("Last-Event-ID", "").send().await.unwrap();
    let mut events = events.bytes_stream();
    let text = eventually_text(&mut events, "\"code\":\"invalid_api_key\"").await;
    assert!(text.contains("\"type\":\"error\""), "{text}");
    let metrics = world.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("answers_failed_total{reason=\"invalid_api_key\"} 1"), "{metrics}");
}

async fn eventually_text(
    events: &mut (impl futures_util::Stream<Item = reqwest::Result<Bytes>> + Unpin),
    wanted: &str,
) -> String {
    use futures_util::StreamExt as _;
    let mut text = String::new();
    while !text.contains(wanted) {
        let piece = tokio::time::timeout(super::world::PATIENCE, events.next()).await.expect("it never came");
        text.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap()));
    }
    text
}

#[tokio::test]
async fn the_providers_that_stand_in_are_asked_in_order_and_get_no_other_key() {
    let second = Scripted::start(|call, _| said(call, &json!({ "content": "from the fallback" }), "stop")).await;
    for (status, body) in [
        (500, json!({ "error": "down" })),
        (401, json!({ "error": "no" })),
        (404, json!({ "error": "model m not found" })),
    ] {
        let first = Scripted::start(move |_, _| refusal(status, &body)).await;
        let fallback = format!("fallback_providers = [\"custom:{}/v1\"]\n", second.url);
        let world = first.world(&fallback).await;
        assert_eq!(both_ways(&world).await, ["from the fallback", "from the fallback"]);
        let call = second.calls().pop().unwrap();
        assert!(call.headers.get("authorization").is_none(), "a key is sent to its own host alone");
    }
    let other = Scripted::start(|call, _| match call.body["model"].as_str() {
        Some("m") => refusal(503, &json!({ "error": "overloaded" })),
        _ => said(call, &json!({ "content": "small" }), "stop"),
    })
    .await;
    let world = other.world("[reliability.model_fallbacks]\nm = [\"small\"]\n").await;
    let (_, body) = chat(&world).await;
    assert_eq!((&body["reply"], &body["model"]), (&json!("small"), &json!("small")));
}

#[tokio::test]
async fn a_base_address_works_with_and_without_v1() {
    for (served, given) in [
        ("/v1/chat/completions", ""),
        ("/v1/chat/completions", "/v1"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1"),
        ("/chat/completions", ""),
        ("/api/v1/chat/completions", "/api"),
    ] {
        let server = Scripted::start(move |call, _| match call.path == served {
            true => said(call, &json!({ "content": "hello" }), "stop"),
            false => refusal(404, &json!({ "error": "no such path" })),
        })
        .await;
        let world = world(&format!("default_provider = \"custom:{}{given}\"\n{FAST}", server.url)).await;
        assert_eq!(chat(&world).await.1["reply"], "hello", "{given} at {served}");
        let before = server.calls().len();
        assert_eq!(chat(&world).await.0, 200);
        assert_eq!(server.calls().len(), before + 1, "the right address is remembered");
    }
}

#[tokio::test]
async fn gemini_speaks_its_own_api_and_its_compatible_one() {
    let call = json!({ "functionCall": { "name": "time", "args": {} }, "thoughtSignature": "c2ln" });
    let native = Scripted::start(move |request, _| {
        let parts = match request.has_result() {
            true if request.body.to_string().contains("c2ln") => json!([{ "text": "noon" }]),
            true => {
                return refusal(400, &json!([{ "error": { "code": 400, "message": "missing a thought_signature" } }]));
            }
            false => json!([{ "text": "hm", "thought": true }, call.clone()]),
        };
        let answer = json!({ "candidates": [{ "content": { "role": "model", "parts": parts }, "finishReason": "STOP" }],
            "usageMetadata": { "promptTokenCount": 3, "candidatesTokenCount": 4 } });
        if request.is_streamed() { sse(&[answer]) } else { json_answer(&answer) }
    })
    .await;
    let config = |url: &str| format!("default_provider = \"gemini\"\napi_url = \"{url}\"\n{FAST}");
    let world = world(&config(&native.url)).await;
    assert_eq!(both_ways(&world).await, ["noon", "noon"]);
    let calls = native.calls();
    assert_eq!(calls[0].path, "/v1beta/models/m:generateContent");
    assert_eq!(calls[0].headers["x-goog-api-key"], "sk-planted-key");
    assert!(calls.iter().any(|call| call.path == "/v1beta/models/m:streamGenerateContent"));
    assert!(calls[0].body["tools"][0]["functionDeclarations"][0]["name"].is_string());

    let compatible = Scripted::start(|call, _| match call.path.as_str() {
        "/v1beta/openai/chat/completions" | "/v1/chat/completions" => {
            said(call, &json!({ "content": "hello" }), "stop")
        }
        _ => refusal(404, &json!({ "error": "no such path" })),
    })
    .await;
    for path in ["", "/v1", "/v1beta/openai"] {
        let world = super::models::world(&config(&format!("{}{path}", compatible.url))).await;
        assert_eq!(chat(&world).await.1["reply"], "hello", "{path}");
    }
}

/// What each provider sends around its text, from its own documentation; keys and numbers are made up.
#[tokio::test]
async fn the_shapes_of_all_providers_are_read() {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 });
    let openai = |extra: Value, message: Value| {
        let mut body = json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
            "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" }] });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let text = |extra: Value| {
        let mut message = json!({ "role": "assistant", "content": "hello" });
        for (name, value) in extra.as_object().unwrap() {
            message[name] = value.clone();
        }
        message
    };
    let shapes = [
        (
            "openai",
            openai(
                json!({ "service_tier": "default", "system_fingerprint": "fp" }),
                text(json!({ "refusal": null, "annotations": [] })),
            ),
        ),
        (
            "openrouter",
            openai(
                json!({ "provider": "Somebody" }),
                text(json!({ "refusal": null, "reasoning": null, "reasoning_details": [] })),
            ),
        ),
        ("ollama", openai(json!({ "system_fingerprint": "fp_ollama" }), text(json!({ "reasoning": "hm" })))),
        (
            "groq",
            openai(json!({ "x_groq": { "id": "req" }, "usage_breakdown": null }), text(json!({ "reasoning": "hm" }))),
        ),
        ("gemini", openai(json!({}), text(json!({ "extra_content": { "google": { "thought_signature": "c2ln" } } })))),
        (
            "mistral",
            openai(
                json!({}),
                json!({ "role": "assistant", "tool_calls": null, "prefix": false,
            "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": "hello" }] }),
            ),
        ),
        ("deepseek", openai(json!({}), text(json!({ "reasoning_content": "hm" })))),
        (
            "anthropic",
            json!({ "id": "msg", "type": "message", "role": "assistant", "model": "m", "stop_sequence": null,
            "content": [{ "type": "thinking", "thinking": "hm", "signature": "c2ln" }, { "type": "text", "text": "hello", "citations": null }],
            "stop_reason": "end_turn", "usage": { "input_tokens": 3, "cache_creation_input_tokens": 0, "output_tokens": 4 } }),
        ),
    ];
    for (provider, shape) in shapes {
        let server = Scripted::start(move |_, _| json_answer(&shape)).await;
        let url =
            if provider == "gemini" { format!("{}/v1beta/openai", server.url) } else { format!("{}/v1", server.url) };
        let world = world(&format!("default_provider = \"{provider}\"\napi_url = \"{url}\"\n{FAST}")).await;
        let (status, body) = chat(&world).await;
        assert_eq!((status, &body["reply"]), (200, &json!("hello")), "{provider} {body}");
        assert_eq!(body["usage"], json!({ "input_tokens": 3, "output_tokens": 4 }), "{provider}");
        assert!(body.get("reasoning").is_none() && !body.to_string().contains("hm"), "{provider}");
    }
}

#[tokio::test]
async fn a_retry_waits_as_the_server_asks_in_every_form() {
    for (name, value) in
        [("retry-after", "0.01"), ("retry-after-ms", "10"), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]
    {
        let server = Scripted::start(move |call, number| match number {
            1 => (StatusCode::TOO_MANY_REQUESTS, [(name, value)], "{}").into_response(),
            _ => said(call, &json!({ "content": "served" }), "stop"),
        })
        .await;
        // The pause of the settings would be too long for this test.
        let config =
            format!("default_provider = \"custom:{}/v1\"\n[reliability]\nprovider_backoff_ms = 60000\n", server.url);
        assert_eq!(chat(&world(&config).await).await.1["reply"], "served", "{name}: {value}");
    }
}

#[tokio::test]
async fn made_up_models_become_neither_labels_nor_rows() {
    let server = Scripted::start(|call, _| said(call, &json!({ "content": "hello" }), "stop")).await;
    let world = server.world("").await;
    for n in 0..5 {
        let request = json!({ "model": format!("made-up-{n}"), "messages": [{ "role": "user", "content": "hi" }] });
        assert_eq!(world.post("/v1/chat/completions").json(&request).send().await.unwrap().status(), 200);
    }
    let metrics = world.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("model=\"other\"") && !metrics.contains("made-up"), "{metrics}");
    let cost = eventually(async || {
        let cost = both(world.get("/api/cost").send().await.unwrap()).await.1;
        (cost["cost"]["request_count"] == 5).then_some(cost)
    })
    .await;
    assert!(!cost.to_string().contains("made-up"), "{cost}");
}

#[tokio::test]
async fn doctor_tries_the_key_and_the_model() {
    for (status, body, severity, words) in [
        (200, json!({ "data": [{ "id": "m" }] }), "ok", "takes the key"),
        (200, json!({ "data": [{ "id": "other" }] }), "warn", "m is not among"),
        (401, json!({ "error": { "message": "bad key", "code": "invalid_api_key" } }), "error", "invalid_api_key"),
    ] {
        let server = Scripted::start(move |_, _| refusal(status, &body)).await;
        let world = server.world("").await;
        let results = both(world.get("/api/doctor").send().await.unwrap()).await.1["results"].clone();
        let found =
            results.as_array().unwrap().iter().find(|finding| finding["category"] == "provider").unwrap().clone();
        assert_eq!(found["severity"], severity, "{found}");
        assert!(found["message"].as_str().unwrap().contains(words), "{found}");
        assert!(server.calls().iter().all(|call| call.path == "/v1/models"), "nothing that costs");
    }
}
