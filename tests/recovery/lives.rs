//! Lives of the service, one after the other, on one engine and one disk.

use zeroone::control::{AgentPatch, ControlPlane, NewUser, Settings};
use zeroone::domain::{AgentId, Plan, Status, UserId};
use zeroone::internal::lifecycle::Code;
use zeroone::internal::store::{Batch, commit};
use zeroone::testkit::{self, Cut, FakeDisk, Fakes, new_agent};

use crate::{PATIENCE, answered, status, until};

/// A life of the service on what the last one left, cut off when `work` ends.
fn lives<T>(fakes: &Fakes, disk: &mut FakeDisk, work: impl AsyncFnOnce(ControlPlane) -> T) -> T {
    let outcome = testkit::run_until_killed(fakes, async {
        let plane = testkit::start(fakes, disk, Settings::default()).await.expect("it comes up again");
        work(plane).await
    });
    *disk = disk.next_life();
    outcome
}

#[test]
fn twenty_restarts_of_the_service_cost_the_agents_nothing() {
    let (fakes, mut disk) = (Fakes::new(21), FakeDisk::new());
    let ids: Vec<_> = lives(&fakes, &mut disk, async |plane| {
        let user = NewUser::new("ada@example.com", Plan::Pro);
        let user = plane.create_user(user).await.unwrap().id;
        let mut ids = Vec::new();
        for n in 0..10 {
            let agent = plane.create_agent(user, new_agent(&format!("Agent {n}"))).await.unwrap();
            agent.wait(&[Status::Running], PATIENCE).await.unwrap();
            ids.push(agent.id());
        }
        ids
    });
    let before: Vec<_> = ids.iter().map(|id| fakes.engine().tally(*id)).collect();
    for state in 0..20 {
        lives(&fakes, &mut disk, async |plane| {
            for id in &ids {
                let agent = plane.agent(*id).expect("it was acknowledged");
                answered(&agent, &format!("life {state}")).await;
            }
        });
    }
    for (id, before) in ids.iter().zip(before) {
        let after = fakes.engine().tally(*id);
        assert_eq!((after.starts, after.pairings, after.creates), (before.starts, before.pairings, before.creates));
        assert_eq!(after.messages.len(), 20);
    }
}

#[test]
fn what_happened_while_the_service_was_down_is_found() {
    let (fakes, mut disk) = (Fakes::new(22), FakeDisk::new());
    let names = ["crashed", "removed", "restarted", "stopped for good", "deleted"];
    let ids: Vec<_> = lives(&fakes, &mut disk, async |plane| {
        let user = NewUser::new("ada@example.com", Plan::Pro);
        let user = plane.create_user(user).await.unwrap().id;
        let mut ids = Vec::new();
        for name in names {
            let agent = plane.create_agent(user, new_agent(name)).await.unwrap();
            agent.wait(&[Status::Running], PATIENCE).await.unwrap();
            ids.push(agent.id());
        }
        plane.agent(ids[3]).unwrap().stop().await.unwrap();
        plane.agent(ids[4]).unwrap().delete().await.unwrap();
        ids
    });
    let engine = fakes.engine();
    // Hands are at work between two lives, when no runtime is there to wake anyone.
    assert!(engine.crash(ids[0]) && engine.remove_by_hand(ids[1]) && engine.restart_by_hand(ids[2]));
    lives(&fakes, &mut disk, async |plane| {
        for id in &ids[..3] {
            answered(&plane.agent(*id).unwrap(), "found").await;
        }
        plane.agent(ids[3]).unwrap().wait(&[Status::Stopped], PATIENCE).await.unwrap();
        let deleted = plane.agent(ids[4]);
        assert!(match deleted {
            Some(agent) => agent.gone(PATIENCE).await,
            None => true,
        });
    });
    assert!(engine.observed(ids[4]).is_none() && !engine.volumes().contains(&ids[4]));
    assert!(ids.iter().all(|id| engine.tally(*id).failed_pairings == 0));
}

#[test]
fn a_token_that_is_lost_from_the_store_leads_to_a_new_pairing() {
    let (fakes, mut disk) = (Fakes::new(23), FakeDisk::new());
    let id = lives(&fakes, &mut disk, async |plane| {
        let user = NewUser::new("ada@example.com", Plan::Pro);
        let user = plane.create_user(user).await.unwrap().id;
        let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        let mut record = plane.store().agent(agent.id()).await.unwrap().unwrap().record;
        record.token = None;
        record.state.revision += 1;
        commit(plane.store(), Batch::update_agent(&record, None)).await.unwrap();
        agent.id()
    });
    lives(&fakes, &mut disk, async |plane| {
        let agent = plane.agent(id).unwrap();
        answered(&agent, "still there?").await;
        assert_eq!(status(&agent), Some(Status::Running));
    });
    // The code in the log is spent: it is tried once, then a new one is asked for.
    let tally = fakes.engine().tally(id);
    assert_eq!((tally.creates, tally.pairings - tally.failed_pairings), (1, 2), "{tally:?}");
    assert!(tally.failed_pairings <= 1, "{tally:?}");
}

/// One user, and one agent that runs.
async fn a_user_and_an_agent(plane: &ControlPlane, name: &str) -> (UserId, AgentId) {
    let user = NewUser::new(format!("{name}@example.com"), Plan::Pro);
    let user = plane.create_user(user).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent(name)).await.unwrap();
    agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    (user, agent.id())
}

#[test]
fn a_service_that_is_cut_off_in_any_commit_of_a_deployment_goes_on_where_it_was() {
    for cut in [Cut::Before, Cut::After] {
        // More commits than a deployment has: the last ones are those of an agent that runs.
        for commit in 1..=12 {
            let (fakes, mut disk) = (Fakes::new(31), FakeDisk::new());
            let (user, _) = lives(&fakes, &mut disk, async |plane| a_user_and_an_agent(&plane, "Neighbour").await);
            let id = AgentId::from_bytes([9; 16]);
            let mut acknowledged = false;
            testkit::run_until_killed(&fakes, async {
                let plane = testkit::start(&fakes, &disk, Settings::default()).await.unwrap();
                disk.cut_in(commit, cut);
                let work = async {
                    let new = new_agent("Ada").with_id(id);
                    acknowledged = plane.create_agent(user, new).await.is_ok() && !disk.cut_token().is_cancelled();
                    tokio::time::sleep(PATIENCE).await;
                };
                tokio::select! { biased; () = disk.cut_off() => {}, () = work => {} }
            });
            disk = disk.next_life();
            lives(&fakes, &mut disk, async |plane| {
                let Some(agent) = plane.agent(id) else {
                    assert!(!acknowledged, "{cut:?} {commit}: acknowledged and lost");
                    return;
                };
                answered(&agent, "hi").await;
                assert_eq!(plane.used(user).await, Ok(2), "{cut:?} {commit}");
                let seen = testkit::check(&plane, &*fakes.runtime(), false).await;
                assert_eq!(seen, Ok(Vec::new()), "{cut:?} {commit}");
            });
            let tally = fakes.engine().tally(id);
            // A code that was spent on a token that nobody noted is tried once more, then a new one is asked for.
            assert!(tally.failed_pairings <= 2 && tally.lockouts == 0, "{cut:?} {commit}: {tally:?}");
        }
    }
}

#[test]
fn yesterdays_store_takes_up_what_it_knows_and_adopts_what_is_newer() {
    let (fakes, mut disk) = (Fakes::new(32), FakeDisk::new());
    let (user, kept) = lives(&fakes, &mut disk, async |plane| a_user_and_an_agent(&plane, "Kept").await);
    let deleted = lives(&fakes, &mut disk, async |plane| {
        let agent = plane.create_agent(user, new_agent("Deleted since")).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        agent.id()
    });
    let mut yesterday = disk.next_life();
    disk = disk.next_life();
    let made = lives(&fakes, &mut disk, async |plane| {
        let agent = plane.create_agent(user, new_agent("Made since")).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
        let gone = plane.agent(deleted).unwrap();
        gone.delete().await.unwrap();
        assert!(gone.gone(PATIENCE).await);
        agent.id()
    });
    let starts = fakes.engine().tally(kept).starts.len();
    lives(&fakes, &mut yesterday, async |plane| {
        for id in [kept, deleted] {
            answered(&plane.agent(id).unwrap(), "who am I?").await;
        }
        assert!(plane.agent(made).is_none());
        until("what is newer is adopted", || plane.agent(made).is_some()).await;
        let adopted = plane.agent(made).unwrap();
        until("its key is missing", || {
            let state = &adopted.view().unwrap().record.state;
            let reason = state.reason.as_ref().map(|reason| reason.code);
            (state.status(), reason) == (Status::Error, Some(Code::SecretsMissing))
        })
        .await;
        let key = AgentPatch::default().with_api_key(Some(testkit::API_KEY.into()));
        adopted.update(key).await.unwrap();
        adopted.start().await.unwrap();
        answered(&adopted, "who am I?").await;
        let seen = testkit::check(&plane, &*fakes.runtime(), true).await;
        assert_eq!(seen, Ok(Vec::new()));
    });
    assert_eq!(fakes.engine().tally(kept).starts.len(), starts, "what is known is not started twice");
    assert!(fakes.engine().volumes().contains(&made), "on its own data");
}
