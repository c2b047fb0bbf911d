//! Codes, tokens, lockout and limits.

use serde_json::json;

use super::world::{World, both};

#[tokio::test]
async fn health_is_open_and_has_zeroclaws_shape() {
    let world = World::new("").await;
    let (status, body) = both(world.get("/health").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&body["status"], &body["paired"], &body["require_pairing"]),
        (&json!("ok"), &json!(false), &json!(true))
    );
    assert!(body["runtime"]["pid"].is_u64() && body["runtime"]["uptime_seconds"].is_u64());
    assert_eq!(body["runtime"]["components"]["gateway"]["status"], "ok");
}

#[tokio::test]
async fn the_code_is_shown_in_both_forms_and_gives_a_token_that_works() {
    let mut world = World::new("").await;
    let code = world.code().unwrap();
    assert!(world.banner().contains("🔐 PAIRING REQUIRED") && world.banner().contains(&format!("│  {code}  │")));
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 401);
    let answer = world.pair().await;
    assert_eq!((&answer["paired"], &answer["persisted"]), (&json!(true), &json!(true)));
    assert!(answer["message"].as_str().unwrap().starts_with("Save this token"));
    let (status, body) = both(world.get("/api/status").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["model"]), (200, &json!("m")));
}

#[tokio::test]
async fn only_the_exact_bearer_form_is_taken() {
    let world = World::paired("").await;
    for value in
        [format!("bearer {}", world.token()), world.token().to_owned(), "Bearer zc_wrong".into(), "Bearer ".into()]
    {
        let answer = world.http.get(world.url("/api/status")).header("Authorization", value).send().await.unwrap();
        let (status, body) = both(answer).await;
        assert_eq!(status, 401);
        assert!(body["error"].as_str().unwrap().starts_with("Unauthorized — pair first via POST /pair"));
    }
}

#[tokio::test]
async fn a_token_outlives_a_restart_as_a_hash_and_no_new_code_is_given() {
    let mut world = World::paired("# keep this comment\n").await;
    let saved = world.config_text();
    assert!(saved.contains("paired_tokens") && saved.contains("# keep this comment"));
    assert!(!saved.contains(world.token()) && !saved.contains(&world.token()[3..]));
    world.restart().await;
    assert!(world.code().is_none() && world.banner().contains("🔒 Pairing: ACTIVE (bearer token required)"));
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_token_that_cannot_be_saved_works_until_the_next_start_and_says_so() {
    let mut world = World::new("").await;
    // A folder in the file's place fails for root too, whom permissions do not stop.
    let path = world.config_path();
    let config = world.config_text();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let answer = world.pair().await;
    assert_eq!((&answer["paired"], &answer["persisted"]), (&json!(true), &json!(false)));
    assert!(answer["message"].as_str().unwrap().contains("failed to persist"));
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 200);
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, config).unwrap();
    world.restart().await;
    assert!(world.code().is_some());
}

#[tokio::test]
async fn wrong_missing_and_used_codes_are_403_and_then_the_client_is_locked_out() {
    let world = World::new("").await;
    let try_code = async |code: Option<&str>| {
        let request = world.http.post(world.url("/pair"));
        let request = match code {
            Some(code) => request.header("X-Pairing-Code", code),
            None => request,
        };
        request.send().await.unwrap()
    };
    for code in [Some("nope"), None, Some("")] {
        let (status, body) = both(try_code(code).await).await;
        assert_eq!((status.as_u16(), body), (403, json!({ "error": "Invalid pairing code" })));
    }
    let answer = try_code(world.code().as_deref()).await;
    assert!(answer.headers().contains_key("retry-after"));
    let (status, body) = both(answer).await;
    assert_eq!(status, 429);
    assert!(body["error"].as_str().unwrap().starts_with("Too many failed attempts. Try again in "));
    let wait = body["retry_after"].as_u64().unwrap();
    assert!((290..=300).contains(&wait), "{wait}");
}

#[tokio::test]
async fn lockout_and_its_threshold_are_configurable() {
    let world = World::new("[pairing]\nmax_failures = 1\nlockout_secs = 7\n").await;
    let wrong = || world.post("/pair").header("X-Pairing-Code", "nope").send();
    assert_eq!(wrong().await.unwrap().status(), 403);
    let (status, body) = both(wrong().await.unwrap()).await;
    assert_eq!(status, 429);
    assert!(body["retry_after"].as_u64().unwrap() <= 7);
}

#[tokio::test]
async fn a_restart_ends_a_lockout_and_a_used_code_pairs_nobody_again() {
    let mut world = World::new("[pairing]\nmax_failures = 1\n").await;
    world.post("/pair").send().await.unwrap();
    assert_eq!(world.post("/pair").send().await.unwrap().status(), 429);
    world.restart().await;
    let code = world.code().unwrap();
    world.pair().await;
    assert_eq!(world.post("/pair").header("X-Pairing-Code", code).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn pairing_is_limited_per_minute_before_codes_are_looked_at() {
    let world = World::new("[gateway]\npair_rate_limit_per_minute = 2\n[pairing]\nmax_failures = 100\n").await;
    for _ in 0..2 {
        assert_eq!(world.post("/pair").send().await.unwrap().status(), 403);
    }
    let (status, body) = both(world.post("/pair").send().await.unwrap()).await;
    assert_eq!(status, 429);
    assert_eq!(body["error"], "Too many pairing requests. Please retry later.");
    assert!((1..=60).contains(&body["retry_after"].as_u64().unwrap()));
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_others_cannot() {
    let attempt = async |world: &World, client: &str| {
        world.post("/pair").header("X-Forwarded-For", client).send().await.unwrap().status().as_u16()
    };
    let strict = "[pairing]\nmax_failures = 1\n[gateway]\n";
    let proxied = World::new(&format!("{strict}trusted_proxies = [\"127.0.0.0/8\"]\n")).await;
    assert_eq!(attempt(&proxied, "203.0.113.1").await, 403);
    assert_eq!(attempt(&proxied, "203.0.113.1").await, 429);
    assert_eq!(attempt(&proxied, "203.0.113.2").await, 403);
    let direct = World::new(strict).await;
    assert_eq!(attempt(&direct, "203.0.113.1").await, 403);
    assert_eq!(attempt(&direct, "203.0.113.2").await, 429);
}

#[tokio::test]
async fn the_alphanumeric_code_form_pairs_too() {
    let mut world = World::new("[pairing]\ncode_format = \"alnum8\"\n").await;
    assert_eq!(world.code().unwrap().len(), 9);
    assert_eq!(world.pair().await["paired"], true);
}

#[tokio::test]
async fn without_pairing_everyone_may_come_in() {
    let world = World::new("[gateway]\nrequire_pairing = false\n").await;
    assert!(world.banner().contains("Pairing: DISABLED"));
    assert_eq!(world.get("/api/status").send().await.unwrap().status(), 200);
    assert_eq!(world.post("/pair").send().await.unwrap().status(), 403);
}
