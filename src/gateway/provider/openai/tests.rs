use serde_json::json;

use super::*;

fn streamed(events: &[Value]) -> Result<Completion, ModelError> {
    let mut streamed = Box::new(Streamed::default());
    for event in events {
        streamed.event(event)?;
    }
    streamed.finish()
}

fn delta(delta: Value) -> Value {
    json!({ "choices": [{ "delta": delta }] })
}

fn stop() -> Value {
    json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] })
}

/// The same message, whole and as one piece of a stream.
fn both_ways(message: Value) -> [Completion; 2] {
    let whole = parse(&json!({ "choices": [{ "message": message, "finish_reason": "stop" }] })).unwrap();
    [whole, streamed(&[delta(message), stop()]).unwrap()]
}

#[test]
fn content_is_text_parts_or_null() {
    for (content, text) in [
        (json!("hi"), "hi"),
        (
            json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": "hi" }]),
            "hi",
        ),
        (json!(["h", { "text": "i" }]), "hi"),
        (json!({ "type": "text", "text": "hi" }), "hi"),
        (Value::Null, ""),
    ] {
        for completion in both_ways(json!({ "content": content })) {
            assert_eq!(completion.message.text, text, "{content}");
        }
    }
    for completion in both_ways(json!({ "content": null, "refusal": "I will not." })) {
        assert_eq!(completion.message.text, "I will not.");
    }
}

#[test]
fn arguments_are_text_an_object_or_null() {
    for (arguments, expected) in
        [(json!("{\"a\":1}"), "{\"a\":1}"), (json!({ "a": 1 }), "{\"a\":1}"), (Value::Null, "{}"), (json!(""), "{}")]
    {
        let message =
            json!({ "tool_calls": [{ "type": "function", "function": { "name": "time", "arguments": arguments } }] });
        for completion in both_ways(message) {
            let call = &completion.message.tool_calls[0];
            assert_eq!((call.name.as_str(), call.arguments.as_str(), call.id.as_str()), ("time", expected, "call_0"));
        }
    }
}

#[test]
fn calls_come_in_several_shapes() {
    for message in [
        json!({ "function_call": { "name": "time", "arguments": "{}" } }),
        json!({ "tool_calls": [{ "id": 7, "name": "time", "arguments": {} }] }),
        json!({ "tool_calls": { "id": "c", "function": { "name": "time" } } }),
    ] {
        for completion in both_ways(message) {
            assert_eq!(completion.message.tool_calls[0].name, "time");
        }
    }
}

#[test]
fn parallel_calls_with_the_same_index_stay_apart() {
    let call =
        |id: &str, city: &str| json!({ "index": 0, "id": id, "function": { "name": "weather", "arguments": city } });
    let completion =
        streamed(&[delta(json!({ "tool_calls": [call("a", "{\"c\":1}"), call("b", "{\"c\":2}")] })), stop()]);
    let calls = completion.unwrap().message.tool_calls;
    assert_eq!(calls.iter().map(|call| call.arguments.as_str()).collect::<Vec<_>>(), ["{\"c\":1}", "{\"c\":2}"]);
    let piece = |more: Value| delta(json!({ "tool_calls": [more] }));
    let completion = streamed(&[
        piece(json!({ "index": 0, "id": "c", "function": { "name": "clock", "arguments": "{\"a\"" } })),
        piece(json!({ "index": 0, "id": "c", "function": { "name": "clock", "arguments": ":1}" } })),
        stop(),
    ]);
    let calls = completion.unwrap().message.tool_calls;
    assert_eq!((calls.len(), calls[0].name.as_str(), calls[0].arguments.as_str()), (1, "clock", "{\"a\":1}"));
}

#[test]
fn unknown_members_go_back_to_their_provider_and_to_no_other() {
    let message = json!({
        "content": null, "reasoning_content": "let me see", "annotations": [],
        "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "time", "arguments": "{}" },
                         "extra_content": { "google": { "thought_signature": "c2ln" } } }],
    });
    for mut completion in both_ways(message) {
        completion.message.from = "a".into();
        let turn = Turn { messages: vec![Message::Assistant(completion.message)], ..Turn::default() };
        let back = &body("m", "a", &turn)["messages"][0];
        assert_eq!(back["reasoning_content"], "let me see");
        assert_eq!(back["tool_calls"][0]["extra_content"]["google"]["thought_signature"], "c2ln");
        assert!(back["annotations"].is_null());
        let other = &body("m", "b", &turn)["messages"][0];
        assert!(other["reasoning_content"].is_null() && other["tool_calls"][0]["extra_content"].is_null());
    }
}

#[test]
fn pieces_of_reasoning_are_put_together() {
    let detail = |text: &str| json!([{ "type": "reasoning.text", "index": 0, "text": text, "signature": null }]);
    let completion = streamed(&[
        delta(json!({ "reasoning_content": "let ", "reasoning_details": detail("one ") })),
        delta(json!({ "reasoning_content": "me", "reasoning_details": detail("two") })),
        delta(json!({ "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": "h" }] }] })),
        delta(json!({ "content": [{ "type": "text", "text": "hi" }] })),
        stop(),
    ]);
    let message = completion.unwrap().message;
    assert_eq!(message.extra["reasoning_content"], "let me");
    assert_eq!(message.extra["reasoning_details"][0]["text"], "one two");
    assert_eq!((message.text.as_str(), message.extra["content"].as_array().unwrap().len()), ("hi", 2));
}

#[test]
fn an_end_by_failure_or_filter_is_an_error() {
    for (reason, expected) in [("error", Reason::Refused), ("content_filter", Reason::Filtered)] {
        let choice = json!({ "message": { "content": "par" }, "delta": { "content": "par" }, "finish_reason": reason });
        let answer = json!({ "choices": [choice] });
        assert_eq!(parse(&answer).unwrap_err().reason, expected);
        assert_eq!(streamed(&[answer]).unwrap_err().reason, expected);
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    for bad in [json!({}), json!({ "choices": [] }), json!({ "choices": [{}] }), json!([]), json!(null)] {
        assert_eq!(parse(&bad).unwrap_err().reason, Reason::Unreadable, "{bad}");
    }
    assert_eq!(streamed(&[delta(json!({ "content": "half" }))]).unwrap_err().reason, Reason::Broken);
    let many: Vec<Value> = (0..99).map(|n| json!({ "index": n, "function": { "name": "f" } })).collect();
    assert!(streamed(&[delta(json!({ "tool_calls": many })), stop()]).is_err());
}

#[test]
fn usage_is_counted_wherever_it_stands() {
    let counted = Usage { input_tokens: 3, output_tokens: 4 };
    for usage in [
        json!({ "usage": { "prompt_tokens": 3, "completion_tokens": 4 } }),
        json!({ "x_groq": { "usage": { "prompt_tokens": 3, "completion_tokens": 4 } } }),
        json!({ "prompt_eval_count": 3, "eval_count": 4 }),
    ] {
        assert_eq!(streamed(&[usage, stop()]).unwrap().usage, counted);
    }
}

#[test]
fn only_what_was_set_is_sent() {
    let plain = body("m", "h", &Turn::default());
    assert_eq!(plain.as_object().unwrap().keys().collect::<Vec<_>>(), ["messages", "model", "stream"]);
}
