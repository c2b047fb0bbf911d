//! The embedder's own rule about who may have agents.

use zeroone::control::{ControlPlane, CreateError, CreationRule, Denied, NewUser};
use zeroone::domain::Plan;
use zeroone::store::{Store, StoreOptions};
use zeroone::testkit::{self, FakeDisk, Fakes, new_agent};

#[tokio::test(start_paused = true)]
async fn of_creates_at_once_the_rule_lets_through_exactly_as_many_as_it_says() {
    let (fakes, disk) = (Fakes::new(131), FakeDisk::new());
    let options = StoreOptions::default().with_installation(fakes.installation()).with_now(fakes.engine().now());
    let plane = ControlPlane::builder(Store::in_memory(disk, options).unwrap(), testkit::vault(), fakes.runtime())
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .creation_rule(CreationRule::new(|new| match new.agents_of_user {
            0 if new.user.plan == Plan::Pro && new.spec.name.as_str() != "Nobody" => Ok(()),
            _ => Err(Denied("one is enough".into())),
        }))
        .start()
        .await
        .unwrap();
    let user = NewUser::new("ada@example.com", Plan::Pro);
    let user = plane.create_user(user).await.unwrap().id;
    let denied = CreateError::Denied(Denied("one is enough".into()));
    assert_eq!(plane.create_agent(user, new_agent("Nobody")).await.err(), Some(denied.clone()));
    assert_eq!(plane.used(user).await, Ok(0), "who was denied holds nothing");

    let creates: Vec<_> = (0..50)
        .map(|n| {
            let plane = plane.clone();
            tokio::spawn(async move { plane.create_agent(user, new_agent(&format!("Agent {n}"))).await })
        })
        .collect();
    let mut created = 0;
    for create in creates {
        match create.await.unwrap() {
            Ok(_) => created += 1,
            Err(error) => assert_eq!(error, denied),
        }
    }
    assert_eq!((created, plane.used(user).await), (1, Ok(1)));
}
