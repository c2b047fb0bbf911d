//! Which master key a store belongs to.

use crate::domain::Secret;
use crate::vault::{MasterKey, MasterKeySource};

use super::*;

fn vault(keys: &[char]) -> Vault {
    let ring = keys.iter().map(|digit| digit.to_string().repeat(64)).collect::<Vec<_>>().join(",");
    Vault::new(&MasterKey::load(MasterKeySource::Value(Secret::new(ring))).unwrap())
}

fn with_token(vault: &Vault, revision: u64) -> AgentRecord {
    let token = vault.seal(&Binding::agent(agent_id(1), "token"), b"zc_planted");
    AgentRecord { token: Some(token), ..revised(&agent(1), revision) }
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_name_and_changes_nothing() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    let right = vault(&['1']);
    store.check_key(&right).await.unwrap();
    store.check_key(&right).await.unwrap();
    let before = disk.bytes();
    let error = store.check_key(&vault(&['2'])).await.unwrap_err();
    assert!(error.to_string().contains(&right.active_key().to_string()), "{error}");
    assert!(matches!(error, OpenError::WrongKey { .. }));
    assert!(disk.bytes() == before, "a refused key left a trace");
    store.check_key(&right).await.unwrap();
}

#[tokio::test]
async fn an_older_key_is_needed_until_nothing_is_sealed_with_it() {
    let store = fresh();
    let (old, ring, new) = (vault(&['1']), vault(&['2', '1']), vault(&['2']));
    store.check_key(&old).await.unwrap();
    store.commit(Batch::create_agent(&with_token(&old, 1), port(1), &entry(1), None)).await.unwrap();
    store.check_key(&ring).await.unwrap();
    assert!(matches!(store.check_key(&new).await, Err(OpenError::WrongKey { .. })));
    store.commit(Batch::update_agent(&with_token(&ring, 2), None)).await.unwrap();
    store.check_key(&ring).await.unwrap();
    store.check_key(&new).await.unwrap();
    assert!(matches!(store.check_key(&old).await, Err(OpenError::WrongKey { .. })));
}

#[tokio::test]
async fn secrets_that_no_canary_vouches_for_are_not_trusted() {
    let store = fresh();
    let vault = vault(&['1']);
    store.commit(Batch::create_agent(&with_token(&vault, 1), port(1), &entry(1), None)).await.unwrap();
    assert!(matches!(store.check_key(&vault).await, Err(OpenError::NoCanary { .. })));
}

#[tokio::test]
async fn users_without_secrets_do_not_tie_a_store_to_a_key() {
    let store = fresh();
    store.commit(Batch::put_user(&user(1))).await.unwrap();
    store.commit(Batch::put_key(&key(1, 1))).await.unwrap();
    store.check_key(&vault(&['1'])).await.unwrap();
}

#[tokio::test]
async fn no_secret_is_found_in_the_bytes_of_a_store() {
    let disk = MemoryDisk::new();
    let store = open(&disk);
    let vault = vault(&['1']);
    store.check_key(&vault).await.unwrap();
    let planted = ["sk-planted-key", "zc_planted_token", "planted:telegram", "zo_planted_api_key", "planted answer"];
    let seal = |field, text: &str| Some(vault.seal(&Binding::agent(agent_id(1), field), text.as_bytes()));
    let record = AgentRecord {
        api_key: seal("api_key", planted[0]),
        token: seal("token", planted[1]),
        channels: seal("channels", planted[2]),
        ..agent(1)
    };
    let hashed = KeyRecord { hash: crate::domain::ApiKey::hash_of(planted[3]), ..key(1, 1) };
    let body = vault.seal(&Binding::named("idempotency", b"k"), planted[4].as_bytes());
    let state = IdempotencyState::Done { status: 200, headers: Vec::new(), body };
    let done = IdempotencyRecord { fingerprint: [0; 32], state, expires_at: at(9) };
    for batch in [
        Batch::put_user(&user(1)),
        Batch::put_key(&hashed),
        Batch::create_agent(&record, port(1), &entry(1), None).with_idempotency(user_id(1), "k", &done),
    ] {
        store.commit(batch).await.unwrap();
    }
    let bytes = disk.bytes();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("Europe/Zurich"), "the search finds what is there");
    for text in planted {
        assert!(!holds(text), "{text}");
    }
    let debug = format!("{:?}", store.load().await.unwrap());
    assert!(!debug.contains("planted"), "{debug}");
}
