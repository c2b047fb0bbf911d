//! What happens between two parts of the control plane: calls that hang, panic or come late, and commits that fail.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zeroone::control::{
    ActorCrash, AgentPatch, Agents, CommandError, ControlPlane, DeliveryError, KeeperError, KeyKeeper, NewUser,
};
use zeroone::domain::{AgentId, Plan, Secret, Status, UserId};
use zeroone::store::{CommitFault, Store, StoreOptions};
use zeroone::testkit::{self, Call, FakeDisk, Fakes, Fault, Faults, GatewayBehavior, Image, message, new_agent};
use zeroone::vault::{MasterKey, MasterKeySource, Vault};

use crate::{PATIENCE, answered, causes, status, until};

/// Stop grace and one engine call.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

struct Faulty {
    fakes: Fakes,
    faults: Faults,
    disk: FakeDisk,
    plane: ControlPlane,
    user: UserId,
}

async fn faulty(seed: u64, plan: Plan) -> Faulty {
    let (fakes, faults, disk) = (Fakes::new(seed), Faults::new(seed), FakeDisk::new());
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(disk.clone(), options).unwrap();
    let plane = ControlPlane::builder(store, testkit::vault(), faults.runtime(fakes.runtime()))
        .gateway(faults.gateway(fakes.gateway()))
        .clock(fakes.clock())
        .start()
        .await
        .unwrap();
    let user = NewUser::new("ada@example.com", plan);
    let user = plane.create_user(user).await.unwrap().id;
    Faulty { fakes, faults, disk, plane, user }
}

impl Faulty {
    async fn running(&self, name: &str) -> zeroone::control::AgentHandle {
        let agent = self.plane.create_agent(self.user, new_agent(name)).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        agent
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_is_noticed_at_once_while_the_list_of_instances_hangs() {
    let world = faulty(101, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.faults.next(Call::List, Fault::Hang);
    let before = world.faults.injected();
    while world.faults.injected() == before {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let starts = world.fakes.engine().tally(agent.id()).starts.len();
    assert!(world.fakes.engine().crash(agent.id()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.fakes.engine().tally(agent.id()).starts.len(), starts + 1);
    assert_eq!(status(&agent), Some(Status::Running));
}

#[tokio::test(start_paused = true)]
async fn an_observation_that_panics_does_not_blind_the_agent() {
    let world = faulty(102, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.faults.next(Call::Observe, Fault::Panic);
    assert!(world.fakes.engine().crash(agent.id()));
    until("the panic", || world.plane.actor_counts().task_panics == 1).await;
    answered(&agent, "are you there?").await;
    assert_eq!(world.plane.actor_counts().panicked, 0, "its actor lives");
}

#[tokio::test(start_paused = true)]
async fn a_death_within_the_start_call_has_its_own_reason() {
    let world = faulty(103, Plan::Free).await;
    world.faults.next(Call::Start, Fault::DelayAnswer(Duration::from_secs(2)));
    let agent = world.plane.create_agent(world.user, new_agent("Ada")).await.unwrap();
    until("it runs", || world.fakes.engine().observed(agent.id()).is_some_and(|seen| seen.run().is_some())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.fakes.engine().crash(agent.id()));
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let causes: Vec<_> = agent.events(0, usize::MAX).await.unwrap().into_iter().map(|entry| entry.cause).collect();
    assert!(causes.contains(&"exited".to_owned()), "{causes:?}");
    assert!(!causes.contains(&"health-timeout".to_owned()), "{causes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_certainly_not_written_is_repeated_by_the_same_actor() {
    let world = faulty(104, Plan::Free).await;
    let agent = world.running("Ada").await;
    for commit in 1..=3 {
        world.disk.memory().fail_commit(commit, CommitFault::Before);
    }
    assert!(world.fakes.engine().crash(agent.id()));
    let died = tokio::time::Instant::now();
    until("it is started again", || agent.view().unwrap().record.state.restart_count == 1).await;
    assert!(died.elapsed() < Duration::from_secs(1), "not only at the next look: {:?}", died.elapsed());
    answered(&agent, "are you there?").await;
    let counts = world.plane.actor_counts();
    assert_eq!((counts.failed, counts.panicked, counts.killed), (0, 0, 0), "the actor was not rebuilt");
    assert_eq!(agent.view().unwrap().record.state.restart_count, 1);
}

/// How many actors failed, panicked and were killed so far.
fn ends(world: &Faulty) -> (u64, u64, u64) {
    let counts = world.plane.actor_counts();
    (counts.failed, counts.panicked, counts.killed)
}

#[tokio::test(start_paused = true)]
async fn ends_of_actors_are_counted_by_kind_and_those_that_were_meant_are_not() {
    let world = faulty(114, Plan::Free).await;
    let agent = world.running("Ada").await;
    // Nothing was written: the command is refused, and the actor goes on.
    world.disk.memory().fail_commit(1, CommitFault::Before);
    assert!(matches!(agent.stop().await, Err(CommandError::Store(_))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((status(&agent), ends(&world)), (Some(Status::Running), (0, 0, 0)));
    // Nobody knows what was written: the actor ends, and the next one reads it.
    world.disk.memory().fail_commit(1, CommitFault::After);
    let _ = agent.stop().await;
    agent.wait(&[Status::Stopped], PATIENCE).await.unwrap();
    assert_eq!(ends(&world), (1, 0, 0));
    let crashes = [(ActorCrash::Panic, (1, 1, 0)), (ActorCrash::Kill, (1, 1, 1))];
    for (crash, counted) in crashes {
        until("there is an actor", || world.plane.crash_actor(agent.id(), crash)).await;
        until("it is counted", || ends(&world) == counted).await;
    }
    for (crash, counted) in [(ActorCrash::Panic, (1, 2, 1)), (ActorCrash::Kill, (1, 2, 2))] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.plane.crash_registry(crash);
        until("it is counted", || ends(&world) == counted).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    world.running("Eve").await;
    world.plane.shutdown(Agents::Leave).await;
    assert_eq!(ends(&world), (1, 2, 2), "neither a deletion nor a shutdown is a crash");
    assert!(world.plane.actor_counts().commands >= 3);
}

/// Keeps the keys in memory.
#[derive(Debug)]
struct Keys(Mutex<Secret<String>>);

impl KeyKeeper for Keys {
    fn load(&self) -> BoxFuture<'_, Result<MasterKey, KeeperError>> {
        async { MasterKey::load(MasterKeySource::Value(self.0.lock().unwrap().clone())).map_err(KeeperError::new) }
            .boxed()
    }

    fn keep<'a>(&'a self, ring: &'a MasterKey) -> BoxFuture<'a, Result<(), KeeperError>> {
        async {
            *self.0.lock().unwrap() = ring.to_text();
            Ok(())
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn agent_shows_the_secrets_that_are_stored_also_when_a_change_of_keys_fails() {
    let (fakes, disk, keys) = (Fakes::new(118), FakeDisk::new(), MasterKey::generate());
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let store = Store::in_memory(disk.clone(), options).unwrap();
    let plane = ControlPlane::builder(store, Vault::new(&keys), fakes.runtime())
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .key_keeper(Keys(Mutex::new(keys.to_text())))
        .start()
        .await
        .unwrap();
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    let stored = async || plane.store().agent(agent.id()).await.unwrap().unwrap().record;
    let before = stored().await;
    // The first commit says that it begins; the second one is the agent's.
    disk.memory().fail_commit(2, CommitFault::Before);
    assert!(plane.rotate_master_key().await.is_err());
    assert_eq!((&agent.view().unwrap().record, &stored().await), (&before, &before));
    plane.rotate_master_key().await.unwrap();
    let after = stored().await;
    assert_eq!(agent.view().unwrap().record, after);
    assert!(after.api_key != before.api_key && after.token != before.token);
    answered(&agent, "hi").await;
}

#[tokio::test(start_paused = true)]
async fn run_whose_start_was_not_answered_is_taken_up_as_it_is() {
    let world = faulty(115, Plan::Free).await;
    world.faults.next(Call::Start, Fault::LoseAnswer);
    let agent = world.plane.create_agent(world.user, new_agent("Ada")).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    answered(&agent, "hi").await;
    let tally = world.fakes.engine().tally(agent.id());
    assert_eq!((tally.starts.len(), tally.creates, tally.failed_pairings), (1, 1, 0));
    let causes = causes(&agent).await;
    assert!(causes.contains(&"runtime-unavailable".into()) && !causes.contains(&"internal".into()), "{causes:?}");
}

#[tokio::test(start_paused = true)]
async fn gateway_that_does_not_say_yet_whether_it_takes_the_token_is_asked_again() {
    let world = faulty(116, Plan::Free).await;
    let agent = world.running("Ada").await;
    for _ in 0..20 {
        world.faults.next(Call::Token, Fault::Fail);
    }
    assert!(world.fakes.engine().crash(agent.id()));
    answered(&agent, "hi").await;
    let causes = causes(&agent).await;
    assert!(!causes.contains(&"health-timeout".into()), "{causes:?}");
    assert_eq!(world.fakes.engine().tally(agent.id()).starts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn running_gateway_is_asked_once_a_minute_whether_it_is_usable() {
    let world = faulty(117, Plan::Free).await;
    let _agent = world.running("Ada").await;
    let calls = || (world.faults.calls(Call::Health), world.faults.calls(Call::Token));
    let before = calls();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (health, token) = (calls().0 - before.0, calls().1 - before.1);
    assert!((55..=61).contains(&health) && (8..=10).contains(&token), "{health} {token}");
}

#[tokio::test(start_paused = true)]
async fn a_message_follows_only_when_the_one_before_is_on_its_way() {
    let world = faulty(105, Plan::Free).await;
    let agent = world.running("Ada").await;
    world.faults.next(Call::Webhook, Fault::DelayCall(Duration::from_millis(500)));
    let sent: Vec<_> = (0..3)
        .map(|n| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.deliver(message(&format!("{n}"))).await })
        })
        .collect();
    for answer in sent {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    let read = world.fakes.engine().tally(agent.id()).messages;
    let texts: Vec<_> = read.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect();
    assert_eq!(texts, (0..3).map(|n| format!("{{\"message\":\"{n}\"}}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_step_that_it_supersedes() {
    let slow_boot = GatewayBehavior::zeroclaw().with_boots_in(Duration::from_secs(20));
    let late_code = GatewayBehavior::zeroclaw().with_prints_code_after(Duration::from_secs(10));
    let well = GatewayBehavior::zeroclaw();
    let cases = [(slow_boot, Image::Present), (late_code, Image::Present), (well, Image::Slow(PATIENCE))];
    for (behavior, image) in cases {
        let world = faulty(106, Plan::Free).await;
        world.fakes.engine().set_behavior(behavior);
        world.fakes.engine().set_image(image);
        let agent = world.plane.create_agent(world.user, new_agent("Ada")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&agent), Some(Status::Starting));
        agent.stop().await.unwrap();
        agent.wait(&[Status::Stopped], STOPPED_WITHIN).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_changes_at_once_none_is_lost() {
    let world = faulty(107, Plan::Free).await;
    let agent = world.running("Ada").await;
    let spec = (*agent.view().unwrap().record.spec).clone();
    let mut renamed = spec.clone();
    renamed.name = "Grace".into();
    let mut warmer = spec;
    warmer.temperature = Some(1.1);
    let patch = |spec| AgentPatch::default().with_if_generation(1).with_spec(spec);
    let (first, second) = tokio::join!(agent.update(patch(renamed)), agent.update(patch(warmer)));
    assert_eq!([&first, &second].into_iter().filter(|outcome| outcome.is_ok()).count(), 1, "{first:?} {second:?}");
    assert!([first, second].contains(&Err(CommandError::Stale)));
    assert_eq!(agent.view().unwrap().record.state.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_of_a_known_generation_loses_against_a_change() {
    let world = faulty(108, Plan::Free).await;
    let agent = world.running("Ada").await;
    let mut spec = (*agent.view().unwrap().record.spec).clone();
    spec.name = "Grace".into();
    let patch = AgentPatch::default().with_spec(spec);
    let (changed, deleted) = tokio::join!(agent.update(patch), agent.delete_if(1));
    changed.unwrap();
    assert_eq!(deleted, Err(CommandError::Stale));
    agent.delete_if(2).await.unwrap();
    assert!(agent.gone(PATIENCE).await);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_not_stored_takes_nothing() {
    let world = faulty(109, Plan::Free).await;
    for fault in [CommitFault::Before, CommitFault::Before] {
        world.disk.memory().fail_commit(1, fault);
        assert!(world.plane.create_agent(world.user, new_agent("Ada")).await.is_err());
        assert_eq!(world.plane.used(world.user).await, Ok(0));
    }
    world.running("Ada").await;
    assert_eq!(world.plane.used(world.user).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_queue_of_an_agent_are_refused() {
    let world = faulty(110, Plan::Free).await;
    let agent = world.running("Ada").await;
    let slow = GatewayBehavior::zeroclaw().with_boots_in(Duration::from_secs(5));
    world.fakes.engine().set_behavior(slow);
    agent.restart().await.unwrap();
    let sent: Vec<_> = (0..300)
        .map(|n| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.deliver(message(&format!("{n}"))).await })
        })
        .collect();
    let mut refused = 0;
    for answer in sent {
        match answer.await.unwrap() {
            Ok(answer) => assert_eq!(answer.status, 200),
            Err(error) => {
                assert_eq!(error, DeliveryError::QueueFull);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 44);
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_not_given_to_a_user_who_was_removed_meanwhile() {
    let world = faulty(111, Plan::Free).await;
    let (removed, changed) =
        tokio::join!(world.plane.remove_user(world.user), world.plane.set_plan(world.user, Plan::Pro, None));
    removed.unwrap();
    assert!(changed.is_err());
    assert!(world.plane.accounts().user(world.user).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_jobs_and_refuses_messages_on_hold() {
    let world = faulty(112, Plan::Free).await;
    world.fakes.engine().set_image(Image::Slow(Duration::from_secs(600)));
    let agent = world.plane.create_agent(world.user, new_agent("Ada")).await.unwrap();
    let held = {
        let agent = agent.clone();
        tokio::spawn(async move { agent.deliver(message("hi")).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    world.plane.shutdown(Agents::Leave).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(held.await.unwrap().err(), Some(DeliveryError::Closing));
    let creates = world.fakes.engine().tally(agent.id()).creates;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(world.fakes.engine().tally(agent.id()).creates, creates, "nothing goes on");
}

/// Of an agent that a user removed, as an engine shows it that carries out a late call.
async fn shown_again(fakes: &Fakes, agent: AgentId) -> bool {
    use zeroone::runtime::ContainerRuntime as _;
    fakes.runtime().list_owned().await.unwrap().iter().any(|seen| seen.key.agent == agent)
}

#[tokio::test(start_paused = true)]
async fn what_this_store_deleted_is_removed_under_every_policy() {
    use std::sync::Arc;
    use zeroone::control::{Orphans, Settings};
    use zeroone::domain::HostPort;
    use zeroone::runtime::{ContainerRuntime as _, InstanceKey, InstanceSpec};

    let (fakes, disk) = (Fakes::new(113), FakeDisk::new());
    let settings = Settings::default().with_orphans(Orphans::Report);
    let plane = testkit::start(&fakes, &disk, settings).await.unwrap();
    let user = NewUser::new("ada@example.com", Plan::Free);
    let user = plane.create_user(user).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
    let view = agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    agent.delete().await.unwrap();
    assert!(agent.gone(PATIENCE).await);
    let late = |agent: AgentId| {
        let key = InstanceKey { agent, slug: view.record.slug.clone() };
        InstanceSpec::new(key, vec!["gateway".into()], Plan::Free.limits()).with_port(HostPort::try_from(49_999).ok())
    };
    // A call of a dead service lands late; and an instance that this store never had.
    let unknown = AgentId::new();
    let runtime = Arc::new(fakes.runtime());
    runtime.ensure_created(&late(agent.id())).await.unwrap();
    runtime.ensure_created(&late(unknown)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!shown_again(&fakes, agent.id()).await, "its deletion was asked for");
    assert!(shown_again(&fakes, unknown).await, "data that may be someone's is kept");
    assert_eq!(plane.orphans(), 1);
}
