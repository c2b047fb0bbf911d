//! Secrets are planted and looked for in everything that is left.

use serde_json::json;

use crate::common::delete_everything;
use crate::service::{EndAgents, Service, StandInModel, log_of, new_agent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_on_the_disk_in_the_log_or_in_an_answer_but_its_owners() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let _end = EndAgents(data.clone());
    let model = StandInModel::start().await;
    let service = Service::start(&data);
    let secrets = ["sk-planted-in-the-key", "123:planted-in-telegram", "xoxb-planted-in-slack"];
    let mut wanted = new_agent("Keeper", &model.url);
    wanted["apiKey"] = json!(secrets[0]);
    wanted["channels"] = json!({"telegram": {"botToken": secrets[1]}, "slack": {"botToken": secrets[2]}});
    let (status, agent) = service.post("/api/agents", &wanted).await;
    assert_eq!(status, 202, "{agent}");
    let id = agent["id"].as_str().expect("an id").to_owned();
    let (status, _) = service.get(&format!("/api/agents/{id}/wait?status=RUNNING&timeout=60")).await;
    assert_eq!(status, 200);
    let (status, _) = service.post(&format!("/api/agents/{id}/message"), &json!({"message": "hi"})).await;
    assert_eq!(status, 200);
    let mut seen = String::new();
    for path in ["", "/events", "/explain", "/logs", "/health"] {
        let (_, body) = service.get(&format!("/api/agents/{id}{path}")).await;
        let mut body = body;
        // Their owner, and nobody else, sees the channels; not even they see the key.
        if let Some(record) = body.as_object_mut() {
            record.remove("channels");
        }
        seen.push_str(&body.to_string());
    }
    let (_, refused) = service.post("/api/agents", &json!({"apiKey": secrets[0], "temperature": secrets[1]})).await;
    seen.push_str(&refused.to_string());
    let key = service.key.clone();
    delete_everything(&service).await;
    service.kill();

    let log = std::fs::read(log_of(&data)).expect("the log");
    let store = std::fs::read(data.join("zeroone.redb")).expect("the store");
    for (place, bytes) in [("answers", seen.as_bytes()), ("log", &log[..]), ("store", &store[..])] {
        for secret in secrets.iter().copied().chain([key.as_str()]) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the {place}");
        }
        assert!(!has_token(bytes, b"zc_") && !has_token(bytes, b"zcl_live_"), "a bearer token is in the {place}");
    }
}

/// Whether a gateway's token is in there: its prefix, and digits behind it as no chance puts them.
fn has_token(bytes: &[u8], prefix: &[u8]) -> bool {
    const DIGITS: usize = 16;
    bytes
        .windows(prefix.len() + DIGITS)
        .any(|window| window.starts_with(prefix) && window[prefix.len()..].iter().all(u8::is_ascii_hexdigit))
}
