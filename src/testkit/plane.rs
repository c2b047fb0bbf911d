//! A control plane on fakes, ready to use.

use std::time::Duration;

use bytes::Bytes;

use super::{FakeDisk, Fakes};
use crate::actor::Settings;
use crate::control::{AgentHandle, ControlPlane, Message, NewAgent, NewUser, StartError};
use crate::domain::{AgentSpec, Credentials, MemoryBackend, Plan, Provider, Secret, Status, UserId};
use crate::store::{Store, StoreOptions};
use crate::vault::{MasterKey, MasterKeySource, Vault};

/// How long [`TestPlane`] waits for an agent; virtual time under a paused clock.
const PATIENCE: Duration = Duration::from_secs(60);

/// The model key of [`new_agent`]: it must never be found where secrets must not be.
pub const API_KEY: &str = "sk-planted-in-the-testkit";

/// A running control plane on fakes, with one user.
#[non_exhaustive]
pub struct TestPlane {
    /// What it runs on.
    pub fakes: Fakes,
    /// What its store is on.
    pub disk: FakeDisk,
    /// The control plane.
    pub plane: ControlPlane,
    /// Its only user.
    pub user: UserId,
}

/// A control plane on an engine of its own, with a store in memory and one user of this plan.
///
/// Made for `#[tokio::test(start_paused = true)]`: then hours pass in milliseconds.
///
/// # Panics
/// If it does not come up, which nothing outside of it can prevent.
pub async fn plane(seed: u64, plan: Plan) -> TestPlane {
    let fakes = Fakes::new(seed);
    let disk = FakeDisk::new();
    let plane = start(&fakes, &disk, Settings::default()).await.expect("a fresh plane in memory comes up");
    let user = NewUser { email: "ada@example.com".into(), plan, limits: None };
    let user = plane.create_user(user).await.expect("a fresh store takes a user").id;
    TestPlane { fakes, disk, plane, user }
}

/// Starts a control plane on fakes and on what is on the disk.
///
/// # Errors
/// As [`Builder::start`](crate::control::Builder::start).
pub async fn start(fakes: &Fakes, disk: &FakeDisk, settings: Settings) -> Result<ControlPlane, StartError> {
    let options = StoreOptions {
        installation: fakes.installation(),
        now: fakes.engine().now(),
        check_integrity: false,
        ..StoreOptions::default()
    };
    let store = Store::in_memory(disk.clone(), options)?;
    ControlPlane::builder(store, vault(), fakes.runtime())
        .gateway(fakes.gateway())
        .clock(fakes.clock())
        .settings(settings)
        .start()
        .await
}

/// A vault with a key that everyone knows.
///
/// # Panics
/// Never: the key is well-formed.
pub fn vault() -> Vault {
    let key = MasterKeySource::Value(Secret::new("5".repeat(64)));
    Vault::new(&MasterKey::load(key).expect("64 hex digits are a key"))
}

/// An agent to be, of this name, with a random id. [`Fakes::new_agent`] gives one that a seed gives again.
pub fn new_agent(name: &str) -> NewAgent {
    let spec = AgentSpec {
        agent_name: "Fake".into(),
        memory_backend: MemoryBackend::None,
        auto_save: false,
        ..AgentSpec::new(name, Provider::Openai, "fake")
    };
    NewAgent::new(spec, Credentials { api_key: Some(API_KEY.into()), ..Credentials::default() })
}

/// A message of this text, held for at most a minute.
pub fn message(text: &str) -> Message {
    Message {
        body: Bytes::from(serde_json::json!({ "message": text }).to_string()),
        request_id: None,
        traceparent: None,
        session: None,
        hold: PATIENCE,
        answer_within: PATIENCE,
    }
}

impl TestPlane {
    /// A control plane that was started otherwise.
    pub const fn new(fakes: Fakes, disk: FakeDisk, plane: ControlPlane, user: UserId) -> Self {
        Self { fakes, disk, plane, user }
    }

    /// Creates an agent and waits until it runs.
    ///
    /// # Panics
    /// If it does not.
    pub async fn running(&self, name: &str) -> AgentHandle {
        let agent = self.plane.create_agent(self.user, self.fakes.new_agent(name)).await.expect("within the plan");
        agent.wait(&[Status::Running], PATIENCE).await.expect("a fake agent starts");
        agent
    }
}
