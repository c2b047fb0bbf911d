//! The whole control plane on fakes, under a paused clock: whatever dies comes back, and nothing else notices.
#![cfg(feature = "testkit")]

mod accounts;
mod busy_engine;
mod changes;
mod creation_rule;
mod data;
mod engine;
mod events;
mod keys;
mod lease;
mod lives;
mod lost;
mod messages;
mod model;
mod seams;
mod shutdown;
mod unusable;
mod upgrades;
mod usage;

use std::collections::BTreeSet;
use std::time::Duration;

use zeroone::control::{ActorCrash, AgentHandle, AgentPatch, CommandOutcome, CreateError, DeliveryError};
use zeroone::domain::{AgentId, AgentSpec, Exit, HostPort, Plan, Status};
use zeroone::incident::{Kind, State};
use zeroone::internal::lifecycle::{Code, Phase, Step};
use zeroone::store::{CommitFault, Conflict, LogEntry, StoreError};
use zeroone::testkit::{self, Condition, GatewayBehavior, GatewayFault, Image, TestPlane, message, new_agent};

/// Longer than an agent rests that was given up for the first time, which is a minute less some jitter.
const PATIENCE: Duration = Duration::from_secs(90);

/// Repeats `look` until it is true, in virtual time.
async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !look() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn created(world: &TestPlane, name: &str) -> AgentHandle {
    world.plane.create_agent(world.user, new_agent(name)).await.unwrap()
}

fn status(agent: &AgentHandle) -> Option<Status> {
    agent.view().map(|view| view.status())
}

async fn timeline(agent: &AgentHandle) -> Vec<LogEntry> {
    agent.events(0, usize::MAX).await.unwrap()
}

async fn causes(agent: &AgentHandle) -> Vec<String> {
    timeline(agent).await.into_iter().map(|entry| entry.cause).collect()
}

async fn answered(agent: &AgentHandle, text: &str) {
    let answer = agent.deliver(message(text)).await.unwrap();
    assert_eq!((answer.status, echo(&answer.body)), (200, text.to_owned()));
}

/// What an answer repeats.
fn echo(body: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap();
    answer["response"].as_str().unwrap().strip_prefix("echo: ").unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_agent_comes_up_and_answers() {
    let world = testkit::plane(1, Plan::Free).await;
    let agent = created(&world, "Ada").await;
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    answered(&agent, "hi").await;
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.creates, tally.starts.len(), tally.pairings, tally.failed_pairings), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_gateway_is_paired_with() {
    let world = testkit::plane(2, Plan::Pro).await;
    for behavior in [
        GatewayBehavior::zeroclaw(),
        GatewayBehavior::forgetful(),
        GatewayBehavior::zeroclaw_0_8(),
        GatewayBehavior::instant(),
    ] {
        world.fakes.engine().set_behavior(behavior);
        let agent = world.running("Ada").await;
        answered(&agent, "hi").await;
        assert!(world.fakes.engine().crash(agent.id()));
        answered(&agent, "again").await;
        assert_eq!(world.fakes.engine().tally(agent.id()).failed_pairings, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_one_incident_whose_times_are_in_order() {
    let world = testkit::plane(21, Plan::Pro).await;
    let agent = world.running("Ada").await;
    assert_eq!(agent.incidents().await.unwrap(), []);
    for kill in 1..=3 {
        assert!(world.fakes.engine().end(agent.id(), Exit::with_code(137)));
        until("it recovered", || {
            let view = agent.view().unwrap();
            view.status() == Status::Running && view.record.state.restart_count == kill
        })
        .await;
        let incidents = agent.incidents().await.unwrap();
        assert_eq!(incidents.len() as u64, kill, "{incidents:?}");
        let incident = incidents.last().unwrap();
        assert_eq!((incident.kind, incident.exit_code, incident.state), (Kind::Exit, Some(137), State::Recovered));
        let detected = Some(incident.detected_at);
        let steps = [incident.started_at, incident.healthy_at, incident.paired_at, incident.ended_at];
        assert!(steps.iter().all(Option::is_some), "{incident:?}");
        // The first restart comes at once, later ones after a wait.
        assert_eq!(incident.back_off_at.is_some(), kill > 1, "{incident:?}");
        let waited = incident.back_off_at.or(detected);
        assert!([detected, waited].into_iter().chain(steps).is_sorted(), "{incident:?}");
    }
    let (kind, counted) = world.plane.recoveries()[0];
    assert_eq!((kind, counted.count, counted.buckets().iter().sum::<u64>()), (Kind::Exit, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_creates_at_once_exactly_the_quota_is_granted() {
    let world = testkit::plane(3, Plan::Free).await;
    let creates: Vec<_> = (0..1000)
        .map(|n| {
            let (plane, user) = (world.plane.clone(), world.user);
            tokio::spawn(async move { plane.create_agent(user, new_agent(&format!("Agent {n}"))).await })
        })
        .collect();
    let mut granted = BTreeSet::new();
    let mut refused = 0;
    for create in creates {
        match create.await.unwrap() {
            Ok(agent) => assert!(granted.insert(agent.id())),
            Err(CreateError::Quota { limit: 3, used: 3 }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((granted.len(), refused), (3, 997));
    assert_eq!(world.plane.used(world.user).await, Ok(3));
    let stored = world.plane.store().load().await.unwrap().agents;
    assert_eq!(stored.iter().map(|agent| agent.record.id).collect::<BTreeSet<_>>(), granted);
    assert_eq!(stored.iter().map(|agent| agent.port).collect::<BTreeSet<_>>().len(), 3);
    // A place that is given back can be taken again, once.
    let first = world.plane.agent(*granted.first().unwrap()).unwrap();
    first.delete().await.unwrap();
    assert!(first.gone(PATIENCE).await);
    created(&world, "One more").await;
    let refused = world.plane.create_agent(world.user, new_agent("Too many")).await;
    assert_eq!(refused.err(), Some(CreateError::Quota { limit: 3, used: 3 }));
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_mended_with_the_token_that_was_held() {
    let world = testkit::plane(4, Plan::Free).await;
    let agent = world.running("Ada").await;
    for n in 2..5 {
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(world.fakes.engine().crash(agent.id()));
        answered(&agent, "still there?").await;
        let tally = world.fakes.engine().tally(agent.id());
        assert_eq!((tally.starts.len(), tally.pairings, tally.creates), (n, 1, 1));
    }
    assert!(causes(&agent).await.ends_with(&["token-valid".into()]));
    assert_eq!(agent.view().unwrap().record.state.restart_count, 3);
}

#[tokio::test(start_paused = true)]
async fn messages_in_the_gap_are_held_and_answered_in_order() {
    let world = testkit::plane(5, Plan::Free).await;
    let agent = world.running("Ada").await;
    assert!(world.fakes.engine().crash(agent.id()));
    let sent: Vec<_> = (0..50)
        .map(|n| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.deliver(message(&format!("{n}"))).await })
        })
        .collect();
    for (n, answer) in sent.into_iter().enumerate() {
        assert_eq!(echo(&answer.await.unwrap().unwrap().body), n.to_string());
    }
    let read = world.fakes.engine().tally(agent.id()).messages;
    let texts: Vec<_> = read.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect();
    assert_eq!(texts, (0..50).map(|n| format!("{{\"message\":\"{n}\"}}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_message_is_never_sent_twice_and_never_waits_beyond_its_time() {
    let world = testkit::plane(6, Plan::Free).await;
    let agent = world.running("Ada").await;
    let engine = world.fakes.engine();
    let brief = |text: &str| message(text).with_answer_within(Duration::from_secs(2)).with_hold(Duration::from_secs(3));
    engine.set_gateway_fault(GatewayFault::HangsUp);
    assert!(matches!(agent.deliver(brief("lost")).await, Err(DeliveryError::Unknown(_))));
    engine.set_gateway_fault(GatewayFault::Hung);
    assert_eq!(agent.deliver(brief("hung")).await.unwrap_err(), DeliveryError::TimedOut);
    engine.set_gateway_fault(GatewayFault::Garbage);
    assert!(matches!(agent.deliver(brief("garbage")).await, Err(DeliveryError::Garbage(_))));
    engine.set_gateway_fault(GatewayFault::Fails(408));
    assert_eq!(agent.deliver(brief("slow model")).await.unwrap().status, 408);
    engine.set_gateway_fault(GatewayFault::Slow(Duration::from_secs(1)));
    assert_eq!(agent.deliver(brief("slow")).await.unwrap().status, 200);
    engine.set_gateway_fault(GatewayFault::Well);
    // The engine cannot start it, so it does not become ready: certainly not sent.
    engine.set_condition(Condition::Away);
    engine.crash(agent.id());
    let began = tokio::time::Instant::now();
    assert!(matches!(agent.deliver(brief("too late")).await, Err(DeliveryError::NotReady { .. })));
    assert_eq!(began.elapsed().as_secs(), 3);
    let read = engine.tally(agent.id()).messages;
    let mut texts: Vec<_> = read.iter().map(|message| message.body.clone()).collect();
    texts.dedup();
    assert_eq!(texts.len(), read.len(), "none twice");
    assert!(!texts.iter().any(|text| text.ends_with(b"too late\"}")));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_leads_to_one_new_pairing() {
    let world = testkit::plane(7, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.fakes.engine().forget_tokens(agent.id());
    let sent: Vec<_> = (0..20)
        .map(|n| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.deliver(message(&format!("{n}"))).await })
        })
        .collect();
    for answer in sent {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.pairings - tally.failed_pairings, tally.lockouts), (2, 0), "{tally:?}");
    assert!(tally.failed_pairings <= 2, "{tally:?}");
    let refusals = timeline(&agent).await;
    let refusals =
        refusals.iter().filter(|entry| entry.cause == "token-refused" && entry.from == Status::Running).count();
    assert_eq!(refusals, 1);
}

#[tokio::test(start_paused = true)]
async fn data_that_was_wiped_leads_to_one_new_pairing() {
    let world = testkit::plane(8, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.fakes.engine().wipe(agent.id());
    assert!(world.fakes.engine().restart_by_hand(agent.id()));
    answered(&agent, "who are you?").await;
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.pairings, tally.failed_pairings), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_done_by_hand_is_undone() {
    let world = testkit::plane(9, Plan::Free).await;
    let agent = world.running("Ada").await;
    let (engine, id) = (world.fakes.engine(), agent.id());
    type Hand = fn(&testkit::FakeEngine, AgentId) -> bool;
    let injector: [(&str, Hand); 5] = [
        ("removed", |engine, id| engine.remove_by_hand(id)),
        ("restarted", |engine, id| engine.restart_by_hand(id)),
        ("stopped", |engine, id| engine.end(id, Exit::with_code(143).with_asked(true))),
        ("out of memory", |engine, id| engine.out_of_memory(id)),
        ("paused", |engine, id| engine.pause(id, true)),
    ];
    for (what, hand) in injector {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = agent.view().unwrap().record.state.attempt;
        assert!(hand(engine, id), "{what}");
        until(what, || agent.view().is_some_and(|view| view.record.state.attempt > before)).await;
        agent.wait(&[Status::Running], PATIENCE).await.expect(what);
        answered(&agent, what).await;
    }
    assert_eq!(engine.tally(id).failed_pairings, 0);
    let incidents = agent.incidents().await.unwrap();
    let stopped = incidents.iter().find(|incident| incident.code == "ended-outside").expect("a deed of an operator");
    assert_eq!((stopped.kind, stopped.exit_code), (Kind::Operator, Some(143)));
    let timeline = timeline(&agent).await;
    let told = timeline.iter().find(|entry| entry.cause == "ended-outside").and_then(|entry| entry.detail.as_deref());
    assert!(told.is_some_and(|told| told.starts_with("signal 15 (exit code 143)")), "{told:?}");
    // A stopped agent that somebody starts is stopped again.
    agent.stop().await.unwrap();
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    assert!(engine.start_by_hand(id));
    until("stopped again", || engine.observed(id).is_some_and(|seen| seen.run().is_none())).await;
    assert_eq!(status(&agent), Some(Status::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_death_that_the_engine_mends_is_no_deed_of_an_operator() {
    let world = testkit::plane(26, Plan::Free).await;
    let agent = world.running("Ada").await;
    let oom = Exit::with_code(137).with_oom(true);
    assert!(world.fakes.engine().restart_by_policy(agent.id(), oom));
    answered(&agent, "so soon?").await;
    assert!(world.fakes.engine().restart_by_hand(agent.id()));
    answered(&agent, "and again?").await;
    let incidents = agent.incidents().await.unwrap();
    let told: Vec<_> = incidents.iter().map(|incident| (incident.kind, incident.exit_code)).collect();
    assert_eq!(told, [(Kind::Oom, Some(137)), (Kind::Operator, None)]);
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.creates, tally.pairings), (1, 1), "both runs were taken up as they were");
}

#[tokio::test(start_paused = true)]
async fn a_start_can_be_stopped() {
    let world = testkit::plane(10, Plan::Free).await;
    world.fakes.engine().set_behavior(GatewayBehavior::default().with_boots_in(Duration::from_secs(20)));
    let agent = created(&world, "Ada").await;
    agent.wait(&[Status::Starting], PATIENCE).await.unwrap();
    until("it is up, not yet healthy", || {
        world.fakes.engine().observed(agent.id()).is_some_and(|seen| seen.run().is_some())
    })
    .await;
    assert_eq!(agent.stop().await, Ok(CommandOutcome::Accepted));
    agent.wait(&[Status::Stopped], Duration::from_secs(2)).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(status(&agent), Some(Status::Stopped));
    assert!(world.fakes.engine().observed(agent.id()).unwrap().run().is_none());
    assert_eq!(agent.stop().await, Ok(CommandOutcome::Unchanged));
    world.fakes.engine().set_behavior(GatewayBehavior::default());
    agent.start().await.unwrap();
    answered(&agent, "up again").await;
}

#[tokio::test(start_paused = true)]
async fn deletion_works_in_every_status() {
    let world = testkit::plane(11, Plan::Free).await;
    let engine = world.fakes.engine();
    for &wanted in Status::ALL {
        engine.set_image(Image::Present);
        engine.set_behavior(GatewayBehavior::default());
        let agent = match wanted {
            Status::Pending | Status::Error => {
                engine.set_image(Image::Missing);
                created(&world, "Ada").await
            }
            Status::Starting => {
                engine.set_behavior(GatewayBehavior::default().with_boots_in(PATIENCE));
                created(&world, "Ada").await
            }
            Status::Running => world.running("Ada").await,
            Status::Stopping => {
                engine.set_behavior(GatewayBehavior::default().with_ends_in(None));
                let agent = world.running("Ada").await;
                agent.stop().await.unwrap();
                agent
            }
            Status::Stopped => {
                let agent = world.running("Ada").await;
                agent.stop().await.unwrap();
                agent
            }
        };
        let mut feed = world.plane.feed();
        if wanted == Status::Pending {
            // Too short to be waited for: the deletion is right behind the start in the actor's mailbox.
            agent.wait(&[Status::Error], PATIENCE).await.unwrap();
            let (start, delete) = tokio::join!(agent.start(), agent.delete());
            assert_eq!((start, delete), (Ok(CommandOutcome::Accepted), Ok(CommandOutcome::Accepted)));
        } else {
            agent.wait(&[wanted], PATIENCE).await.unwrap();
            assert_eq!(agent.delete().await, Ok(CommandOutcome::Accepted), "{wanted}");
        }
        assert!(agent.gone(PATIENCE).await, "{wanted}");
        let from = loop {
            let fed = feed.recv().await.unwrap();
            if fed.entry.cause == "delete-requested" {
                break fed.entry.from;
            }
        };
        assert_eq!(from, wanted);
        assert!(engine.observed(agent.id()).is_none() && engine.volumes().is_empty(), "{wanted}");
        assert_eq!(world.plane.used(world.user).await, Ok(0), "{wanted}");
        assert!(world.plane.store().load().await.unwrap().agents.is_empty(), "{wanted}");
        assert_eq!(agent.delete().await, Ok(CommandOutcome::Unchanged));
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_one_actor_is_invisible_to_others() {
    let world = testkit::plane(12, Plan::Free).await;
    let (broken, other) = (world.running("Broken").await, world.running("Other").await);
    let before = other.view().unwrap().record.state.revision;
    world.disk.panic_in_next(1);
    // Its actor is rebuilt from the store in the middle of the command, which is then repeated.
    assert_eq!(broken.stop().await, Ok(CommandOutcome::Accepted));
    assert_eq!(world.disk.panicked(), 1);
    broken.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    answered(&other, "all well?").await;
    assert_eq!(other.view().unwrap().record.state.revision, before);
    assert_eq!(world.fakes.engine().tally(other.id()).starts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_a_kill_of_an_actor_is_mended() {
    let world = testkit::plane(23, Plan::Free).await;
    let (agent, other) = (world.running("Ada").await, world.running("Other").await);
    for crash in [ActorCrash::Panic, ActorCrash::Kill] {
        assert!(world.plane.crash_actor(agent.id(), crash));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(agent.stop().await, Ok(CommandOutcome::Accepted), "the next actor follows");
        agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
        agent.start().await.unwrap();
        answered(&agent, "hi").await;
        let crashes = || {
            let counts = world.plane.actor_counts();
            counts.panicked + counts.killed
        };
        let before = crashes();
        world.plane.crash_registry(crash);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(crashes(), before + 1, "{crash:?}");
        assert_eq!(world.plane.used(world.user).await, Ok(2));
        let third = world.running("Third").await;
        third.delete().await.unwrap();
        assert!(third.gone(PATIENCE).await);
    }
    assert_eq!(world.fakes.engine().tally(other.id()).starts.len(), 1);
    assert!(!world.plane.crash_actor(AgentId::from_bytes([9; 16]), ActorCrash::Kill), "it has no actor");
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_actor_goes_on_with_the_run_it_finds() {
    let world = testkit::plane(13, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.disk.panic_in_next(1);
    // A change is not repeated: it says what it was based on.
    let mut renamed = AgentSpec::clone(&agent.view().unwrap().record.spec);
    renamed.name = "Eve".into();
    assert!(agent.update(AgentPatch::default().with_spec(renamed)).await.is_err());
    answered(&agent, "still you?").await;
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.starts.len(), tally.pairings), (1, 1), "a crash of ours costs the agent nothing");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_crashes_is_rebuilt_from_the_store() {
    let world = testkit::plane(14, Plan::Free).await;
    let agent = world.running("Ada").await;
    for n in 0..3 {
        world.disk.panic_in_next(1);
        assert!(world.plane.create_agent(world.user, new_agent("Lost")).await.is_err());
        assert_eq!(world.disk.panicked(), n + 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.plane.used(world.user).await, Ok(1));
    }
    let second = world.running("Second").await;
    assert_ne!(second.view().unwrap().port, agent.view().unwrap().port);
    answered(&agent, "hi").await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_cannot_live_is_rebuilt_less_and_less_often() {
    let world = testkit::plane(15, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.disk.panic_in_next(u64::MAX / 2);
    assert!(world.fakes.engine().crash(agent.id()));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let crashes = world.disk.panicked();
    assert!((5..=30).contains(&crashes), "{crashes} rebuilds in ten minutes");
    world.disk.panic_in_next(0);
    let back = async {
        until("it is back", || status(&agent) == Some(Status::Running) && agent.view().unwrap().access.is_some()).await
    };
    tokio::time::timeout(Duration::from_secs(61), back).await.unwrap();
    answered(&agent, "hi").await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_no_death() {
    let world = testkit::plane(16, Plan::Free).await;
    let (well, dead) = (world.running("Well").await, world.running("Dead").await);
    let engine = world.fakes.engine();
    for condition in [Condition::Away, Condition::Hangs] {
        engine.set_condition(condition);
        tokio::time::sleep(Duration::from_secs(120)).await;
        answered(&well, "who needs an engine?").await;
        assert_eq!(status(&dead), Some(Status::Running));
        engine.crash(dead.id());
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(dead.vitals().unknown_since.is_some());
        assert_ne!(status(&dead), Some(Status::Error), "nothing is known of it");
        engine.set_condition(Condition::Answers);
        answered(&dead, "back?").await;
        assert_eq!(dead.vitals().unknown_since, None);
    }
    assert_eq!(engine.tally(well.id()).starts.len(), 1);
    assert_eq!(well.view().unwrap().record.state.restart_count, 0);
}

/// The port that the first agent of a control plane gets.
async fn first_port(seed: u64) -> HostPort {
    testkit::plane(seed, Plan::Pro).await.running("Ada").await.view().unwrap().port.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_port_that_a_stranger_holds_is_left_alone() {
    let first = first_port(17).await;
    let world = testkit::plane(17, Plan::Pro).await;
    let engine = world.fakes.engine();
    engine.take_port(first);
    let agent = world.running("Ada").await;
    assert!(causes(&agent).await.contains(&"port-taken".into()), "{:?}", causes(&agent).await);
    let port = agent.view().unwrap().port.unwrap();
    assert_ne!(port, first);
    // Also of an agent that had it for long.
    engine.take_port(port);
    engine.crash(agent.id());
    answered(&agent, "moved").await;
    let moved = agent.view().unwrap().port.unwrap();
    assert!(moved != port && moved != first);
    let mut taken = BTreeSet::from([first, port, moved]);
    for n in 0..10 {
        let port = world.running(&format!("Agent {n}")).await.view().unwrap().port.unwrap();
        assert!(taken.insert(port), "{port} is held or quarantined");
    }
    assert_eq!(engine.tally(agent.id()).failed_pairings, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_port_whose_answer_is_lost_leaves_one_port() {
    let first = first_port(24).await;
    // Whichever of a deployment's commits it is whose answer is lost.
    for commit in 1..=10 {
        let world = testkit::plane(24, Plan::Pro).await;
        let engine = world.fakes.engine();
        engine.take_port(first);
        let before = world.disk.memory().commits();
        world.disk.memory().fail_commit(commit, CommitFault::After);
        let id = AgentId::from_bytes([7; 16]);
        // One whose own create is the commit is there all the same.
        let _ = world.plane.create_agent(world.user, new_agent("Ada").with_id(id)).await;
        until("the agent is there", || world.plane.agent(id).is_some()).await;
        let agent = world.plane.agent(id).unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        answered(&agent, "hi").await;
        let stored = world.plane.store().agent(id).await.unwrap().unwrap().port;
        let runs_on = engine.observed(id).unwrap().run().unwrap().endpoint.port();
        assert_eq!((agent.view().unwrap().port, runs_on), (stored, stored.unwrap().get()), "commit {commit}");
        let causes = causes(&agent).await;
        assert!(causes.contains(&"port-taken".into()), "commit {commit}: {causes:?}");
        assert!(!causes.contains(&"internal".into()), "commit {commit}: {causes:?}");
        // Whoever does not know what was written reads it anew.
        let was_lost = world.disk.memory().commits() >= before + commit;
        assert_eq!(world.plane.actor_counts().failed, u64::from(was_lost), "commit {commit}");
        // A deployment may take fewer commits: then the failure must not meet the next one.
        world.disk.memory().clear_faults();
        let next = world.running("Next").await.view().unwrap().port;
        assert_ne!(next, stored, "commit {commit}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_repeated_is_refused_and_takes_nothing_away() {
    let world = testkit::plane(25, Plan::Free).await;
    let new = new_agent("Ada");
    let agent = world.plane.create_agent(world.user, new.clone()).await.unwrap();
    for _ in 0..3 {
        let again = world.plane.create_agent(world.user, new.clone()).await;
        assert_eq!(again.err(), Some(CreateError::Store(StoreError::Rejected(Conflict::Exists))));
    }
    assert_eq!(world.plane.used(world.user).await, Ok(1));
    let other = world.running("Other").await.view().unwrap().port;
    assert_ne!(agent.wait(&[Status::Running], PATIENCE).await.unwrap().port, other, "its port is its own");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_ends_in_error_and_keeps_to_its_waits() {
    let world = testkit::plane(18, Plan::Free).await;
    let engine = world.fakes.engine();
    let agent = world.running("Ada").await;
    let exit = Exit::with_code(3);
    engine.set_dying(agent.id(), Some((Duration::from_millis(500), exit.clone())));
    engine.end(agent.id(), exit);
    // Whenever it waits, the wait that it shows is the wait that it keeps.
    let mut kept = 0;
    let mut views = Vec::new();
    while status(&agent) != Some(Status::Error) {
        let view = agent.view().unwrap();
        let waits = matches!(&view.record.state.phase, Phase::Starting { step: Step::BackingOff { .. }, .. });
        if let Some(due) = view.record.state.next_attempt_at().filter(|_| waits)
            && views.last() != Some(&due)
        {
            views.push(due);
            let revision = view.record.state.revision;
            until("the wait ends", || agent.view().unwrap().record.state.revision > revision).await;
            let late = world.plane.now().duration_since(due);
            assert!(late >= jiff::SignedDuration::ZERO && late.as_millis() <= 1, "{late:?}");
            kept += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let starts = engine.tally(agent.id()).starts.len();
    assert!(kept >= 5 && starts <= 11, "{kept} waits, {starts} starts");
    let view = agent.view().unwrap();
    assert_eq!(view.record.state.reason.as_ref().map(|reason| reason.code), Some(Code::CrashLoop));
    let explanation = agent.explain().unwrap();
    assert!(explanation.because.contains("exit code 3"), "{}", explanation.because);
    let due = explanation.next_at.unwrap();
    let mut others = created(&world, "Other").await.wait(&[Status::Running], PATIENCE).await.unwrap();
    // It is tried again by itself, to the millisecond, and mends when the cause is gone.
    engine.set_dying(agent.id(), None);
    tokio::time::sleep(Duration::try_from(due.duration_since(world.plane.now())).unwrap() - Duration::from_millis(2))
        .await;
    assert_eq!(status(&agent), Some(Status::Error));
    tokio::time::sleep(Duration::from_millis(4)).await;
    assert_ne!(status(&agent), Some(Status::Error));
    answered(&agent, "mended").await;
    others = world.plane.agent(others.record.id).unwrap().view().unwrap();
    assert_eq!(others.record.state.attempt, 1, "nobody else was touched");
}

#[tokio::test(start_paused = true)]
async fn ten_fast_crashes_leave_one_token_that_works_and_no_lockout() {
    for behavior in [GatewayBehavior::zeroclaw(), GatewayBehavior::forgetful()] {
        let world = testkit::plane(19, Plan::Free).await;
        world.fakes.engine().set_behavior(behavior);
        // One whose jitter takes nothing off its rest.
        let new = new_agent("Ada").with_id(AgentId::from_bytes([76; 16]));
        let agent = world.plane.create_agent(world.user, new).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        for _ in 0..9 {
            until("it runs", || world.fakes.engine().crash(agent.id())).await;
        }
        answered(&agent, "hi").await;
        let tally = world.fakes.engine().tally(agent.id());
        assert_eq!((tally.lockouts, tally.failed_pairings), (0, 0), "{tally:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_start_says_why() {
    let world = testkit::plane(20, Plan::Pro).await;
    let engine = world.fakes.engine();
    let unpaired = GatewayBehavior::default().with_requires_pairing(false);
    let cases: [(Image, GatewayBehavior, GatewayFault, Code); 5] = [
        (Image::Missing, GatewayBehavior::default(), GatewayFault::Well, Code::CannotRun),
        (Image::Unreachable, GatewayBehavior::default(), GatewayFault::Well, Code::RuntimeUnavailable),
        (Image::Present, unpaired, GatewayFault::Well, Code::PairingDisabled),
        (Image::Present, GatewayBehavior::default(), GatewayFault::Unwell, Code::CrashLoop),
        (
            Image::Present,
            GatewayBehavior::default().with_prints_code_after(PATIENCE),
            GatewayFault::Well,
            Code::CrashLoop,
        ),
    ];
    for (image, behavior, gateway_fault, code) in cases {
        engine.set_image(image);
        engine.set_behavior(behavior);
        engine.set_gateway_fault(gateway_fault);
        let agent = created(&world, "Ada").await;
        let view = agent.wait(&[Status::Error], PATIENCE * 10).await.unwrap();
        assert_eq!(view.record.state.reason.as_ref().map(|reason| reason.code), Some(code));
        until("nothing is left running", || engine.observed(agent.id()).is_none_or(|seen| seen.run().is_none())).await;
        // When the cause is gone, a start is enough.
        engine.set_image(Image::Present);
        engine.set_behavior(GatewayBehavior::default());
        engine.set_gateway_fault(GatewayFault::Well);
        agent.start().await.unwrap();
        answered(&agent, "at last").await;
    }
}
