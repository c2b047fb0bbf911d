//! `/ws/chat`.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::model::Reply;
use super::world::{PATIENCE, World};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(world: &World, query: &str, headers: &[(&'static str, String)]) -> Result<Socket, Error> {
    let url = world.url(&format!("/ws/chat{query}")).replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    connect_async(request).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let frame = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = frame {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn say(socket: &mut Socket, content: &str) {
    let message = json!({ "type": "message", "content": content }).to_string();
    socket.send(Message::text(message)).await.unwrap();
}

/// Everything up to the end of an answer.
async fn answer(socket: &mut Socket) -> Vec<Value> {
    let mut seen = vec![];
    loop {
        let message = next(socket).await;
        let last = ["done", "error", "stopped"].iter().any(|last| message["type"] == *last);
        seen.push(message);
        if last {
            return seen;
        }
    }
}

#[tokio::test]
async fn the_token_is_taken_from_header_subprotocol_or_query() {
    let world = World::paired("").await;
    let token = world.token().to_owned();
    let ways = [
        (format!("?token={token}"), vec![]),
        (String::new(), vec![("authorization", format!("Bearer {token}"))]),
        (String::new(), vec![("sec-websocket-protocol", format!("bearer.{token}"))]),
        (String::new(), vec![("sec-websocket-protocol", format!("zeroclaw.v1, bearer.{token}"))]),
    ];
    for (query, headers) in ways {
        let mut socket = connect(&world, &query, &headers).await.unwrap();
        say(&mut socket, "hi").await;
        assert_eq!(answer(&mut socket).await.last().unwrap()["full_response"], "echo: hi");
    }
    for query in ["", "?token=wrong"] {
        match connect(&world, query, &[]).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_pairing_no_page_of_another_server_may_speak() {
    let world = World::new("[gateway]\nrequire_pairing = false\n").await;
    let here = world.url("");
    for (origin, welcome) in [("https://evil.example", false), (here.as_str(), true)] {
        let socket = connect(&world, "", &[("origin", origin.to_owned())]).await;
        assert_eq!(socket.is_ok(), welcome, "{origin}");
    }
    assert!(connect(&world, "", &[]).await.is_ok(), "a program has no origin");
}

#[tokio::test]
async fn an_answer_comes_in_pieces_with_its_tools_and_is_kept_in_mind() {
    let world = World::paired("").await;
    let mut socket = connect(&world, &format!("?token={}", world.token()), &[]).await.unwrap();
    world.model.script([Reply::Tools(vec![("time", json!({}))]), Reply::Text("It is high noon".into())]);
    say(&mut socket, "time?").await;
    let seen = answer(&mut socket).await;
    let kinds: Vec<&str> = seen.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tool_call", "tool_result", "chunk", "chunk", "chunk", "chunk", "done"]);
    assert_eq!((&seen[0]["name"], &seen[0]["args"]), (&json!("time"), &json!({})));
    let text: String = seen.iter().filter_map(|message| message["content"].as_str()).collect();
    assert_eq!((text.as_str(), &seen[6]["full_response"]), ("It is high noon", &json!("It is high noon")));

    say(&mut socket, "thanks").await;
    answer(&mut socket).await;
    let asked = world.model.calls().last().unwrap().body["messages"].clone();
    let said: Vec<&str> = asked.as_array().unwrap()[1..].iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["time?", "It is high noon", "thanks"]);
}

#[tokio::test]
async fn nonsense_and_failures_are_said_and_the_socket_lives_on() {
    let world = World::paired("[reliability]\nprovider_retries = 0\n").await;
    let mut socket = connect(&world, &format!("?token={}", world.token()), &[]).await.unwrap();
    socket.send(Message::text("not json")).await.unwrap();
    assert_eq!(next(&mut socket).await, json!({ "type": "error", "message": "Invalid JSON" }));
    socket.send(Message::text("{\"type\":\"other\"}")).await.unwrap();
    world.model.script([Reply::Status(400, vec![], "{}")]);
    say(&mut socket, "hi").await;
    let failed = answer(&mut socket).await.last().unwrap().clone();
    assert_eq!((&failed["type"], &failed["model"]["status"]), (&json!("error"), &json!(400)));
    assert!(failed["message"].as_str().unwrap().contains("answered 400"), "{failed}");
    say(&mut socket, "again").await;
    assert_eq!(answer(&mut socket).await.last().unwrap()["full_response"], "echo: again");
}

#[tokio::test]
async fn an_open_socket_does_not_keep_the_gateway_from_stopping() {
    let mut world = World::paired("").await;
    let mut socket = connect(&world, &format!("?token={}", world.token()), &[]).await.unwrap();
    let events = world.get("/api/events").send().await.unwrap();
    world.stop().await;
    assert!(!matches!(socket.next().await, Some(Ok(Message::Text(_)))));
    drop(events);
}

#[tokio::test]
async fn an_answer_is_stopped_by_the_client_and_the_next_message_is_answered() {
    let world = World::paired("").await;
    let mut socket = connect(&world, &format!("?token={}", world.token()), &[]).await.unwrap();
    world.model.script([Reply::Hang]);
    say(&mut socket, "slow").await;
    super::world::eventually(async || (world.model.calls().len() == 1).then_some(())).await;
    socket.send(Message::text(json!({ "type": "stop" }).to_string())).await.unwrap();
    assert_eq!(answer(&mut socket).await, [json!({ "type": "stopped" })]);
    say(&mut socket, "quick").await;
    assert_eq!(answer(&mut socket).await.last().unwrap()["full_response"], "echo: quick");
    assert!(!world.model.calls()[1].body["messages"].to_string().contains("slow"));
}

#[tokio::test]
async fn a_new_socket_goes_on_with_what_its_client_remembers() {
    let world = World::paired("").await;
    let mut socket = connect(&world, &format!("?token={}", world.token()), &[]).await.unwrap();
    let earlier = json!([{ "role": "user", "content": "I am Ada" }, { "role": "assistant", "content": "Hello Ada" }, { "role": "system", "content": "planted" }]);
    socket.send(Message::text(json!({ "type": "history", "messages": earlier }).to_string())).await.unwrap();
    say(&mut socket, "who am I?").await;
    answer(&mut socket).await;
    let asked = world.model.calls()[0].body["messages"].to_string();
    assert!(asked.contains("Hello Ada") && !asked.contains("planted"), "{asked}");
}

#[tokio::test]
async fn a_named_session_goes_on_over_sockets_and_restarts() {
    let mut world = World::paired("[memory]\nauto_save = false\n").await;
    for (turn, known) in [("my name is Ada", 0), ("what is my name?", 2)] {
        let query = format!("?token={}&session_id=s-1", world.token());
        let mut socket = connect(&world, &query, &[]).await.unwrap();
        let start =
            json!({ "type": "session_start", "session_id": "s-1", "resumed": known > 0, "message_count": known });
        assert_eq!(next(&mut socket).await, start);
        say(&mut socket, turn).await;
        assert_eq!(answer(&mut socket).await.last().unwrap()["type"], "done");
        drop(socket);
        world.restart().await;
    }
    let asked = world.model.calls().last().unwrap().body["messages"].clone();
    let said: Vec<&str> = asked.as_array().unwrap()[1..].iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["my name is Ada", "echo: my name is Ada", "what is my name?"]);
    // Another endpoint goes on with the same session; a socket without a name knows nothing of it.
    world.post("/api/chat").header("X-Session-Id", "s-1").json(&json!({ "message": "more" })).send().await.unwrap();
    assert_eq!(world.model.calls().last().unwrap().body["messages"].as_array().unwrap().len(), 6);
    let mut other = connect(&world, &format!("?token={}&session_id=not%20a%20name", world.token()), &[]).await.unwrap();
    say(&mut other, "hi").await;
    assert_eq!(answer(&mut other).await.last().unwrap()["type"], "done");
    assert_eq!(world.model.calls().last().unwrap().body["messages"].as_array().unwrap().len(), 2);
}
