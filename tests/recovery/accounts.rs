//! Keys, sessions, invitations and identities: their bounds, without HTTP.

use std::time::Duration;

use jiff::SignedDuration;
use zeroone::control::{AccountError, AccountRefusal, NewKey, SignInError, UserChange, Visitor};
use zeroone::domain::{Identity, Plan, Scopes, SessionId, UserStatus};
use zeroone::testkit::{self, TestPlane};

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
