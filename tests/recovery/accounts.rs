//! Keys, sessions, invitations and identities: their bounds, without HTTP.

use std::time::Duration;

use jiff::SignedDuration;
use zeroone::control::{
    AccountError, AccountRefusal, AccountSettings, CreateError, NewKey, NewUser, Registration, Settings, SignInError,
    UserChange, Visitor,
};
use zeroone::domain::{Cell, Identity, Password, Plan, Scopes, Secret, SessionId, UserStatus};
use zeroone::testkit::{self, FakeDisk, Fakes, TestPlane, new_agent};

fn identity(subject: &str) -> Identity {
    Identity { issuer: "https://id.example.com".into(), subject: subject.into() }
}

fn sessions(world: &TestPlane) -> Vec<SessionId> {
    let mut sessions: Vec<_> =
        world.plane.accounts().sessions_of(world.user, world.plane.now()).iter().map(|session| session.id).collect();
    sessions.sort();
    sessions
}

#[tokio::test(start_paused = true)]
async fn a_user_has_fifty_sessions_and_the_oldest_ends_for_the_next() {
    let world = testkit::plane(60, Plan::Pro).await;
    let email = world.plane.accounts().user(world.user).unwrap().email;
    let mut opened = Vec::new();
    for _ in 0..52 {
        let signed_in = world.plane.sign_in_as(identity("ada"), email.clone(), Visitor::default()).await.unwrap();
        assert_eq!(signed_in.user.id, world.user);
        opened.push(signed_in.session.id);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if opened.len() <= 50 {
            assert_eq!(sessions(&world).len(), opened.len());
        }
    }
    opened.drain(..2);
    opened.sort();
    assert_eq!(sessions(&world), opened);
}

#[tokio::test(start_paused = true)]
async fn an_account_belongs_to_the_first_identity_with_its_address() {
    let world = testkit::plane(61, Plan::Pro).await;
    let plane = &world.plane;
    let email = plane.accounts().user(world.user).unwrap().email;
    let sign_in = |subject: &str, email: &str| plane.sign_in_as(identity(subject), email.into(), Visitor::default());

    let new = sign_in("grace", "grace@example.com").await.unwrap().user;
    assert_ne!(new.id, world.user);
    assert_eq!(sign_in("grace", "moved@example.com").await.unwrap().user.id, new.id, "the address may change");

    let suspended = UserChange::default().with_status(UserStatus::Suspended);
    plane.change_user(world.user, suspended).await.unwrap();
    assert!(matches!(sign_in("ada", &email).await, Err(SignInError::Suspended)));
    assert_eq!(plane.accounts().user(world.user).unwrap().identity, None);
    let active = UserChange::default().with_status(UserStatus::Active);
    plane.change_user(world.user, active).await.unwrap();

    assert_eq!(sign_in("ada", &email).await.unwrap().user.id, world.user);
    assert!(matches!(sign_in("eve", &email).await, Err(SignInError::OtherIdentity)));
    assert_eq!(sign_in("ada", &email).await.unwrap().user.id, world.user);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_invitations_are_open_at_most_and_those_that_expired_make_room() {
    let world = testkit::plane(62, Plan::Pro).await;
    let invite = async |within: i64| {
        let expires_at = world.plane.now() + SignedDuration::from_secs(within);
        world.plane.invite(None, Plan::Free, expires_at).await
    };
    for _ in 0..10 {
        invite(60).await.unwrap();
    }
    for _ in 10..1000 {
        invite(3600).await.unwrap();
    }
    let refused = invite(3600).await.err();
    assert!(matches!(refused, Some(AccountError::Refused(AccountRefusal::TooManyTickets))), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    for _ in 0..10 {
        invite(3600).await.unwrap();
    }
    assert!(invite(3600).await.is_err());
    assert_eq!(world.plane.accounts().invitations(world.plane.now()).len(), 1000);
    let stored = world.plane.store().load().await.unwrap().tickets;
    assert_eq!(stored.len(), 1000, "those that expired are gone");
}

#[tokio::test(start_paused = true)]
async fn link_that_is_used_twice_in_one_moment_lets_one_in() {
    let world = testkit::plane(64, Plan::Pro).await;
    let plane = &world.plane;
    let (_, token) = plane.sign_in_link(world.user, Duration::from_secs(60)).await.unwrap();
    let secret = Secret::new(token.expose().to_owned());
    let sign_in = || plane.sign_in_by_link(&secret, Visitor::default());
    let (first, second) = tokio::join!(sign_in(), sign_in());
    assert_eq!(first.unwrap().user.id, world.user);
    assert!(matches!(second, Err(SignInError::NoTicket)), "{:?}", second.err());
    assert_eq!(sessions(&world).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn last_administrator_is_not_suspended() {
    let world = testkit::plane(65, Plan::Pro).await;
    let plane = &world.plane;
    let suspended = || UserChange::default().with_status(UserStatus::Suspended);
    plane.create_key(world.user, NewKey::new(Scopes::all())).await.unwrap();
    let refused = plane.change_user(world.user, suspended()).await.err();
    assert!(matches!(refused, Some(AccountError::Refused(AccountRefusal::LastAdministrator))), "{refused:?}");
    assert_eq!(plane.accounts().user(world.user).unwrap().status, UserStatus::Active);
    // With another one they may go, and the other one is the last then.
    let other = plane.create_user(NewUser::new("grace@example.com", Plan::Pro)).await.unwrap().id;
    plane.create_key(other, NewKey::new(Scopes::all())).await.unwrap();
    plane.change_user(world.user, suspended()).await.unwrap();
    assert!(plane.change_user(other, suspended()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn expired_keys_are_kept_until_their_room_is_needed() {
    let world = testkit::plane(63, Plan::Pro).await;
    let plane = &world.plane;
    let count = || plane.accounts().keys_of(world.user).len();
    let make = async |new: NewKey| plane.create_key(world.user, new).await.map(drop);
    let (key, there) = (|| NewKey::new(Scopes::all()), count());
    for _ in 0..3 {
        make(key().with_expires_at(plane.now() + SignedDuration::from_secs(60))).await.unwrap();
    }
    for _ in there + 3..50 {
        make(key()).await.unwrap();
    }
    let refused = make(key()).await;
    assert!(matches!(refused, Err(AccountError::Refused(AccountRefusal::TooManyKeys))), "{refused:?}");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(count(), 50, "their owner still sees them");
    for more in 0..3 {
        make(key()).await.unwrap();
        assert_eq!(count(), 48 + more, "all that expired make room at once");
    }
    assert!(make(key()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn limits_that_were_agreed_on_hold_from_the_first_agent_on() {
    let world = testkit::plane(64, Plan::Pro).await;
    let limits = Plan::Pro.limits().with_max_agents(1);
    let new = NewUser::new("grace@example.com", Plan::Pro).with_limits(limits);
    let grace = world.plane.create_user(new).await.unwrap();
    assert_eq!(world.plane.accounts().user(grace.id).unwrap().limits, Some(limits));
    world.plane.create_agent(grace.id, new_agent("First")).await.unwrap();
    let second = world.plane.create_agent(grace.id, new_agent("Second")).await;
    assert_eq!(second.err(), Some(CreateError::Quota { limit: 1, used: 1 }));
}

#[tokio::test(start_paused = true)]
async fn sign_ins_at_a_provider_are_slowed_down_by_address_unless_they_end_well() {
    let world = testkit::plane(65, Plan::Pro).await;
    let plane = &world.plane;
    let from = |address: &str| Visitor::default().with_address(address.parse::<std::net::IpAddr>().unwrap());
    for _ in 0..51 {
        plane.begin_sign_in(&from("192.0.2.7")).unwrap();
    }
    assert_eq!(plane.begin_sign_in(&from("192.0.2.7")), Err(SignInError::TooSoon(Duration::from_secs(1))));
    plane.begin_sign_in(&from("192.0.2.8")).unwrap();
    plane.begin_sign_in(&Visitor::default()).unwrap();
    plane.sign_in_as(identity("grace"), "grace@example.com".into(), from("192.0.2.7")).await.unwrap();
    plane.begin_sign_in(&from("192.0.2.7")).unwrap();
    assert!(plane.begin_sign_in(&from("192.0.2.7")).is_err());
}

#[tokio::test(start_paused = true)]
async fn service_has_an_administrator_with_the_first_key_that_may_administer() {
    let world = testkit::plane(66, Plan::Pro).await;
    assert!(!world.plane.has_administrator());
    world.plane.create_key(world.user, NewKey::new(Scopes::all())).await.unwrap();
    assert!(world.plane.has_administrator());
}

#[tokio::test(start_paused = true)]
async fn another_plan_comes_with_its_limits_or_with_those_that_were_agreed_on() {
    let world = testkit::plane(67, Plan::Free).await;
    let limits = Plan::Pro.limits().with_max_agents(7);
    for limits in [None, Some(limits)] {
        let changed = world.plane.set_plan(world.user, Plan::Pro, limits).await.unwrap();
        assert_eq!((changed.plan, changed.limits), (Plan::Pro, limits));
        assert_eq!(world.plane.accounts().user(world.user), Some(changed));
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_register_and_which_hosts_agents_have_is_as_it_was_set() {
    let accounts = AccountSettings::default().with_registration(Registration::Invite);
    let settings = Settings::default().with_accounts(accounts).with_cell(Cell::new(7).unwrap());
    let plane = testkit::start(&Fakes::new(68), &FakeDisk::new(), settings).await.unwrap();
    assert_eq!(plane.registration(), Registration::Invite);
    let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.unwrap().id();
    let of = |label: &str| plane.agent_by_label(label).map(|agent| agent.id());
    assert_eq!((of("ada-c7"), of("ada"), of("ada-c8"), of("eve-c7")), (Some(agent), Some(agent), None, None));
}

#[tokio::test(start_paused = true)]
async fn link_replaces_the_forgotten_password_for_a_quarter_of_an_hour() {
    let world = testkit::plane(69, Plan::Pro).await;
    let plane = &world.plane;
    let password = |text: &str| Password::parse(Secret::new(text.to_owned())).unwrap();
    plane.set_password(world.user, password("correct horse battery")).await.unwrap();
    for (waited, allowed) in [(Duration::from_secs(899), true), (Duration::from_secs(900), false)] {
        let (_, link) = plane.sign_in_link(world.user, Duration::from_secs(3600)).await.unwrap();
        let secret = Secret::new(link.expose().to_owned());
        let session = plane.sign_in_by_link(&secret, Visitor::default()).await.unwrap().session;
        let rest = waited - Duration::try_from(plane.now().duration_since(session.created_at)).unwrap();
        tokio::time::advance(rest).await;
        let changed = plane.change_password(world.user, Some(session.id), None, password("staple staple"), None).await;
        assert_eq!(changed.err(), (!allowed).then_some(SignInError::CurrentNeeded), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_registers_signs_in_with_the_password_that_they_chose() {
    let accounts = AccountSettings::default().with_registration(Registration::Open);
    let settings = Settings::default().with_accounts(accounts);
    let plane = testkit::start(&Fakes::new(57), &FakeDisk::new(), settings).await.unwrap();
    let secret = |text: &str| Secret::new(text.to_owned());
    let password = Password::parse(secret("correct horse battery")).unwrap();
    let grace = plane.register("grace@example.com".into(), password, None, Visitor::default()).await.unwrap().user;
    let sign_in = |text: &str| plane.sign_in(" Grace@example.com", secret(text), Visitor::default());
    assert_eq!(sign_in("correct horse battery").await.unwrap().user.id, grace.id);
    assert!(matches!(sign_in("correct horse").await, Err(SignInError::Wrong)));
}
