//! The way in to real gateways of every version: messages whole and in pieces, conversations, OpenAI's endpoints, and the
//! gateway as it is, WebSocket included.

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use zeroone::control::AgentHandle;
use zeroone::domain::Profile;

use crate::api::Api;
use crate::model::ANSWER;
use crate::service::{PATIENCE, Service};
use crate::world::World;

async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

async fn say(api: &Api, agent: &AgentHandle, body: &Value) -> Value {
    let (status, answer) = json_of(api.request(Method::POST, agent, "/message").json(body).send().await.unwrap()).await;
    assert_eq!((status, answer["response"].as_str()), (200, Some(ANSWER)), "{answer}");
    answer
}

/// The events of a whole stream: kind (empty where it has none) and data.
fn events(text: &str) -> Vec<(String, String)> {
    let events = text.split("\n\n").filter_map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned);
        Some((field("event: ").unwrap_or_default(), field("data: ")?))
    });
    events.collect()
}

pub(crate) async fn messages_and_conversations(world: &World) {
    let service = Service::new(world).await;
    let api = Api::of(&service).await;
    let agent = service.running().await;
    say(&api, &agent, &json!({"message": "hi"})).await;
    for _ in 0..2 {
        say(&api, &agent, &json!({"message": "hi", "session": "chat.1"})).await;
    }
    for body in [json!({"message": "hi"}), json!({"message": "hi", "session": "chat.1"})] {
        let request = api.request(Method::POST, &agent, "/message").header("accept", "text/event-stream").json(&body);
        let text = request.send().await.unwrap().text().await.unwrap();
        let events = events(&text);
        let (kind, done) = events.last().unwrap();
        assert_eq!(kind, "done", "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(done).unwrap()["response"].as_str().map(str::trim),
            Some(ANSWER),
            "{text}"
        );
        assert!(events.iter().any(|(kind, _)| kind == "delta"), "{text}");
    }
    let (status, listed) = json_of(api.get(&agent, "/sessions").send().await.unwrap()).await;
    if agent.profile() == Profile::V01 {
        assert_eq!((status, listed["code"].as_str()), (501, Some("not-supported")));
        return;
    }
    let found = listed["data"].as_array().unwrap().iter().find(|session| session["id"] == "chat.1");
    assert!(found.is_some_and(|session| session["messageCount"].as_u64() >= Some(6)), "{listed}");
    let (status, read) = json_of(api.get(&agent, "/sessions/chat.1").send().await.unwrap()).await;
    assert_eq!((status, read["messages"][1]["content"].as_str()), (200, Some(ANSWER)), "{read}");
    let forget =
        async || api.request(Method::DELETE, &agent, "/sessions/chat.1").send().await.unwrap().status().as_u16();
    assert_eq!((forget().await, forget().await), (204, 404));
}

pub(crate) async fn openais_endpoints(world: &World) {
    let service = Service::new(world).await;
    let api = Api::of(&service).await;
    let agent = service.running().await;
    let model = agent.view().unwrap().record.slug.to_string();
    let post = |path: &str, body: &Value| api.at(Method::POST, path).json(body).send();
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    let chat = json!({"model": model, "messages": messages});
    let (status, answer) = json_of(post("/v1/chat/completions", &chat).await.unwrap()).await;
    assert_eq!((status, answer["choices"][0]["message"]["content"].as_str()), (200, Some(ANSWER)), "{answer}");
    let streamed = json!({"model": model, "messages": messages, "stream": true});
    let text = post("/v1/chat/completions", &streamed).await.unwrap().text().await.unwrap();
    let events = events(&text);
    let pieces = events.iter().filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
    let whole: String =
        pieces.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(ToOwned::to_owned)).collect();
    assert_eq!((whole.trim(), events.last().unwrap().1.as_str()), (ANSWER, "[DONE]"), "{text}");
    let (status, answer) = json_of(post("/v1/responses", &json!({"model": model, "input": "hi"})).await.unwrap()).await;
    assert_eq!((status, answer["output"][0]["content"][0]["text"].as_str()), (200, Some(ANSWER)), "{answer}");
    let (status, refused) =
        json_of(post("/v1/chat/completions", &json!({"model": model, "messages": messages, "n": 2})).await.unwrap())
            .await;
    assert_eq!((status, refused["error"]["param"].as_str()), (400, Some("n")), "{refused}");
}

pub(crate) async fn the_gateway_as_it_is(world: &World) {
    let service = Service::new(world).await;
    let api = Api::of(&service).await;
    let agent = service.running().await;
    let (status, told) = json_of(api.get(&agent, "/gateway/api/status").send().await.unwrap()).await;
    assert!(status == 200 && told.is_object(), "{status} {told}");
    for path in ["/gateway/pair", "/gateway/admin/reload"] {
        assert_eq!(api.request(Method::POST, &agent, path).send().await.unwrap().status().as_u16(), 403, "{path}");
    }
    let written = api.request(Method::PUT, &agent, "/gateway/api/config").body("x = 1").send().await.unwrap();
    assert_eq!(written.status().as_u16(), 409);
    let root = api.url.replacen("http", "ws", 1);
    let target = format!("{root}/{}/gateway/ws/chat?token={}&agent=default", agent.id(), api.key);
    let (mut socket, _) = tokio_tungstenite::connect_async(target).await.unwrap();
    socket.send(Message::text(json!({"type": "message", "content": "hi"}).to_string())).await.unwrap();
    let done = async {
        while let Some(Ok(frame)) = socket.next().await {
            let event: Value =
                frame.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            if event["type"] == "done" || event["type"] == "error" {
                return event;
            }
        }
        panic!("the socket ended")
    };
    let done = tokio::time::timeout(PATIENCE, done).await.unwrap();
    assert_eq!(done["full_response"].as_str().map(str::trim), Some(ANSWER), "{done}");
}
