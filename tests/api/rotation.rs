//! Another master key while agents run on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroone::control::{Agents, ControlPlane, KeeperError, KeyFile, KeyKeeper, NewKey, NewUser, Settings, StartError};
use zeroone::domain::{Plan, Scopes, Secret, Status, UserId};
use zeroone::http::{HttpOptions, ServeOptions, router, serve};
use zeroone::store::{IdempotencyState, OpenError, Store, StoreOptions};
use zeroone::testkit::{Cut, FakeDisk, Fakes, new_agent, run_until_killed};
use zeroone::vault::{MasterKey, MasterKeySource, RingKeyId, Vault};

use crate::http_client::http_client;
use crate::world::{PATIENCE, answer, until};

const AGENTS: usize = 20;

struct Installation {
    fakes: Fakes,
    disk: FakeDisk,
    folder: TempDir,
}

impl Installation {
    fn new() -> Self {
        Self { fakes: Fakes::new(3), disk: FakeDisk::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn key(&self) -> std::path::PathBuf {
        self.folder.path().join("master.key")
    }

    async fn start(&self, key: &Path) -> Result<ControlPlane, StartError> {
        let master = MasterKey::load(MasterKeySource::FileOrNew(key.to_owned())).unwrap();
        self.start_with(&master, KeyFile::new(key.to_owned()).with_own(true)).await
    }

    async fn start_with(&self, master: &MasterKey, keeper: impl KeyKeeper) -> Result<ControlPlane, StartError> {
        let options =
            StoreOptions::default().with_installation(self.fakes.installation()).with_now(self.fakes.engine().now());
        let store = Store::in_memory(self.disk.clone(), options).unwrap();
        ControlPlane::builder(store, Vault::new(master), self.fakes.runtime())
            .gateway(self.fakes.gateway())
            .clock(self.fakes.clock())
            .settings(Settings::default())
            .key_keeper(keeper)
            .start()
            .await
    }
}

/// The keys that sealed anything of the agents.
async fn keys_in_use(plane: &ControlPlane) -> Vec<RingKeyId> {
    let agents = plane.store().load().await.unwrap().agents;
    let secrets = agents.into_iter().flat_map(|it| [it.record.api_key, it.record.channels, it.record.token]);
    let mut keys: Vec<RingKeyId> = secrets.flatten().map(|sealed| sealed.key()).collect();
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    keys
}

fn keys_in(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap().lines().count()
}

async fn with_agents(plane: &ControlPlane) -> UserId {
    let new = NewUser::new("a@b.c", Plan::Enterprise);
    let user = plane.create_user(new).await.unwrap().id;
    for n in 0..AGENTS {
        let agent = plane.create_agent(user, new_agent(&format!("agent {n}"))).await.unwrap();
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    }
    user
}

#[tokio::test]
async fn twenty_agents_run_on_while_the_master_key_changes_and_the_old_one_is_refused() {
    let installation = Installation::new();
    let file = installation.key();
    let plane = installation.start(&file).await.unwrap();
    let user = with_agents(&plane).await;
    let key = plane.create_key(user, NewKey::new(Scopes::all())).await.unwrap().1;
    let (listener, closing) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let at = listener.local_addr().unwrap();
    let app = router(plane.clone(), HttpOptions::default());
    let server = tokio::spawn(serve(listener, app, closing.clone(), ServeOptions::default()));
    let http = http_client(PATIENCE);
    let post = |path: &str, idempotency: &str| {
        let request = http.request(Method::POST, format!("http://{at}{path}")).bearer_auth(key.expose());
        request.header("idempotency-key", idempotency)
    };
    let agent = plane.agents(Some(user), None, 1, &[]).agents[0].record.id;
    let message = format!("/api/agents/{agent}/message");
    let said = answer(post(&message, "m").json(&json!({"message": "hi"}))).await;
    assert_eq!(said.status, 200, "{said:?}");

    std::fs::copy(&file, installation.folder.path().join("old.key")).unwrap();
    let before: Vec<_> = plane.agents(None, None, AGENTS, &[]).agents;
    let rotated = answer(post("/api/admin/keys/rotate", "r")).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    // Each agent has an API key and a token, and one answer was kept.
    assert_eq!(rotated.body["resealed"], 2 * AGENTS + 1, "{rotated:?}");
    assert_eq!(rotated.body["key"], plane.vault().active_key().to_string());
    assert_eq!(keys_in_use(&plane).await, [plane.vault().active_key()]);
    assert_eq!(keys_in(&file), 1);
    let kept = plane.store().idempotency(user, "m").await.unwrap().unwrap().state;
    assert!(matches!(kept, IdempotencyState::Done { body, .. } if body.key() == plane.vault().active_key()));
    for view in before {
        let now = plane.agent(view.record.id).unwrap().view().unwrap();
        assert_eq!((now.status(), now.record.state.attempt), (Status::Running, view.record.state.attempt));
        assert_eq!(now.record.state.revision, view.record.state.revision, "nothing else was changed");
    }
    assert_eq!(answer(post(&message, "n").json(&json!({"message": "hi"}))).await.status, 200);
    let again = answer(post(&message, "m").json(&json!({"message": "hi"}))).await;
    assert_eq!((&again.text, again.header("idempotent-replayed")), (&said.text, "true"));
    closing.cancel();
    server.await.unwrap().unwrap();
    plane.shutdown(Agents::Leave).await;

    let refused = installation.start(&installation.folder.path().join("old.key")).await;
    assert!(matches!(refused, Err(StartError::Key(OpenError::WrongKey { .. }))));
    let plane = installation.start(&file).await.unwrap();
    for view in plane.agents(None, None, AGENTS, &[]).agents {
        let agent = plane.agent(view.record.id).unwrap();
        assert!(agent.credentials().unwrap().api_key.is_some());
        agent.wait(&[Status::Running], PATIENCE).await.unwrap();
    }
    plane.shutdown(Agents::Leave).await;
}

#[tokio::test]
async fn a_change_of_the_master_key_that_was_interrupted_goes_on_at_the_next_start() {
    let installation = Installation::new();
    let file = installation.key();
    let plane = installation.start(&file).await.unwrap();
    with_agents(&plane).await;
    let old = plane.vault().active_key();
    plane.shutdown(Agents::Leave).await;
    // As a service leaves it that was killed right after it had written the new key.
    MasterKey::load(MasterKeySource::File(file.clone())).unwrap().with_new().replace(&file).unwrap();
    assert_eq!(keys_in(&file), 2);
    let plane = installation.start(&file).await.unwrap();
    until("the old key has left the file", async || keys_in(&file) == 1).await;
    let new = plane.vault().active_key();
    assert_ne!(new, old);
    assert_eq!(keys_in_use(&plane).await, [new]);
    plane.shutdown(Agents::Leave).await;
    let plane = installation.start(&file).await.unwrap();
    assert_eq!((plane.vault().active_key(), plane.vault().keys()), (new, 1));
    plane.shutdown(Agents::Leave).await;
}

/// A key service of an embedder's, which may be away.
#[derive(Debug, Clone)]
struct KeyService {
    kept: Arc<Mutex<Secret<String>>>,
    away: Arc<AtomicBool>,
}

impl KeyService {
    fn ask<T>(&self, answer: impl FnOnce(&mut Secret<String>) -> T) -> Result<T, KeeperError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(KeeperError::new("the key service does not answer"));
        }
        Ok(answer(&mut self.kept.lock().unwrap()))
    }

    fn ring(&self) -> MasterKey {
        MasterKey::load(MasterKeySource::Value(self.kept.lock().unwrap().clone())).unwrap()
    }
}

impl KeyKeeper for KeyService {
    fn load(&self) -> BoxFuture<'_, Result<MasterKey, KeeperError>> {
        async { self.ask(|_| ()).map(|()| self.ring()) }.boxed()
    }

    fn keep<'a>(&'a self, ring: &'a MasterKey) -> BoxFuture<'a, Result<(), KeeperError>> {
        async { self.ask(|kept| *kept = ring.to_text()) }.boxed()
    }
}

#[tokio::test]
async fn the_keys_may_be_kept_by_a_service_of_the_embedders() {
    let installation = Installation::new();
    let kept = Arc::new(Mutex::new(MasterKey::generate().to_text()));
    let service = KeyService { kept, away: Arc::default() };
    let first = service.ring();
    let plane = installation.start_with(&first, service.clone()).await.unwrap();
    with_agents(&plane).await;
    let old = plane.vault().active_key();

    service.away.store(true, Ordering::Relaxed);
    let refused = plane.rotate_master_key().await.unwrap_err();
    assert_eq!(refused.to_string(), "the key service does not answer");
    assert_eq!((plane.vault().active_key(), service.ring().keys()), (old, 1), "nothing was changed");

    service.away.store(false, Ordering::Relaxed);
    let rotation = plane.rotate_master_key().await.unwrap();
    assert_ne!(rotation.key, old);
    assert_eq!(keys_in_use(&plane).await, [rotation.key]);
    plane.shutdown(Agents::Leave).await;

    let refused = installation.start_with(&first, service.clone()).await.map(drop).unwrap_err();
    assert!(matches!(refused, StartError::Key(_)), "{refused}");
    let plane = installation.start_with(&service.ring(), service.clone()).await.unwrap();
    assert_eq!((plane.vault().active_key(), plane.vault().keys()), (rotation.key, 1));
    plane.shutdown(Agents::Leave).await;
}

/// Changes the key and is killed in the `n`-th commit from then on; `false`: it was done before that.
async fn killed_while_it_rotates(installation: &Installation, n: u64, cut: Cut) -> bool {
    let plane = installation.start(&installation.key()).await.unwrap();
    all_run(&plane).await;
    installation.disk.cut_in(n, cut);
    tokio::select! {
        biased;
        () = installation.disk.cut_off() => true,
        rotated = plane.rotate_master_key() => match rotated {
            Ok(_) => false,
            // It notices that its disk is gone before it is gone itself.
            Err(_) => { installation.disk.cut_off().await; true }
        },
    }
}

async fn all_run(plane: &ControlPlane) {
    let agents = plane.agents(None, None, AGENTS, &[]).agents;
    assert_eq!(agents.len(), AGENTS);
    for view in agents {
        plane.agent(view.record.id).unwrap().wait(&[Status::Running], PATIENCE).await.unwrap();
    }
}

#[test]
fn a_change_of_the_master_key_that_is_killed_at_any_commit_ends_at_the_next_start() {
    let mut installation = Installation::new();
    let (file, old) = (installation.key(), installation.folder.path().join("old.key"));
    run_until_killed(&installation.fakes, async {
        let plane = installation.start(&file).await.unwrap();
        with_agents(&plane).await;
        plane.shutdown(Agents::Leave).await;
    });
    for cut in [Cut::Before, Cut::After] {
        let mut changes = 0;
        for n in 1.. {
            std::fs::copy(&file, &old).unwrap();
            let killed = run_until_killed(&installation.fakes, killed_while_it_rotates(&installation, n, cut));
            installation.disk = installation.disk.next_life();
            run_until_killed(&installation.fakes, async {
                let plane = installation.start(&file).await.unwrap();
                until("the old key has left the file", async || keys_in(&file) == 1).await;
                all_run(&plane).await;
                assert_eq!(keys_in_use(&plane).await, [plane.vault().active_key()], "{cut:?} {n}");
                for view in plane.agents(None, None, AGENTS, &[]).agents {
                    let tally = installation.fakes.engine().tally(view.record.id);
                    assert_eq!((tally.starts.len(), tally.pairings), (1, 1), "it ran on: {cut:?} {n}");
                    assert!(plane.agent(view.record.id).unwrap().credentials().unwrap().api_key.is_some());
                }
                plane.shutdown(Agents::Leave).await;
                // Something else may have been the commit, before there was a new key.
                if std::fs::read(&file).unwrap() != std::fs::read(&old).unwrap() {
                    changes += 1;
                    let refused = installation.start(&old).await;
                    assert!(matches!(refused, Err(StartError::Key(OpenError::WrongKey { .. }))), "{cut:?} {n}");
                }
            });
            if !killed {
                // One commit for each agent, and the note of which key the store needs.
                assert!(n > AGENTS as u64 + 1 && changes > AGENTS, "only {n} commits, {changes} changes");
                break;
            }
        }
    }
}
