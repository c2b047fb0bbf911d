//! Many callers at once, with the writer's thread and a real file.

use super::*;

fn numbered(n: u16, owner: u8) -> AgentRecord {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    let slug = Slug::parse(&format!("a{n}")).unwrap();
    AgentRecord { id: AgentId::from_bytes(id), user: user_id(owner), slug, ..agent(1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_thousand_creates_at_once_as_many_succeed_as_the_quota_allows() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store"), options()).unwrap();
    let creates: Vec<_> = (0..1000)
        .map(|n| {
            let store = store.clone();
            let batch = Batch::create_agent(&numbered(n, 1), port(n), &entry(1), Some(3));
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    let mut outcomes = Vec::new();
    for create in creates {
        outcomes.push(create.await.unwrap());
    }
    let count = |wanted: Result<(), StoreError>| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!((count(Ok(())), count(rejected(Conflict::Quota))), (3, 997));
    assert_eq!(store.load().await.unwrap().agents.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_claims_on_one_port_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store"), options()).unwrap();
    let claims: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            let batch = Batch::create_agent(&numbered(n, 1), port(7), &entry(1), None);
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    let mut won = 0;
    for claim in claims {
        match claim.await.unwrap() {
            Ok(()) => won += 1,
            outcome => assert_eq!(outcome, rejected(Conflict::Port)),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_in_the_queue_when_the_store_closes_is_written_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path, options()).unwrap();
    let creates: Vec<_> = (0..300)
        .map(|n| {
            let store = store.clone();
            let batch = Batch::create_agent(&numbered(n, 1), port(n), &entry(1), None);
            tokio::spawn(async move { (n, store.commit(batch).await) })
        })
        .collect();
    store.close().await;
    let mut acknowledged = Vec::new();
    for create in creates {
        match create.await.unwrap() {
            (n, Ok(())) => acknowledged.push(numbered(n, 1).id),
            (_, outcome) => assert_eq!(outcome, Err(StoreError::Closed)),
        }
    }
    let again = Store::open(&path, options()).unwrap();
    let stored: Vec<_> = again.load().await.unwrap().agents.into_iter().map(|agent| agent.record.id).collect();
    assert_eq!(stored, acknowledged);
}

#[tokio::test]
async fn a_caller_that_stops_waiting_does_not_stop_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store"), options()).unwrap();
    {
        let mut commit = std::pin::pin!(store.commit(create(1)));
        assert!(futures_util::poll!(commit.as_mut()).is_pending());
    }
    store.commit(Batch::touch()).await.unwrap();
    assert!(store.agent(agent_id(1)).await.unwrap().is_some());
}
