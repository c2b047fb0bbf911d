//! People: sign-in, sessions, passwords, invitations, and those who try to get in without.

use reqwest::Method;
use serde_json::{Value, json};
use zeroone::control::{AccountSettings, Registration, UserChange};
use zeroone::domain::{Plan, UserId};
use zeroone::http::HttpOptions;

use crate::world::{Answer, World, answer, new_agent, next_event, until};

const PASSWORD: &str = "correct horse battery";

/// A browser: it sends its cookie, and says where its pages are from.
struct Browser {
    cookie: Option<String>,
    site: Option<&'static str>,
}

impl Browser {
    const fn new() -> Self {
        Self { cookie: None, site: Some("same-origin") }
    }

    fn holding(cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), site: Some("same-origin") }
    }

    fn request(&self, world: &World, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = world.raw(method, path);
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        match self.site {
            Some(site) => request.header("sec-fetch-site", site),
            None => request,
        }
    }

    async fn ask(&mut self, world: &World, method: Method, path: &str, body: &Value) -> Answer {
        let mut request = self.request(world, method, path);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = answer(request).await;
        for set in answer.headers.get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            self.cookie = pair.strip_suffix('=').map_or(Some(pair.to_owned()), |_| None);
        }
        answer
    }

    async fn get(&mut self, world: &World, path: &str) -> Answer {
        self.ask(world, Method::GET, path, &Value::Null).await
    }

    async fn sign_in(&mut self, world: &World, email: &str, password: &str) -> Answer {
        self.ask(world, Method::POST, "/api/auth/login", &json!({"email": email, "password": password})).await
    }
}

async fn world() -> World {
    let world = World::new(Plan::Pro).await;
    give_password(&world, world.user, PASSWORD).await;
    world
}

fn forward(world: &World, secs: i64) {
    world.fakes.engine().put_clock_forward(jiff::SignedDuration::from_secs(secs));
}

async fn give_password(world: &World, user: UserId, password: &str) {
    let set = world
        .as_admin(Method::POST, &format!("/api/admin/users/{user}/password"), Some(&json!({"password": password})))
        .await;
    assert_eq!(set.status, 204, "{set:?}");
}

async fn registering(registration: Registration) -> World {
    let accounts = AccountSettings::default().with_registration(registration);
    World::with_accounts(Plan::Pro, HttpOptions::default(), accounts).await
}

#[tokio::test]
async fn a_person_signs_in_uses_the_api_and_signs_out() {
    let world = world().await;
    let mut browser = Browser::new();
    browser.get(&world, "/api/me").await.problem(401, "unauthorized");
    let welcome = browser.sign_in(&world, " Ada@Example.org", PASSWORD).await;
    assert_eq!((welcome.status, &welcome.body["email"]), (200, &json!("ada@example.org")), "{welcome:?}");
    let cookie = welcome.header("set-cookie");
    for attribute in ["zeroone_session=zs_", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=2592000"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    let https = answer(
        world
            .raw(Method::POST, "/api/auth/login")
            .header("x-forwarded-proto", "https")
            .json(&json!({"email": "ada@example.org", "password": PASSWORD})),
    )
    .await;
    assert!(https.header("set-cookie").ends_with("; Secure"), "{https:?}");
    let created = browser.ask(&world, Method::POST, "/api/agents", &new_agent("a")).await;
    assert_eq!(created.status, 202, "{created:?}");
    assert_eq!(browser.get(&world, "/api/agents").await.body["data"].as_array().unwrap().len(), 1);
    browser.get(&world, "/api/admin/users").await.problem(403, "forbidden");
    let stolen = browser.cookie.clone().unwrap();
    let out = browser.ask(&world, Method::POST, "/api/auth/logout", &Value::Null).await;
    assert_eq!((out.status, browser.cookie.clone()), (204, None), "{out:?}");
    Browser::holding(&stolen).get(&world, "/api/me").await.problem(401, "unauthorized");
    let again = Browser::holding(&stolen).ask(&world, Method::POST, "/api/auth/logout", &Value::Null).await;
    assert_eq!(again.status, 204, "{again:?}");
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_are_listed_and_ended() {
    let mut world = world().await;
    let (mut first, mut second) = (Browser::new(), Browser::new());
    first.sign_in(&world, "ada@example.org", PASSWORD).await;
    second.sign_in(&world, "ada@example.org", PASSWORD).await;
    world.restart().await;
    let list = first.get(&world, "/api/me/sessions").await;
    let sessions = list.body["data"].as_array().unwrap();
    assert_eq!(sessions.iter().map(|it| it["current"] == true).collect::<Vec<_>>(), [true, false], "{list:?}");
    assert_eq!((&sessions[0]["address"], &sessions[0]["by"]), (&json!("127.0.0.1"), &json!("password")));
    assert!(!list.text.contains("zs_") && !list.text.contains("hash"), "{list:?}");
    let path = format!("/api/me/sessions/{}", sessions[1]["id"].as_str().unwrap());
    assert_eq!(first.get(&world, &path).await.body, sessions[1]);
    let stranger = world.stranger().await;
    answer(world.raw(Method::GET, &path).bearer_auth(&stranger)).await.problem(404, "not-found");
    answer(world.raw(Method::DELETE, &path).bearer_auth(&stranger)).await.problem(404, "not-found");
    assert_eq!(first.ask(&world, Method::DELETE, &path, &Value::Null).await.status, 204);
    second.get(&world, "/api/me").await.problem(401, "unauthorized");
    second.sign_in(&world, "ada@example.org", PASSWORD).await;
    assert_eq!(first.ask(&world, Method::DELETE, "/api/me/sessions", &Value::Null).await.status, 204);
    second.get(&world, "/api/me").await.problem(401, "unauthorized");
    assert_eq!(first.get(&world, "/api/me").await.status, 200);
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_after_its_time_in_any_case() {
    let world = world().await;
    let mut browser = Browser::new();
    browser.sign_in(&world, "ada@example.org", PASSWORD).await;
    let hours = |n: i64| forward(&world, 3600 * n);
    for _ in 0..30 {
        hours(23);
        assert_eq!(browser.get(&world, "/api/me").await.status, 200);
    }
    hours(23);
    hours(2);
    browser.get(&world, "/api/me").await.problem(401, "unauthorized");
    browser.sign_in(&world, "ada@example.org", PASSWORD).await;
    for _ in 0..31 {
        hours(23);
        browser.get(&world, "/api/me").await;
    }
    hours(23);
    browser.get(&world, "/api/me").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn guesses_get_nowhere_and_do_not_tell_which_accounts_exist() {
    let world = world().await;
    let mut owner = Browser::new();
    owner.sign_in(&world, "ada@example.org", PASSWORD).await;
    let try_from = async |address: &str, email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        answer(world.raw(Method::POST, "/api/auth/login").header("x-forwarded-for", address).json(&body)).await
    };
    let mut answers = Vec::new();
    for email in ["ada@example.org", "nobody@example.org"] {
        for n in 0..18 {
            // Each is made after the longest wait that the one before can have led to.
            forward(&world, 15 * 60);
            let wrong = try_from(&format!("192.0.2.{n}"), email, "wrong horse battery").await;
            wrong.problem(401, "unauthorized");
            answers.push((wrong.body["detail"].clone(), wrong.body["title"].clone()));
        }
        for n in 0..200 {
            let slowed = try_from(&format!("198.51.100.{n}"), email, PASSWORD).await;
            slowed.problem(429, "rate-limited");
            assert!(slowed.header("retry-after").parse::<u64>().unwrap() > 800, "{slowed:?}");
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // Who is signed in already is not kept out by those who guess.
    let again = try_from("127.0.0.1", "ada@example.org", PASSWORD).await;
    assert_eq!(again.status, 200, "{again:?}");
    // After the wait another one is checked.
    forward(&world, 15 * 60);
    assert_eq!(try_from("203.0.113.1", "ada@example.org", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn no_page_of_another_origin_and_no_other_host_uses_a_session() {
    let world = world().await;
    let mut browser = Browser::new();
    browser.sign_in(&world, "ada@example.org", PASSWORD).await;
    let before = browser.cookie.clone().unwrap();
    let origin = format!("http://{}", world.at);
    for (name, value, allowed) in [
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "none", false),
        ("origin", "https://attacker.example", false),
        ("origin", "http://ada.agents.example.org", false),
        ("origin", "null", false),
        ("origin", &origin, true),
    ] {
        let from = |method, path: &str| world.raw(method, path).header("cookie", &before).header(name, value);
        let made = answer(from(Method::POST, "/api/keys").json(&json!({}))).await;
        assert_eq!(made.status, if allowed { 201 } else { 403 }, "{name} {value} {made:?}");
        let out = answer(from(Method::DELETE, "/api/me/sessions")).await;
        assert_eq!(out.status, if allowed { 204 } else { 403 }, "{name} {value} {out:?}");
        if !allowed {
            let login = json!({"email": "ada@example.org", "password": PASSWORD});
            answer(from(Method::POST, "/api/auth/login").json(&login)).await.problem(403, "forbidden");
            answer(from(Method::POST, "/api/auth/logout")).await.problem(403, "forbidden");
            let socket =
                from(Method::GET, "/api/agents").header("connection", "upgrade").header("upgrade", "websocket");
            answer(socket).await.problem(403, "forbidden");
        }
        assert_eq!(answer(from(Method::GET, "/api/me")).await.status, 200, "reads are safe: no page reads the answer");
    }
    let rebound = world.raw(Method::GET, "/api/me").header("cookie", &before).header("host", "attacker.example");
    answer(rebound).await.problem(403, "forbidden");
    let two = format!("{before}; zeroone_session=zs_planted");
    Browser::holding(&two).get(&world, "/api/me").await.problem(401, "unauthorized");
    // A key is no cookie: no browser sends it by itself.
    let keyed = world.request(Method::POST, "/api/keys").header("origin", "https://attacker.example").json(&json!({}));
    assert_eq!(answer(keyed).await.status, 201);
}

#[tokio::test]
async fn a_session_that_somebody_planted_is_worth_nothing_after_the_sign_in() {
    let world = world().await;
    let mut attacker = Browser::holding("zeroone_session=zs_planted");
    let welcome = attacker.sign_in(&world, "ada@example.org", PASSWORD).await;
    assert!(!welcome.header("set-cookie").contains("zs_planted"));
    Browser::holding("zeroone_session=zs_planted").get(&world, "/api/me").await.problem(401, "unauthorized");
    let first = attacker.cookie.clone().unwrap();
    attacker.sign_in(&world, "ada@example.org", PASSWORD).await;
    assert_ne!(attacker.cookie.as_ref(), Some(&first));
    Browser::holding(&first).get(&world, "/api/me").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions() {
    let world = world().await;
    let (mut here, mut there) = (Browser::new(), Browser::new());
    here.sign_in(&world, "ada@example.org", PASSWORD).await;
    there.sign_in(&world, "ada@example.org", PASSWORD).await;
    let change =
        async |browser: &mut Browser, body: Value| browser.ask(&world, Method::POST, "/api/me/password", &body).await;
    for (body, pointer) in [
        (json!({"password": "another horse battery"}), "/current"),
        (json!({"password": "another horse battery", "current": "wrong"}), "/current"),
        (json!({"password": "short", "current": PASSWORD}), "/password"),
    ] {
        let refused = change(&mut here, body).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), [pointer]);
    }
    let done = change(&mut here, json!({"password": "another horse battery", "current": PASSWORD})).await;
    assert_eq!(done.status, 204, "{done:?}");
    assert_eq!(here.get(&world, "/api/me").await.status, 200);
    there.get(&world, "/api/me").await.problem(401, "unauthorized");
    there.sign_in(&world, "ada@example.org", PASSWORD).await.problem(401, "unauthorized");
    assert_eq!(there.sign_in(&world, "ada@example.org", "another horse battery").await.status, 200);
    // A key must know the password too, and sets no first one.
    world.post("/api/me/password", &json!({"password": PASSWORD})).await.problem(422, "invalid");
    answer(
        world
            .raw(Method::POST, "/api/me/password")
            .bearer_auth(world.stranger().await)
            .json(&json!({"password": PASSWORD})),
    )
    .await
    .problem(403, "forbidden");
}

#[tokio::test]
async fn a_suspended_person_is_out_at_once_and_in_again_later() {
    let world = world().await;
    let id = world.running("a").await;
    let mut browser = Browser::new();
    browser.sign_in(&world, "ada@example.org", PASSWORD).await;
    let mut stream =
        browser.request(&world, Method::GET, "/api/events").header("accept", "text/event-stream").send().await.unwrap();
    let user = format!("/api/admin/users/{}", world.user);
    let set = async |status: &str| world.as_admin(Method::PATCH, &user, Some(&json!({"status": status}))).await;
    assert_eq!(set("suspended").await.status, 200);
    let mut buffer = String::new();
    while next_event(&mut stream, &mut buffer).await.is_some() {}
    browser.get(&world, "/api/me").await.problem(403, "suspended");
    Browser::new().sign_in(&world, "ada@example.org", PASSWORD).await.problem(403, "suspended");
    Browser::new().sign_in(&world, "ada@example.org", "wrong").await.problem(401, "unauthorized");
    let status = async || {
        let agent = world.as_admin(Method::GET, &format!("/api/agents/{id}"), None).await;
        agent.body["status"].as_str().unwrap_or_default().to_owned()
    };
    until("the agent is stopped", async || status().await == "STOPPED").await;
    assert_eq!(set("active").await.status, 200);
    assert_eq!(browser.get(&world, "/api/me").await.status, 200);
}

#[tokio::test]
async fn administrators_have_all_scopes_and_see_and_end_others_sessions() {
    let world = world().await;
    let root = world.as_admin(Method::GET, "/api/me", None).await.body["id"].as_str().unwrap().to_owned();
    give_password(&world, root.parse().unwrap(), PASSWORD).await;
    let mut admin = Browser::new();
    admin.sign_in(&world, "root@example.org", PASSWORD).await;
    admin.get(&world, "/api/admin/users").await.problem(403, "forbidden");
    let change = UserChange::default().with_administrator(true);
    world.plane.change_user(root.parse().unwrap(), change).await.unwrap();
    assert_eq!(admin.get(&world, "/api/me").await.body["administrator"], true);
    let mut user = Browser::new();
    user.sign_in(&world, "ada@example.org", PASSWORD).await;
    let path = format!("/api/admin/users/{}/sessions", world.user);
    let list = admin.get(&world, &path).await;
    assert_eq!(list.body["data"].as_array().unwrap().len(), 1, "{list:?}");
    assert_eq!(admin.ask(&world, Method::DELETE, &path, &Value::Null).await.status, 204);
    user.get(&world, "/api/me").await.problem(401, "unauthorized");
    // Keys that a person makes do not end with the browser's session.
    let made = admin.ask(&world, Method::POST, "/api/keys", &json!({"scopes": ["admin"]})).await;
    assert_eq!((made.status, &made.body["expiresAt"]), (201, &Value::Null), "{made:?}");
    admin.ask(&world, Method::POST, "/api/auth/logout", &Value::Null).await;
    let key = made.body["key"].as_str().unwrap();
    assert_eq!(answer(world.raw(Method::GET, "/api/admin/users").bearer_auth(key)).await.status, 200);
}

#[tokio::test]
async fn registration_is_closed_by_default_and_opens_by_configuration() {
    let world = world().await;
    let register = json!({"email": "bob@example.org", "password": PASSWORD});
    assert_eq!(
        answer(world.raw(Method::GET, "/api/auth")).await.body,
        json!({"registration": "closed", "provider": null})
    );
    Browser::new().ask(&world, Method::POST, "/api/auth/register", &register).await.problem(403, "forbidden");
    let world = registering(Registration::Open).await;
    let mut bob = Browser::new();
    let made = bob.ask(&world, Method::POST, "/api/auth/register", &register).await;
    assert_eq!((made.status, &made.body["plan"], &made.body["administrator"]), (201, &json!("free"), &json!(false)));
    assert_eq!(bob.get(&world, "/api/me").await.body["email"], "bob@example.org");
    Browser::new().ask(&world, Method::POST, "/api/auth/register", &register).await.problem(409, "name-taken");
    let weak = json!({"email": "carol", "password": "short"});
    let refused = Browser::new().ask(&world, Method::POST, "/api/auth/register", &weak).await;
    refused.problem(422, "invalid");
    assert_eq!(refused.pointers(), ["/email", "/password"]);
}

#[tokio::test]
async fn an_invitation_lets_one_person_in_once() {
    let world = registering(Registration::Invite).await;
    let invite = async |body: Value| world.as_admin(Method::POST, "/api/admin/invitations", Some(&body)).await;
    let register = async |email: &str, invitation: Option<&Value>| {
        let mut body = json!({"email": email, "password": PASSWORD});
        if let Some(invitation) = invitation {
            body["invitation"] = invitation.clone();
        }
        Browser::new().ask(&world, Method::POST, "/api/auth/register", &body).await
    };
    let made = invite(json!({"email": "Bob@example.org", "plan": "pro"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = &made.body["invitation"];
    let list = world.as_admin(Method::GET, "/api/admin/invitations", None).await;
    assert_eq!(list.body["data"][0]["email"], "bob@example.org");
    assert!(!list.text.contains(secret.as_str().unwrap()), "{list:?}");
    for (email, invitation) in
        [("bob@example.org", None), ("eve@example.org", Some(secret)), ("bob@example.org", Some(&json!("zt_guess")))]
    {
        let refused = register(email, invitation).await;
        refused.problem(422, "invalid");
        assert_eq!(refused.pointers(), ["/invitation"]);
    }
    let bob = register("bob@example.org", Some(secret)).await;
    assert_eq!((bob.status, &bob.body["plan"]), (201, &json!("pro")), "{bob:?}");
    register("carol@example.org", Some(secret)).await.problem(422, "invalid");
    let open = invite(json!({})).await;
    let withdrawn = format!("/api/admin/invitations/{}", open.body["id"].as_str().unwrap());
    assert_eq!(world.as_admin(Method::DELETE, &withdrawn, None).await.status, 204);
    register("carol@example.org", Some(&open.body["invitation"])).await.problem(422, "invalid");
    let late = invite(json!({})).await;
    forward(&world, 7 * 24 * 3600);
    register("carol@example.org", Some(&late.body["invitation"])).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_link_signs_in_once_and_sets_a_password() {
    let mut world = World::new(Plan::Pro).await;
    let path = format!("/api/admin/users/{}/sign-in-link", world.user);
    let link = world.as_admin(Method::POST, &path, None).await;
    assert_eq!(link.status, 201, "{link:?}");
    world.restart().await;
    let token = json!({"token": link.body["token"]});
    let mut browser = Browser::new();
    let welcome = browser.ask(&world, Method::POST, "/api/auth/link", &token).await;
    assert_eq!((welcome.status, &welcome.body["hasPassword"]), (200, &json!(false)), "{welcome:?}");
    let twice = Browser::new().ask(&world, Method::POST, "/api/auth/link", &token).await;
    twice.problem(422, "invalid");
    assert_eq!(twice.pointers(), ["/token"]);
    let password = json!({"password": PASSWORD});
    assert_eq!(browser.ask(&world, Method::POST, "/api/me/password", &password).await.status, 204);
    // For a quarter of an hour also where there was one.
    assert_eq!(browser.ask(&world, Method::POST, "/api/me/password", &password).await.status, 204);
    forward(&world, 15 * 60);
    browser.ask(&world, Method::POST, "/api/me/password", &password).await.problem(422, "invalid");
    assert_eq!(Browser::new().sign_in(&world, "ada@example.org", PASSWORD).await.status, 200);
}
