//! A store that is lost, and instances that no store knows.

use std::time::Duration;

use zeroone::control::recover::{self, RecoverError};
use zeroone::control::{AgentHandle, AgentPatch, Agents, Orphans, Settings};
use zeroone::domain::{Credentials, Plan, Provider, Status};
use zeroone::internal::lifecycle::Code;
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, FakeDisk, new_agent};

use crate::{PATIENCE, answered, until};

#[tokio::test(start_paused = true)]
async fn a_lost_store_is_made_anew_from_what_runs() {
    let world = testkit::plane(31, Plan::Pro).await;
    let keyed = world.running("Ada").await;
    let mut free = new_agent("Free");
    free.spec.provider = Provider::Ollama;
    free.credentials = Credentials::default();
    let free = world.plane.create_agent(world.user, free).await.unwrap();
    free.wait(&[Status::Running], PATIENCE).await.unwrap();
    world.plane.shutdown(Agents::Leave).await;

    let runtime = world.fakes.runtime();
    let found = recover::find(&*runtime).await.unwrap();
    let plan = recover::plan(found, "ada@example.org", world.fakes.engine().now()).unwrap();
    let options = StoreOptions::default().with_installation(world.fakes.installation());
    let disk = FakeDisk::new();
    let store = Store::in_memory(disk.clone(), options).unwrap();
    recover::write(&store, &plan).await.unwrap();
    assert!(matches!(recover::write(&store, &plan).await, Err(RecoverError::NotEmpty)));
    drop(store);

    let plane = testkit::start(&world.fakes, &disk, Settings::default()).await.unwrap();
    let email = plane.accounts().user(world.user).map(|user| user.email);
    assert_eq!(email.as_deref(), Some("ada@example.org"), "the owner has the same id");
    let (keyed, free) = (plane.agent(keyed.id()).unwrap(), plane.agent(free.id()).unwrap());
    // One that needs no secret pairs anew by itself.
    free.wait(&[Status::Running], PATIENCE).await.unwrap();
    answered(&free, "hi").await;
    let missing = |agent: &AgentHandle| {
        let view = agent.view().unwrap();
        let code = view.record.state.reason.as_ref().map(|reason| reason.code);
        (view.status(), code) == (Status::Error, Some(Code::SecretsMissing))
    };
    assert!(missing(&keyed), "{:?}", keyed.explain());
    // Started without what it misses, it says so again and nothing is started.
    keyed.start().await.unwrap();
    until("it says so again", || missing(&keyed)).await;
    let key = AgentPatch::default().with_api_key(Some(testkit::API_KEY.into()));
    keyed.update(key).await.unwrap();
    keyed.start().await.unwrap();
    answered(&keyed, "as before").await;
    assert_eq!(keyed.view().unwrap().record.spec.name, "Ada");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((world.fakes.engine().all().len(), plane.orphans()), (2, 0), "nothing was taken for an orphan");
}

#[tokio::test(start_paused = true)]
async fn orphans_of_an_unknown_owner_are_kept_unless_an_administrator_wants_them_removed() {
    for (orphans, left) in [(Orphans::Remove, 0), (Orphans::Report, 1), (Orphans::Adopt, 1)] {
        let world = testkit::plane(32, Plan::Pro).await;
        world.running("Ada").await;
        world.plane.shutdown(Agents::Leave).await;
        let settings = Settings::default().with_orphans(orphans);
        let plane = testkit::start(&world.fakes, &FakeDisk::new(), settings).await.unwrap();
        // Not at first sight: its record might be on its way.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((world.fakes.engine().all().len(), plane.orphans()), (1, 0));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!((world.fakes.engine().all().len(), plane.orphans()), (left, left as u64), "{orphans:?}");
        assert_eq!(world.fakes.engine().volumes().len(), left);
    }
}
