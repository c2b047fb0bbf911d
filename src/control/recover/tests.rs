use std::collections::HashSet;

use super::*;
use crate::domain::{ChannelKind, Exit, RunId, Slug};
use crate::runtime::{InstanceKey, Run};
use crate::store::{MemoryDisk, Snapshot, StoreOptions};

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn spec(provider: &str) -> AgentSpec {
    AgentSpec::new("Ada", Provider::parse(provider).unwrap(), "m")
}

fn running(port: u16) -> InstanceState {
    let endpoint = ([127, 0, 0, 1], port).into();
    InstanceState::Running(Run { run_id: RunId("b".into()), started_at: Timestamp::UNIX_EPOCH, endpoint })
}

fn found(n: u8, slug: &str, state: InstanceState, origin: Option<Origin>) -> Found {
    let key = InstanceKey { agent: AgentId::from_bytes([n; 16]), slug: Slug::parse(slug).unwrap() };
    let seen = ObservedInstance {
        key,
        state,
        engine_id: "e".into(),
        spec_hash: "h".into(),
        died: None,
        created_now: false,
        data_created_now: false,
    };
    Found { seen, origin }
}

fn of(owner: u8, provider: &str, channels: &[ChannelKind]) -> Option<Origin> {
    let created_at = Timestamp::UNIX_EPOCH;
    Some(Origin { user: user(owner), created_at, spec: Arc::new(spec(provider)), channels: channels.to_vec() })
}

fn planned(found: Vec<Found>) -> Recovery {
    plan(found, "ada@example.org", Timestamp::UNIX_EPOCH).unwrap()
}

#[tokio::test]
async fn store_of_a_control_plane_is_not_filled() {
    let store = Store::in_memory(MemoryDisk::new(), StoreOptions::default()).unwrap();
    let recovery = planned(vec![found(7, "ada", InstanceState::Created, of(1, "ollama", &[]))]);
    store.take();
    assert!(matches!(write(&store, &recovery).await, Err(RecoverError::InUse)));
    assert_eq!(store.load().await.unwrap(), Snapshot::default());
}

#[test]
fn what_is_missing_decides_what_becomes_of_an_agent() {
    let exited = || InstanceState::Exited(Exit::default());
    for (state, origin, missing, status) in [
        (running(40_001), of(1, "ollama", &[]), vec![], Status::Pending),
        (exited(), of(1, "ollama", &[]), vec![], Status::Stopped),
        (InstanceState::Created, of(1, "ollama", &[]), vec![], Status::Stopped),
        (running(40_001), of(1, "openai", &[]), vec!["apiKey"], Status::Error),
        (exited(), of(1, "ollama", &[ChannelKind::Slack]), vec!["channels"], Status::Error),
        (exited(), of(1, "groq", &[ChannelKind::Discord]), vec!["apiKey", "channels"], Status::Error),
        (running(40_001), None, vec!["provider", "model", "apiKey"], Status::Error),
    ] {
        let plan = planned(vec![found(7, "ada", state, origin)]);
        let [agent] = &plan.agents[..] else { panic!("{plan:?}") };
        assert_eq!((&agent.missing, agent.record.state.status()), (&missing, status));
        let reason = agent.record.state.reason.as_ref().unwrap();
        assert_eq!(reason.code == Code::SecretsMissing, !missing.is_empty());
        let named = missing.iter().all(|name| reason.message().contains(name));
        assert!(named, "the owner is told: {}", reason.message());
        assert!(agent.record.api_key.is_none() && agent.record.token.is_none() && agent.record.channels.is_none());
    }
}

#[test]
fn ports_in_use_are_kept_and_none_is_given_twice() {
    let plan = planned(vec![
        found(1, "a", InstanceState::Created, None),
        found(2, "b", running(40_000), None),
        found(3, "c", running(40_000), None),
        found(4, "d", running(80), None),
    ]);
    let ports: Vec<u16> = plan.agents.iter().map(|agent| agent.port.unwrap().get()).collect();
    assert_eq!(ports[1], 40_000);
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 4, "{ports:?}");
}

#[test]
fn a_container_reached_by_its_own_address_tells_no_port_of_the_host() {
    let mut seen = found(1, "a", running(40_005), None).seen;
    assert_eq!(port_of(&seen).map(HostPort::get), Some(40_005));
    let InstanceState::Running(run) = &mut seen.state else { unreachable!() };
    run.endpoint = ([172, 18, 0, 2], 42_617).into();
    assert_eq!(port_of(&seen), None);
}

#[test]
fn owners_are_kept_and_named_as_well_as_can_be() {
    let emails = |plan: &Recovery| plan.users.iter().map(|user| user.email.clone()).collect::<Vec<_>>();
    let one = planned(vec![
        found(1, "a", InstanceState::Created, of(1, "ollama", &[])),
        found(2, "b", InstanceState::Created, None),
    ]);
    assert_eq!((emails(&one), one.users[0].id), (vec!["ada@example.org".to_owned()], user(1)));
    assert!(one.agents.iter().all(|agent| agent.record.user == user(1)));

    let several = planned(vec![
        found(1, "a", InstanceState::Created, of(1, "ollama", &[])),
        found(2, "b", InstanceState::Created, of(2, "ollama", &[])),
        found(3, "c", InstanceState::Created, None),
    ]);
    let of_agent = |n: usize| several.agents[n].record.user;
    assert_eq!((of_agent(0), of_agent(1)), (user(1), user(2)));
    let fallback = several.users.iter().find(|user| user.email == "ada@example.org").unwrap();
    assert_eq!((of_agent(2), several.users.len()), (fallback.id, 3));
    assert!(emails(&several).contains(&format!("{}@recovered.invalid", user(1))));
}

#[test]
fn an_agent_that_is_shown_twice_is_recorded_once() {
    let plan = planned(vec![found(1, "a", running(40_001), None), found(1, "a", InstanceState::Created, None)]);
    assert_eq!((plan.agents.len(), plan.agents[0].port.unwrap().get()), (1, 40_001));
}

#[tokio::test]
async fn store_that_has_a_user_and_no_agent_is_not_empty() {
    let store = Store::in_memory(MemoryDisk::new(), StoreOptions::default()).unwrap();
    let grace = UserRecord::new(user(9), "grace@example.org", Plan::Free, Timestamp::UNIX_EPOCH);
    store.commit(Batch::put_user(&grace)).await.unwrap();
    let recovery = planned(vec![found(7, "ada", InstanceState::Created, of(1, "ollama", &[]))]);
    assert!(matches!(write(&store, &recovery).await, Err(RecoverError::NotEmpty)));
    assert!(store.load().await.unwrap().agents.is_empty());
}

#[test]
fn record_tells_which_run_may_be_left_and_when_it_was_made() {
    let now = Timestamp::from_second(1000).unwrap();
    for (state, run) in [(running(40_001), Some(RunId("b".into()))), (InstanceState::Created, None)] {
        let plan = plan(vec![found(7, "ada", state, of(1, "ollama", &[]))], "ada@example.org", now).unwrap();
        let record = &plan.agents[0].record;
        assert_eq!((record.created_at, record.updated_at), (Timestamp::UNIX_EPOCH, now));
        assert_eq!((record.state.engine_id.as_deref(), &record.state.leftover), (Some("e"), &run));
    }
}
