//! Every route of the OpenAPI document is called and found in the audit: a route that is new fails here until somebody says
//! how it is called.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroone::domain::{AgentId, Plan, Profile};
use zeroone::store::{AuditFilter, AuditOutcome, AuditRecord, Snapshot, Store, StoreOptions};
use zeroone::testkit::FakeImage;
use zeroone::zeroclaw::bundle;

use crate::audit::changing;
use crate::test_gateway::TestGateway;
use crate::world::{World, answer, new_agent, until};

const PASSWORD: &str = "planted horse battery";
const REQUEST: &str = "the-one-that-is-looked-for";
/// The secret that all of this is done with.
const MODEL_KEY: &str = "sk-planted-key";

/// When the audit says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// In the commit of the change.
    WithIt,
    /// Before it begins, since it is not one commit of the store: a copy that is made, or many commits.
    Before,
    /// After it, since it is no change of the store: what was in memory, or in an agent.
    After,
}

use Told::{After, Before, WithIt};

/// A service, and what was made in it for the route to have something to work on.
struct Stage {
    world: World,
    _folder: TempDir,
    /// Answers in the place of an agent's.
    gateway: OnceCell<TestGateway>,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { world: World::complete(folder.path()).await, _folder: folder, gateway: OnceCell::new() }
    }

    fn as_owner(&self, method: Method, path: &str) -> RequestBuilder {
        self.world.request(method, path)
    }

    fn as_admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.world.raw(method, path).bearer_auth(&self.world.admin)
    }

    /// Made by an administrator beforehand.
    async fn made(&self, path: &str, body: Value) -> Value {
        let made = self.world.as_admin(Method::POST, path, Some(&body)).await;
        assert!(made.status < 300, "{path} {made:?}");
        made.body
    }

    fn of_user(&self, rest: &str) -> String {
        format!("/api/admin/users/{}{rest}", self.world.user)
    }

    async fn with_password(&self) {
        let set = json!({"password": PASSWORD});
        assert_eq!(self.world.as_admin(Method::POST, &self.of_user("/password"), Some(&set)).await.status, 204);
    }

    /// The cookie and the id of a session of the user.
    async fn signed_in(&self) -> (String, String) {
        self.with_password().await;
        self.sign_in().await
    }

    async fn sign_in(&self) -> (String, String) {
        let login = json!({"email": "ada@example.org", "password": PASSWORD});
        let welcome = answer(self.world.raw(Method::POST, "/api/auth/login").json(&login)).await;
        let cookie = welcome.header("set-cookie").split(';').next().unwrap().to_owned();
        let sessions = answer(self.world.raw(Method::GET, "/api/me/sessions").header("cookie", &cookie)).await;
        (cookie, sessions.body["data"][0]["id"].as_str().unwrap().to_owned())
    }

    async fn agent(&self, status: &str) -> String {
        let id = self.world.running("a").await;
        if status == "STOPPED" {
            self.world.command(&id, "stop").await;
            self.world.reach(&id, status).await;
        }
        format!("/api/agents/{id}")
    }

    async fn keeps_a_session(&self, agent: &str) {
        let gateway = TestGateway::of(&self.world, agent.rsplit('/').next().unwrap()).await;
        gateway.shared.sessions.lock().unwrap().insert("s".into(), vec!["hi".into()]);
        assert!(self.gateway.set(gateway).is_ok());
    }

    /// An archive that an agent can be made from.
    async fn archive(&self) -> Vec<u8> {
        let agent = self.agent("RUNNING").await;
        let id: AgentId = agent.rsplit('/').next().unwrap().parse().unwrap();
        self.world.fakes.engine().put_file(id, "workspace/notes/a.txt", b"mine");
        let archive = self.as_owner(Method::GET, &format!("{agent}/export")).send().await.unwrap();
        let archive = archive.bytes().await.unwrap().to_vec();
        assert!(bundle::read(&archive).is_ok());
        archive
    }

    /// The request that makes the route do its work, and when the audit tells it.
    async fn request(&self, action: &str) -> (RequestBuilder, Told) {
        use Method as M;
        let (method, path) = action.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let (owner, admin) =
            (|path: &str| self.as_owner(method.clone(), path), |path: &str| self.as_admin(method.clone(), path));
        let open = |path: &str| self.world.raw(method.clone(), path);
        match (&method, path) {
            (&M::POST, "/api/agents") => (owner(path).json(&new_agent("a")), WithIt),
            (&M::PATCH, "/api/agents/{id}") => {
                (owner(&self.agent("RUNNING").await).json(&json!({"name": "b"})), WithIt)
            }
            (&M::DELETE, "/api/agents/{id}") => (owner(&self.agent("RUNNING").await), WithIt),
            (&M::POST, "/api/agents/{id}/start") => (owner(&(self.agent("STOPPED").await + "/start")), WithIt),
            (&M::POST, "/api/agents/{id}/stop") => (owner(&(self.agent("RUNNING").await + "/stop")), WithIt),
            (&M::POST, "/api/agents/{id}/restart") => (owner(&(self.agent("RUNNING").await + "/restart")), WithIt),
            (&M::POST, "/api/agents/{id}/dashboard") => (owner(&(self.agent("RUNNING").await + "/dashboard")), After),
            (&M::POST, "/api/agents/{id}/upgrade") => {
                for (name, profile, version) in
                    [("zeroclaw:0.1.7", Profile::V01, "0.1.7"), ("zeroclaw:0.8.7", Profile::V08, "0.8.7")]
                {
                    self.world.fakes.engine().add_image(name, FakeImage::new(profile, version));
                }
                let path = self.agent("RUNNING").await + "/upgrade";
                (owner(&path).json(&json!({"image": "zeroclaw:0.8.7"})), WithIt)
            }
            (&M::GET, "/api/agents/{id}/export") => (owner(&(self.agent("RUNNING").await + "/export")), After),
            (&M::POST, "/api/agents/check") => (owner(path).json(&new_agent("a")), After),
            (&M::POST, "/api/agents/import") => {
                let archive = self.archive().await;
                (owner(&format!("{path}?name=Eve")).header("content-type", "application/x-tar").body(archive), WithIt)
            }
            (&M::POST, "/api/agents/{id}/clone") => {
                (owner(&(self.agent("RUNNING").await + "/clone")).json(&json!({"name": "Eve"})), WithIt)
            }
            (&M::DELETE, "/api/agents/{id}/sessions") => {
                let agent = self.agent("RUNNING").await;
                self.keeps_a_session(&agent).await;
                (owner(&format!("{agent}/sessions")), After)
            }
            (&M::DELETE, "/api/agents/{id}/sessions/{session}") => {
                let agent = self.agent("RUNNING").await;
                self.keeps_a_session(&agent).await;
                (owner(&format!("{agent}/sessions/s")), After)
            }
            (&M::POST, "/api/keys") => (owner(path).json(&json!({})), WithIt),
            (&M::DELETE, "/api/keys/{id}") => {
                let key = self.world.post("/api/keys", &json!({})).await;
                (owner(&format!("/api/keys/{}", key.body["id"].as_str().unwrap())), WithIt)
            }
            (&M::POST, "/api/auth/register") => {
                (open(path).json(&json!({"email": "bob@example.org", "password": PASSWORD})), WithIt)
            }
            (&M::POST, "/api/auth/login") => {
                self.with_password().await;
                (open(path).json(&json!({"email": "ada@example.org", "password": PASSWORD})), WithIt)
            }
            (&M::POST, "/api/auth/link") => {
                let link = self.made(&self.of_user("/sign-in-link"), json!({})).await;
                (open(path).json(&json!({"token": link["token"]})), WithIt)
            }
            (&M::POST, "/api/auth/logout") => (open(path).header("cookie", self.signed_in().await.0), WithIt),
            (&M::POST, "/api/me/password") => {
                let change = json!({"current": PASSWORD, "password": "another horse battery"});
                (open(path).header("cookie", self.signed_in().await.0).json(&change), WithIt)
            }
            (&M::DELETE, "/api/me/sessions") => {
                // All others than one's own.
                self.signed_in().await;
                (open(path).header("cookie", self.sign_in().await.0), WithIt)
            }
            (&M::DELETE, "/api/me/sessions/{id}") => {
                let (cookie, id) = self.signed_in().await;
                (open(&format!("/api/me/sessions/{id}")).header("cookie", cookie), WithIt)
            }
            (&M::POST, "/api/admin/users") => (admin(path).json(&json!({"email": "c@d.e", "plan": "pro"})), WithIt),
            (&M::PATCH, "/api/admin/users/{id}") => (admin(&self.of_user("")).json(&json!({"plan": "free"})), WithIt),
            (&M::DELETE, "/api/admin/users/{id}") => (admin(&self.of_user("")), WithIt),
            (&M::POST, "/api/admin/users/{id}/keys") => (admin(&self.of_user("/keys")).json(&json!({})), WithIt),
            (&M::DELETE, "/api/admin/users/{id}/keys/{key}") => {
                let key = self.made(&self.of_user("/keys"), json!({})).await;
                (admin(&self.of_user(&format!("/keys/{}", key["id"].as_str().unwrap()))), WithIt)
            }
            (&M::DELETE, "/api/admin/users/{id}/sessions") => {
                self.signed_in().await;
                (admin(&self.of_user("/sessions")), WithIt)
            }
            (&M::DELETE, "/api/admin/users/{id}/sessions/{session}") => {
                let (_, id) = self.signed_in().await;
                (admin(&self.of_user(&format!("/sessions/{id}"))), WithIt)
            }
            (&M::POST, "/api/admin/users/{id}/password") => {
                (admin(&self.of_user("/password")).json(&json!({"password": PASSWORD})), WithIt)
            }
            (&M::POST, "/api/admin/users/{id}/sign-in-link") => {
                (admin(&self.of_user("/sign-in-link")).json(&json!({})), WithIt)
            }
            (&M::POST, "/api/admin/invitations") => (admin(path).json(&json!({})), WithIt),
            (&M::DELETE, "/api/admin/invitations/{id}") => {
                let invitation = self.made("/api/admin/invitations", json!({})).await;
                (admin(&format!("/api/admin/invitations/{}", invitation["id"].as_str().unwrap())), WithIt)
            }
            (&M::POST, "/api/admin/orphans") => {
                let orphan = self.world.orphan(None).await;
                (admin(path).json(&json!({"id": orphan, "action": "adopt", "user": self.world.user})), WithIt)
            }
            (&M::POST, "/api/admin/keys/rotate" | "/api/admin/backup") => (admin(path), Before),
            _ => panic!("{action} is new: say here how it is called, so that the audit of it is checked"),
        }
    }
}

/// The record of the request in the store that this is, and all else that is in it.
async fn look(disk: &zeroone::testkit::FakeDisk, stage: &Stage) -> (Option<AuditRecord>, Snapshot) {
    let options = StoreOptions::default()
        .with_installation(stage.world.fakes.installation())
        .with_now(stage.world.fakes.engine().now())
        .with_check_integrity(false);
    let store = Store::in_memory(disk.clone(), options).unwrap();
    let records = store.audit(None, 100, AuditFilter::default()).await.unwrap().records;
    let rest = store.load().await.unwrap();
    store.close().await;
    (records.into_iter().find(|record| record.request == REQUEST), rest)
}

#[tokio::test]
async fn every_change_is_in_the_audit_and_in_the_commit_that_makes_it() {
    let document = zeroone::http::openapi();
    let mut actions = changing(&document);
    actions.insert("GET /api/agents/{id}/export".into());
    for action in actions {
        let stage = Stage::new().await;
        let (request, told) = stage.request(&action).await;
        stage.world.disk.keep_copies();
        let done = answer(request.header("x-request-id", REQUEST)).await;
        assert!(done.status < 300, "{action} {done:?}");
        let written = async || {
            let page = stage.world.as_admin(Method::GET, "/api/admin/audit?limit=200", None).await;
            page.body["data"].as_array().unwrap().iter().filter(|it| it["requestId"] == REQUEST).count()
        };
        until(&action, async || written().await > 0).await;
        assert_eq!(written().await, 1, "{action} is told twice");
        let (mut before, mut found) = (Snapshot::default(), None);
        for copy in stage.world.disk.copies() {
            let (record, rest) = look(&copy, &stage).await;
            if let Some(record) = record {
                found = Some((record, rest != before));
                break;
            }
            before = rest;
        }
        let (record, with_a_change) = found.unwrap_or_else(|| panic!("{action} is in no commit"));
        assert_eq!((record.action.as_str(), record.outcome), (action.as_str(), AuditOutcome::Done));
        assert!(record.user.is_some(), "{action}: by whom?");
        assert_eq!(with_a_change, told == WithIt, "{action} is told {told:?}");
        for secret in [PASSWORD, MODEL_KEY, "another horse", "zo_", "zs_", "zt_", "zv_"] {
            assert!(!format!("{record:?}").contains(secret), "{action}: {secret} is in the audit");
        }
    }
}

/// Routes by which somebody reads what belongs to one user, by the document itself.
fn looks(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of_one = |path: &str| {
        ["/api/agents/{id}", "/api/admin/users/{id}", "/api/admin/agents"].iter().any(|it| path.starts_with(it))
    };
    let looks = paths.filter(|(path, item)| of_one(path) && item.get("get").is_some());
    looks.map(|(path, _)| path.clone()).collect()
}

#[tokio::test]
async fn every_look_of_an_administrator_at_anothers_agent_is_in_the_audit() {
    let stage = Stage::new().await;
    let agent = stage.agent("RUNNING").await;
    stage.keeps_a_session(&agent).await;
    for look in looks(&zeroone::http::openapi()) {
        let path = look.replace("/api/agents/{id}", &agent).replace("/api/admin/users/{id}", &stage.of_user(""));
        let path = path.replace("{session}", "s").replace("{path}", "x").replace("{*path}", "x");
        assert!(!path.contains('{'), "{look} is new: say here how it is called");
        let query = if path.ends_with("/wait") { "?status=RUNNING" } else { "" };
        let asked = stage.as_admin(Method::GET, &format!("{path}{query}")).header("x-request-id", REQUEST);
        let seen = answer(asked).await;
        assert!(seen.status < 300, "{look} {seen:?}");
        let page = stage.world.as_admin(Method::GET, "/api/admin/audit?limit=200", None).await;
        // What is an agent's own is one thing, whatever its path there is.
        let target = path.split_once("/gateway/").map_or(path.clone(), |(agent, _)| format!("{agent}/gateway"));
        let told = page.body["data"].as_array().unwrap().iter().any(|it| it["target"] == target);
        assert!(told, "{look} is not told");
    }
}

#[tokio::test]
async fn every_refusal_is_in_the_audit_whoever_is_refused() {
    let world = World::new(Plan::Pro).await;
    let refused = async |action: &str| {
        let page = world.as_admin(Method::GET, "/api/admin/audit?limit=200&outcome=refused", None).await;
        let records = page.body["data"].as_array().unwrap().clone();
        records.into_iter().find(|it| it["action"] == action).unwrap_or_else(|| panic!("{action} is not told"))
    };
    // A key that may not, one that is none, and figures that are asked for from elsewhere.
    let asked = world.raw(Method::GET, "/metrics").bearer_auth(&world.key).header("x-forwarded-for", "192.0.2.7");
    answer(asked).await.problem(403, "forbidden");
    assert_eq!(refused("GET /metrics").await["user"], json!(world.user));
    world.post("/api/admin/keys/rotate", &json!({})).await.problem(403, "forbidden");
    assert_eq!(refused("POST /api/admin/keys/rotate").await["user"], json!(world.user));
    answer(world.raw(Method::GET, "/api/me").bearer_auth("zo_none")).await.problem(401, "unauthorized");
    assert_eq!(refused("GET /api/me").await["user"], Value::Null);
    // A page of an agent's own that pairs with a wrong code, and with a right one.
    let id = world.running("ada").await;
    let pair = async |code: &str| {
        let at = world.raw(Method::POST, "/pair").header("host", "ada.agents.example.org");
        answer(at.header("x-pairing-code", code)).await.status
    };
    assert_eq!(pair("AAAAAA").await, 403);
    assert_eq!(refused("POST /pair").await["owner"], json!(world.user));
    let invited = world.command(&id, "dashboard").await;
    assert_eq!(pair(invited.body["code"].as_str().unwrap()).await, 200);
    let done = world.as_admin(Method::GET, "/api/admin/audit?outcome=done&action=pair", None).await;
    assert_eq!((&done.body["data"][0]["user"], done.body["data"].as_array().unwrap().len()), (&json!(world.user), 1));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_told_once() {
    let world = World::new(Plan::Pro).await;
    let again = || world.request(Method::POST, "/api/keys").header("idempotency-key", "k").json(&json!({"name": "a"}));
    let create = || world.request(Method::POST, "/api/agents").header("idempotency-key", "a").json(&new_agent("a"));
    for _ in 0..3 {
        answer(again()).await;
        assert_eq!(answer(create()).await.status, 202);
    }
    let own = world.get("/api/audit").await;
    assert_eq!(own.body["data"].as_array().unwrap().len(), 2, "{:?}", own.body);
}
