//! OpenAI's API in front of the agent.

use serde_json::{Value, json};

use super::model::{FakeModel, Reply};
use super::world::{World, both};

fn hello() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "hello big world" }] })
}

async fn complete(world: &World, request: &Value) -> (u16, Value) {
    let (status, body) = both(world.post("/v1/chat/completions").json(request).send().await.unwrap()).await;
    (status.as_u16(), body)
}

/// The data of each event.
async fn stream(world: &World, mut request: Value) -> Vec<Value> {
    request["stream"] = true.into();
    let answer = world.post("/v1/chat/completions").json(&request).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

fn text_of(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn the_configured_model_is_listed() {
    let world = World::paired("").await;
    let (status, body) = both(world.get("/v1/models").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["object"], &body["data"][0]["id"]), (200, &json!("list"), &json!("m")));
}

#[tokio::test]
async fn a_model_is_looked_up_by_its_name() {
    let world = World::paired("").await;
    let (status, body) = both(world.get("/v1/models/m").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["id"], &body["object"]), (200, &json!("m"), &json!("model")));
    let (status, body) = both(world.get("/v1/models/some/other").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn the_model_is_told_which_of_several_users_speaks() {
    let world = World::paired("").await;
    let request = json!({ "messages": [{ "role": "user", "name": "bob", "content": "hi" }] });
    assert_eq!(complete(&world, &request).await.0, 200);
    let sent = world.model.calls()[0].body["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&sent["name"], &sent["content"]), (&json!("bob"), &json!("hi")));
}

#[tokio::test]
async fn what_says_how_to_answer_reaches_the_model_and_the_rest_is_refused_by_name() {
    let world = World::paired("").await;
    let wishes = json!({
        "top_p": 0.5, "seed": 7, "stop": ["END"], "response_format": { "type": "json_object" }, "presence_penalty": 1.0,
    });
    let mut request = hello();
    request.as_object_mut().unwrap().extend(wishes.as_object().unwrap().clone());
    assert_eq!(complete(&world, &request).await.0, 200);
    for (name, value) in wishes.as_object().unwrap() {
        assert_eq!(&world.model.calls()[0].body[name], value, "{name}");
    }
    for (name, value) in
        [("n", json!(2)), ("logprobs", json!(true)), ("tool_choice", json!("required")), ("seed", json!("x"))]
    {
        let mut request = hello();
        request[name] = value;
        let (status, body) = complete(&world, &request).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!(name)), "{body}");
    }
    assert_eq!(world.model.calls().len(), 1, "nothing that is refused costs");
}

#[tokio::test]
async fn a_completion_has_openais_shape() {
    let world = World::paired("").await;
    std::fs::write(world.workspace().join("SOUL.md"), "Be brief.").unwrap();
    let (status, body) = complete(&world, &hello()).await;
    assert_eq!(status, 200);
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(body["choices"][0]["message"]["content"], "echo: hello big world");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["usage"], json!({ "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 }));
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-") && body["created"].is_i64());
    assert_eq!(world.model.calls()[0].body["messages"][0]["content"], "Be brief.");
}

#[tokio::test]
async fn streams_come_in_pieces_whatever_the_model_speaks() {
    let model = FakeModel::start().await;
    let anthropic =
        format!("default_provider = \"anthropic-custom:http://{}\"\ndefault_model = \"m\"\n", model.address);
    let mut anthropic = World::with_config(model, &anthropic).await;
    anthropic.pair().await;
    for world in [World::paired("").await, anthropic] {
        let mut request = hello();
        request["stream_options"] = json!({ "include_usage": true });
        let events = stream(&world, request).await;
        assert_eq!(text_of(&events), "echo: hello big world");
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert!(events.len() > 5, "{events:?}");
        assert_eq!(events[events.len() - 3]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events[events.len() - 2]["usage"]["total_tokens"], 18);
        assert_eq!(events[events.len() - 1], "[DONE]");
        assert!(events[..events.len() - 1].iter().all(|event| event["object"] == "chat.completion.chunk"));
        let plain = stream(&world, hello()).await;
        assert!(plain.iter().all(|event| event["usage"].is_null()));
    }
}

#[tokio::test]
async fn our_tools_run_unseen_within_a_stream() {
    let world = World::paired("").await;
    world.model.script([Reply::Tools(vec![("time", json!({ "timezone": "UTC" }))]), Reply::Text("It is noon.".into())]);
    let events = stream(&world, hello()).await;
    assert_eq!(text_of(&events), "It is noon.");
    assert!(events.iter().all(|event| event["choices"][0]["delta"]["tool_calls"].is_null()));
    let told = world.model.calls()[1].body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    assert!(told.as_str().unwrap().contains("+00:00"), "{told}");
}

#[tokio::test]
async fn the_callers_tools_are_offered_in_place_of_ours_and_called_by_the_caller() {
    let world = World::paired("").await;
    let mut request = hello();
    request["tools"] =
        json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let call = || Reply::Tools(vec![("weather", json!({ "city": "Bern" }))]);
    world.model.script([call(), call()]);
    let (_, body) = complete(&world, &request).await;
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    let function = &body["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!((&function["name"], &function["arguments"]), (&json!("weather"), &json!("{\"city\":\"Bern\"}")));
    assert_eq!(world.model.calls()[0].body["tools"].as_array().unwrap().len(), 1);

    let events = stream(&world, request.clone()).await;
    let delta = events.iter().find_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array()).unwrap();
    assert_eq!((&delta[0]["index"], &delta[0]["function"]["name"]), (&json!(0), &json!("weather")));

    request["messages"] = json!([
        { "role": "user", "content": [{ "type": "text", "text": "weather?" }] },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "weather", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "c", "content": "sunny" },
    ]);
    assert_eq!(complete(&world, &request).await.1["choices"][0]["message"]["content"], "echo: sunny");
}

#[tokio::test]
async fn model_temperature_and_length_are_the_callers_choice() {
    let world = World::paired("").await;
    let mut request = hello();
    request["model"] = "bigger".into();
    request["temperature"] = 0.0.into();
    request["max_tokens"] = 9.into();
    assert_eq!(complete(&world, &request).await.1["model"], "bigger");
    let asked = &world.model.calls()[0].body;
    assert_eq!(
        (&asked["model"], &asked["temperature"], &asked["max_tokens"]),
        (&json!("bigger"), &json!(0.0), &json!(9))
    );
}

#[tokio::test]
async fn failures_have_openais_shape() {
    let world = World::paired("[reliability]\nprovider_retries = 0\n").await;
    let stranger = world.http.post(world.url("/v1/chat/completions")).json(&hello()).send().await.unwrap();
    let (status, body) = both(stranger).await;
    assert_eq!((status.as_u16(), &body["error"]["type"]), (401, &json!("authentication_error")));
    for bad in [
        json!({}),
        json!({ "messages": [] }),
        json!({ "messages": [{ "role": "x", "content": "y" }] }),
        json!({ "messages": [{ "role": "tool" }] }),
    ] {
        let (status, body) = complete(&world, &bad).await;
        assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")), "{bad}");
    }
    let image =
        json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }] });
    assert!(complete(&world, &image).await.1["error"]["message"].as_str().unwrap().contains("text"));
    for streamed in [false, true] {
        world.model.script([Reply::Status(401, vec![], "{}")]);
        let mut request = hello();
        request["stream"] = streamed.into();
        let (status, body) = complete(&world, &request).await;
        assert_eq!((status, &body["error"]["type"]), (502, &json!("server_error")), "streamed: {streamed}");
    }
    // The first pieces are out, then the model's server breaks off.
    world.model.script([Reply::Status(200, vec![], "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n")]);
    let events = stream(&world, hello()).await;
    assert_eq!(text_of(&events), "half");
    assert_eq!(events.last().unwrap()["error"]["type"], "server_error");
}
