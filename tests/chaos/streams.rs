//! An agent that is killed again and again under fifty answers that come in pieces.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Json, Router, routing::post};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::common::running_on;
use crate::service::{EndAgents, Service, processes, signal};

const STREAMS: usize = 50;
const KILLS: usize = 5;
/// An answer takes about as long as an agent lives.
const WORDS: usize = 40;
const WORD_EVERY: Duration = Duration::from_millis(20);

/// A model that repeats the last message, word by word.
async fn slow_model() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
    let answer = |Json(asked): Json<Value>| async move {
        let said = asked["messages"].as_array().and_then(|all| all.last()).map(|last| last["content"].clone());
        let words: Vec<String> =
            said.as_ref().and_then(Value::as_str).unwrap_or_default().split_inclusive(' ').map(str::to_owned).collect();
        let pieces = futures_util::stream::iter(words).then(async |word| {
            tokio::time::sleep(WORD_EVERY).await;
            event(&json!({"choices": [{"index": 0, "delta": {"content": word}}]}))
        });
        let end = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
        let ends = futures_util::stream::iter([end, Ok(Bytes::from_static(b"data: [DONE]\n\n"))]);
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces.chain(ends))).into_response()
    };
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("the model serves") });
    url
}

fn event(data: &Value) -> Result<Bytes, std::io::Error> {
    Ok(Bytes::from(format!("data: {data}\n\n")))
}

/// How one answer ended.
#[derive(Default, Debug)]
struct Ends {
    whole: AtomicUsize,
    /// With an error event, after it had begun.
    told: AtomicUsize,
    /// With a problem before it began.
    refused: AtomicUsize,
}

/// Asks once, and looks at every byte of the answer.
async fn ask(service: &Service, id: &str, text: &str, ends: &Ends) {
    let request = service.request(reqwest::Method::POST, &format!("/api/agents/{id}/message"));
    let response = request.header("accept", "text/event-stream").json(&json!({"message": text})).send().await;
    let response = response.expect("the service answers");
    let status = response.status().as_u16();
    let body = response.text().await.expect("an answer is never cut");
    if status != 200 {
        let problem: Value = serde_json::from_str(&body).expect("a problem");
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(["delivery-unknown", "agent-not-ready", "gateway-error"].contains(&code), "{status}: {body}");
        ends.refused.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let events = body.split("\n\n").filter_map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        Some((field("event: ")?, serde_json::from_str::<Value>(field("data: ")?).expect("JSON")))
    });
    let (mut so_far, mut end) = (String::new(), None);
    for (kind, data) in events {
        assert!(end.is_none(), "something after the end: {body}");
        match kind {
            "delta" => so_far.push_str(data["text"].as_str().expect("a text")),
            kind => end = Some((kind.to_owned(), data)),
        }
    }
    assert!(text.starts_with(so_far.trim_end()), "another's bytes: {body}");
    match end {
        Some((kind, data)) if kind == "done" => {
            assert_eq!(data["response"].as_str().map(str::trim_end), Some(text), "{body}");
            ends.whole.fetch_add(1, Ordering::Relaxed);
        }
        Some((kind, data)) if kind == "error" => {
            assert_eq!(data["code"], "delivery-unknown", "{body}");
            ends.told.fetch_add(1, Ordering::Relaxed);
        }
        end => panic!("an answer without an end, {end:?}: {body}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_in_pieces_is_whole_or_says_that_it_is_not_while_its_agent_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let service = Service::start_with(&data, &[("ZEROONE_RATELIMIT__PER_SECOND", "0")]);
    let id = running_on(&service, "Ada", &slow_model().await).await;
    let (ends, over) = (Ends::default(), AtomicBool::new(false));
    let readers = (0..STREAMS).map(async |reader| {
        let mut turn = 0;
        while !over.load(Ordering::Relaxed) {
            let text = (0..WORDS).map(|word| format!("{reader}-{turn}-{word}")).collect::<Vec<_>>().join(" ");
            ask(&service, &id, &text, &ends).await;
            turn += 1;
        }
    });
    let killer = async {
        for kill in 1..=KILLS {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for pid in processes(&data).remove(&id).unwrap_or_default() {
                signal(pid, 9);
            }
            // The next one meets answers that have begun.
            let before = ends.whole.load(Ordering::Relaxed);
            let deadline = tokio::time::Instant::now() + crate::service::PATIENCE;
            while kill < KILLS && ends.whole.load(Ordering::Relaxed) == before {
                assert!(tokio::time::Instant::now() < deadline, "no answer after a kill: {ends:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all(readers), killer);
    println!("{ends:?}");
    assert!(ends.whole.into_inner() > 0 && ends.told.into_inner() > 0, "kills and answers did not meet");
}
