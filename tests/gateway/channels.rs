//! Messages from and to platforms, with doubles that look at what they are sent.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::model::Reply;
use super::platform::{Call, Platform};
use super::world::{World, both, eventually};

fn sign(secret: &str, parts: &[&str]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn first_call(platform: &Platform) -> Call {
    eventually(async || platform.calls().into_iter().next()).await
}

async fn whatsapp(platform: &Platform) -> World {
    World::new(&format!(
        "[channels_config.whatsapp]\naccess_token = \"at\"\nphone_number_id = \"55\"\nverify_token = \"vt\"\n\
         app_secret = \"as\"\nallowed_numbers = [\"+41790000001\"]\napi_base = \"{}\"\n",
        platform.url()
    ))
    .await
}

fn whatsapp_message(from: &str, id: &str, text: &str) -> String {
    let message = json!({ "from": from, "id": id, "type": "text", "text": { "body": text } });
    json!({ "entry": [{ "changes": [{ "value": { "messages": [message] } }] }] }).to_string()
}

async fn post_signed(world: &World, path: &str, secret: &str, body: String, event: &str) -> (u16, Value) {
    let signature = format!("sha256={}", sign(secret, &[&body]));
    let request =
        world.http.post(world.url(path)).header("X-Hub-Signature-256", signature).header("X-GitHub-Event", event);
    let (status, body) = both(request.body(body).send().await.unwrap()).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn whatsapp_is_verified_signed_and_answered() {
    let platform = Platform::start().await;
    let world = whatsapp(&platform).await;
    let verify = async |query: &str| {
        let answer = world.http.get(world.url(&format!("/whatsapp?{query}"))).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(verify("hub.mode=subscribe&hub.verify_token=vt&hub.challenge=abc").await, (200, "abc".into()));
    assert_eq!(verify("hub.mode=subscribe&hub.verify_token=no&hub.challenge=abc").await, (403, "Forbidden".into()));

    let body = || whatsapp_message("41790000001", "wamid.1", "hello");
    assert_eq!(post_signed(&world, "/whatsapp", "wrong", body(), "").await.0, 401);
    assert_eq!(post_signed(&world, "/whatsapp", "as", body(), "").await, (200, json!({ "status": "ok" })));
    let call = first_call(&platform).await;
    assert_eq!((call.path.as_str(), call.header("authorization")), ("/55/messages", "Bearer at"));
    let sent = call.json();
    assert_eq!((&sent["to"], &sent["text"]["body"]), (&json!("41790000001"), &json!("echo: hello")));

    // Sent again by a platform that thought it was lost, from a stranger, and something that is no message.
    assert_eq!(post_signed(&world, "/whatsapp", "as", body(), "").await.0, 200);
    assert_eq!(post_signed(&world, "/whatsapp", "as", whatsapp_message("999", "wamid.2", "hi"), "").await.0, 200);
    assert_eq!(post_signed(&world, "/whatsapp", "as", json!({ "entry": [] }).to_string(), "").await.0, 200);
    assert_eq!(post_signed(&world, "/whatsapp", "as", "{".into(), "").await.0, 200, "signed");
    assert_eq!(
        post_signed(&world, "/whatsapp", "as", whatsapp_message("41790000001", "wamid.3", "more"), "").await.0,
        200
    );
    eventually(async || (platform.calls().len() == 2).then_some(())).await;
    assert_eq!(world.model.calls().len(), 2, "one call for each message that counts");
    let conversation = world.model.calls()[1].body["messages"].clone();
    assert_eq!(conversation[2]["content"], "echo: hello", "what was said before is known");
}

#[tokio::test]
async fn platforms_that_are_not_configured_or_not_signed_are_refused() {
    let world = World::new("[channels_config.github]\naccess_token = \"t\"\n").await;
    for path in ["/whatsapp", "/nextcloud-talk"] {
        assert_eq!(both(world.post(path).body("{}").send().await.unwrap()).await.0, 404);
    }
    assert_eq!(world.get("/whatsapp").send().await.unwrap().status(), 404);
    // Without a secret nothing can be believed, not even what is "signed" with an empty one.
    assert_eq!(post_signed(&world, "/github", "", "{}".into(), "issues").await.0, 401);
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_to_the_one_who_asked() {
    let platform = Platform::start().await;
    let world = whatsapp(&platform).await;
    world.model.script([Reply::Status(400, vec![], "{}")]);
    post_signed(&world, "/whatsapp", "as", whatsapp_message("41790000001", "1", "hi"), "").await;
    assert!(first_call(&platform).await.json()["text"]["body"].as_str().unwrap().starts_with("Sorry"));
}

fn github_comment(user: &str, kind: &str, repository: &str, id: u64, text: &str) -> String {
    json!({
        "action": "created",
        "repository": { "full_name": repository },
        "sender": { "login": user, "type": kind },
        "issue": { "number": 7, "title": "t", "body": "b" },
        "comment": { "id": id, "body": text },
    })
    .to_string()
}

#[tokio::test]
async fn github_comments_and_issues_are_answered_by_a_comment_but_never_its_own() {
    let platform = Platform::start().await;
    let world = World::new(&format!(
        "[channels_config.github]\naccess_token = \"ght\"\nwebhook_secret = \"ws\"\nallowed_repos = [\"ada/engine\"]\n\
         allowed_users = [\"ada\"]\nmention = \"@bot\"\napi_base = \"{}\"\n",
        platform.url()
    ))
    .await;
    let comment = async |user: &str, kind: &str, repository: &str, id: u64, text: &str| {
        post_signed(&world, "/github", "ws", github_comment(user, kind, repository, id, text), "issue_comment").await.1
    };
    assert_eq!(comment("ada", "User", "ada/engine", 1, "@bot hello").await["status"], "ok");
    let call = first_call(&platform).await;
    assert_eq!(
        (call.path.as_str(), call.header("authorization")),
        ("/repos/ada/engine/issues/7/comments", "Bearer ght")
    );
    assert!(!call.header("user-agent").is_empty());
    let ours = call.json()["body"].as_str().unwrap().to_owned();
    assert!(ours.starts_with("echo: @bot hello"));

    for (user, kind, repository, id, text) in [
        ("ada", "User", "ada/engine", 2, ours.as_str()),
        ("ada", "Bot", "ada/engine", 3, "@bot hi"),
        ("eve", "User", "ada/engine", 4, "@bot hi"),
        ("ada", "User", "eve/engine", 5, "@bot hi"),
        ("ada", "User", "ada/engine", 6, "not for the agent"),
    ] {
        assert_eq!(comment(user, kind, repository, id, text).await["status"], "ignored", "{id}");
    }
    let opened = json!({
        "action": "opened", "repository": { "full_name": "ada/engine" }, "sender": { "login": "ada", "type": "User" },
        "issue": { "number": 9, "title": "@bot it breaks", "body": "badly" },
    });
    assert_eq!(post_signed(&world, "/github", "ws", opened.to_string(), "issues").await.1["status"], "ok");
    let second = eventually(async || platform.calls().into_iter().nth(1)).await;
    assert_eq!(second.path, "/repos/ada/engine/issues/9/comments");
    let review = github_comment("ada", "User", "ada/engine", 10, "@bot look").replace("\"issue\"", "\"pull_request\"");
    assert_eq!(post_signed(&world, "/github", "ws", review, "pull_request_review_comment").await.1["status"], "ok");
    assert_eq!(post_signed(&world, "/github", "ws", "{}".into(), "ping").await.0, 200);
    assert_eq!(post_signed(&world, "/github", "bad", "{}".into(), "ping").await.0, 401);
    eventually(async || (platform.calls().len() == 3).then_some(())).await;
}

#[tokio::test]
async fn limits_of_platforms_delay_an_answer_and_do_not_lose_it() {
    let platform = Platform::start().await;
    let world = whatsapp(&platform).await;
    let limit = json!({ "error": { "message": "(#131056) pair rate limit hit", "code": 131_056 } });
    platform.script([(400, limit)]);
    post_signed(&world, "/whatsapp", "as", whatsapp_message("41790000001", "1", "hi"), "").await;
    eventually(async || (platform.calls().len() == 2).then_some(())).await;
    let said: Vec<Value> = platform.calls().iter().map(|call| call.json()["text"]["body"].clone()).collect();
    assert_eq!(said, ["echo: hi", "echo: hi"]);

    let platform = Platform::start().await;
    let world = World::new(&format!(
        "[channels_config.github]\naccess_token = \"t\"\nwebhook_secret = \"ws\"\nallowed_repos = [\"ada/*\"]\n\
         allowed_users = [\"*\"]\napi_base = \"{}\"\n",
        platform.url()
    ))
    .await;
    let comment = async |repository: &str, id: u64, text: &str| {
        post_signed(&world, "/github", "ws", github_comment("ada", "User", repository, id, text), "issue_comment")
            .await
            .1
    };
    assert_eq!(comment("eve/engine", 1, "hello").await["status"], "ignored");
    platform.refuse(403, ("retry-after", "0.2"), json!({ "message": "You have exceeded a secondary rate limit." }));
    assert_eq!(comment("ada/engine", 2, "hello").await["status"], "ok");
    eventually(async || (platform.calls().len() == 2).then_some(())).await;
    // What is no limit is refused once and for all.
    platform.script([(403, json!({ "message": "Resource not accessible by personal access token" }))]);
    assert_eq!(comment("ada/engine", 3, "refused").await["status"], "ok");
    eventually(async || (platform.calls().len() == 3).then_some(())).await;
    assert_eq!(comment("ada/loom", 4, "more").await["status"], "ok");
    let last = eventually(async || platform.calls().into_iter().nth(3)).await;
    assert_eq!(last.path, "/repos/ada/loom/issues/7/comments");
    assert_eq!(world.model.calls().len(), 3, "an answer that waits is not made again");
}

#[tokio::test]
async fn nextcloud_talk_signs_both_ways() {
    let platform = Platform::start().await;
    let world = World::new(&format!(
        "[channels_config.nextcloud_talk]\nbase_url = \"{}\"\nwebhook_secret = \"bot\"\nallowed_users = [\"ada\"]\n",
        platform.url()
    ))
    .await;
    let post = async |secret: &str, actor: Value, id: u64| {
        let object =
            json!({ "type": "Note", "id": id, "content": json!({ "message": "hello", "parameters": [] }).to_string() });
        let body =
            json!({ "type": "Create", "actor": actor, "object": object, "target": { "id": "room1" } }).to_string();
        let signature = sign(secret, &["random", &body]);
        let request = world.http.post(world.url("/nextcloud-talk"));
        let request =
            request.header("X-Nextcloud-Talk-Random", "random").header("X-Nextcloud-Talk-Signature", signature);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    let ada = json!({ "type": "Person", "id": "users/ada", "name": "Ada" });
    assert_eq!(post("wrong", ada.clone(), 1).await, 401);
    assert_eq!(post("bot", json!({ "type": "Application", "id": "bots/x", "name": "ada" }), 2).await, 200);
    assert_eq!(post("bot", json!({ "type": "Person", "id": "users/eve", "name": "Eve" }), 3).await, 200);
    assert_eq!(post("bot", ada, 4).await, 200);
    let call = first_call(&platform).await;
    assert_eq!(call.path, "/ocs/v2.php/apps/spreed/api/v1/bot/room1/message");
    assert_eq!((call.header("ocs-apirequest"), &call.json()["message"]), ("true", &json!("echo: hello")));
    let random = call.header("x-nextcloud-talk-bot-random");
    assert_eq!(call.header("x-nextcloud-talk-bot-signature"), sign("bot", &[random, "echo: hello"]));
    assert_eq!(world.model.calls().len(), 1);
}

#[tokio::test]
async fn whatsapp_choices_forms_and_files_are_answered_and_news_are_not() {
    let platform = Platform::start().await;
    let world = whatsapp(&platform).await;
    let mut number = 0;
    let mut post = async |more: Value| {
        number += 1;
        let mut message = json!({ "from": "41790000001", "id": format!("w{number}"), "timestamp": "1" });
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let value = json!({ "metadata": { "phone_number_id": "55" }, "messages": [message] });
        let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": value }] }] });
        assert_eq!(post_signed(&world, "/whatsapp", "as", body.to_string(), "").await.0, 200, "{more}");
    };
    post(json!({ "type": "interactive", "interactive": { "type": "list_reply", "list_reply": { "id": "1", "title": "Tea" } } })).await;
    post(json!({ "type": "button", "button": { "text": "Go on", "payload": "p" } })).await;
    post(json!({ "type": "reaction", "reaction": { "message_id": "w1", "emoji": "x" } })).await;
    post(json!({ "type": "audio", "audio": { "id": "a" } })).await;
    post(json!({ "type": "sticker", "sticker": { "id": "s" } })).await;
    post(json!({ "type": "document", "document": { "id": "d", "caption": "read this" } })).await;
    let said = eventually(async || {
        let said: Vec<String> =
            platform.calls().iter().map(|call| call.json()["text"]["body"].as_str().unwrap().to_owned()).collect();
        said.last().is_some_and(|last| last.contains("read this")).then_some(said)
    })
    .await;
    assert_eq!(said[..3], ["echo: Tea", "echo: Go on", "Sorry, I can only read text."]);
    assert_eq!(said.len(), 4, "one notice for both files: {said:?}");
    let statuses = json!({ "entry": [{ "changes": [{ "value": { "statuses": [{ "status": "read" }] } }] }] });
    assert_eq!(post_signed(&world, "/whatsapp", "as", statuses.to_string(), "").await.0, 200);
    let component =
        async || both(world.get("/health").send().await.unwrap()).await.1["runtime"]["components"]["whatsapp"].clone();
    assert_ne!(component().await["status"], "error");
    let errors =
        json!([{ "code": 131_047, "title": "Re-engagement message", "error_data": { "details": "24 hours" } }]);
    let value = json!({ "statuses": [{ "id": "w1", "status": "failed", "errors": errors }] });
    let refused = json!({ "entry": [{ "changes": [{ "value": value }] }] });
    assert_eq!(post_signed(&world, "/whatsapp", "as", refused.to_string(), "").await.0, 200);
    let component = component().await;
    assert_eq!(component["status"], "error");
    assert!(component.to_string().contains("131047, Re-engagement message, 24 hours"), "{component}");
}

#[tokio::test]
async fn github_forms_are_read_and_threads_answered_where_they_are() {
    let platform = Platform::start().await;
    let world = World::new(&format!(
        "[channels_config.github]\naccess_token = \"t\"\nwebhook_secret = \"ws\"\nallowed_repos = \"ada/engine\"\n\
         allowed_users = [\"*\"]\napi_base = \"{}\"\n",
        platform.url()
    ))
    .await;
    let comment = github_comment("ada", "User", "ada/engine", 5, "in a form");
    let body = format!("payload={}", comment.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>());
    let request = world.http.post(world.url("/github")).header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("X-Hub-Signature-256", format!("sha256={}", sign("ws", &[&body])));
    let answer = request.header("X-GitHub-Event", "issue_comment").body(body).send().await.unwrap();
    assert_eq!(both(answer).await, (reqwest::StatusCode::OK, json!({ "status": "ok" })));
    assert_eq!(first_call(&platform).await.path, "/repos/ada/engine/issues/7/comments");

    let review = github_comment("ada", "User", "ada/engine", 6, "why?").replace("\"issue\"", "\"pull_request\"");
    assert_eq!(post_signed(&world, "/github", "ws", review, "pull_request_review_comment").await.1["status"], "ok");
    let second = eventually(async || platform.calls().into_iter().nth(1)).await;
    assert_eq!(second.path, "/repos/ada/engine/pulls/7/comments/6/replies");
    for odd in ["{", "[]", "{\"action\":\"created\"}"] {
        let (status, body) = post_signed(&world, "/github", "ws", odd.into(), "issue_comment").await;
        assert_eq!((status, &body["status"]), (200, &json!("ignored")), "{odd}");
    }
}

#[tokio::test]
async fn nextcloud_placeholders_are_filled_in_and_system_messages_are_nothing() {
    let platform = Platform::start().await;
    let world = World::new(&format!(
        "[channels_config.nextcloud_talk]\nbase_url = \"{}\"\nwebhook_secret = \"bot\"\nallowed_users = [\"*\"]\n",
        platform.url()
    ))
    .await;
    let post = async |event: Value| {
        let body = event.to_string();
        let request = world.http.post(world.url("/nextcloud-talk")).header("X-Nextcloud-Talk-Random", "r");
        let request = request.header("X-Nextcloud-Talk-Signature", sign("bot", &["r", &body]));
        request.body(body).send().await.unwrap().status().as_u16()
    };
    let event = |id: u64, message: &str, parameters: Value| {
        let content = json!({ "message": message, "parameters": parameters }).to_string();
        json!({ "type": "Create", "actor": { "type": "Person", "id": "users/ada" }, "target": { "id": "room1" },
            "object": { "type": "Note", "id": id.to_string(), "name": "message", "content": content } })
    };
    assert_eq!(
        post(event(1, "ask {mention-user1}", json!({ "mention-user1": { "type": "user", "name": "Bob" } }))).await,
        200
    );
    let call = first_call(&platform).await;
    assert_eq!((&call.json()["message"], &call.json()["replyTo"]), (&json!("echo: ask @Bob"), &json!(1)));
    let mut joined = event(2, "{actor} joined", json!({ "actor": { "type": "user", "name": "Bob" } }));
    joined["object"]["name"] = "user_added".into();
    assert_eq!(post(joined).await, 200);
    assert_eq!(
        post(json!({ "type": "Join", "actor": {}, "object": { "type": "Collection", "id": "room1" } })).await,
        200
    );
    assert_eq!(post(json!("nonsense")).await, 200);
    assert_eq!(post(event(3, "{file}", json!({ "file": { "type": "file", "name": "voice.mp3" } }))).await, 200);
    let second = eventually(async || platform.calls().into_iter().nth(1)).await;
    assert_eq!(second.json()["message"], "Sorry, I can only read text.");
    assert_eq!(world.model.calls().len(), 1);
}

#[tokio::test]
async fn a_channel_that_cannot_work_is_off_alone_and_named() {
    let platform = Platform::start().await;
    let world = World::paired(&format!(
        "[channels_config.whatsapp]\nsession_path = \"/x\"\nallowed_numbers = [\"*\"]\n\
         [channels_config.discord]\nbot_token = 7\n\
         [channels_config.github]\naccess_token = \"enc2:planted\"\n\
         [channels_config.slack]\nbot_token = \"st\"\nchannel_id = \"C1\"\nallowed_users = [\"U1\"]\napi_base = \"{}\"\n",
        platform.url()
    ))
    .await;
    assert_eq!(world.say("hi").await.0, 200);
    let status = both(world.get("/api/status").send().await.unwrap()).await.1;
    let channels = ["whatsapp", "discord", "github", "slack"].map(|name| status["channels"][name].clone());
    assert_eq!(channels, [false, false, false, true]);
    let doctor = both(world.get("/api/doctor").send().await.unwrap()).await.1.to_string();
    for words in
        ["whatsapp is off: access_token is missing", "Web mode", "discord is off", "github is off", "slack only sends"]
    {
        assert!(doctor.contains(words), "{words}: {doctor}");
    }
    assert!(!doctor.contains("planted"));
    let health = both(world.get("/health").send().await.unwrap()).await.1;
    assert_eq!(health["runtime"]["components"]["whatsapp"]["status"], "error");
}

#[tokio::test]
async fn the_agent_writes_to_those_who_may_be_written_to_and_nobody_else() {
    let platform = Platform::start().await;
    let base = platform.url();
    let world = World::paired(&format!(
        "[channels_config.slack]\nbot_token = \"st\"\nchannel_id = \"C1\"\napi_base = \"{base}\"\n\
         [channels_config.discord]\nbot_token = \"dt\"\nguild_id = \"G\"\napi_base = \"{base}\"\n"
    ))
    .await;
    let send = async |channel: &str, to: &str, text: &str| {
        world
            .model
            .script([Reply::Tools(vec![("send_message", json!({ "channel": channel, "to": to, "text": text }))])]);
        let request = json!({ "message": "go" });
        both(world.post("/api/chat").json(&request).send().await.unwrap()).await.1["tool_calls"][0]["success"] == true
    };
    assert!(send("slack", "C1", "hi").await);
    assert!(!send("slack", "C2", "hi").await);
    platform.script([(200, json!({ "ok": false, "error": "channel_not_found" }))]);
    assert!(!send("slack", "C1", "hi").await, "Slack says no with 200");

    platform.script([(200, json!({ "id": "5", "guild_id": "G" }))]);
    assert!(send("discord", "5", &"word ".repeat(500)).await);
    let discord: Vec<Call> = platform.calls().into_iter().filter(|call| call.path == "/channels/5/messages").collect();
    assert_eq!(discord.len(), 2, "cut where Discord's limit is");
    assert_eq!(discord[0].header("authorization"), "Bot dt");
    platform.script([(200, json!({ "id": "6", "guild_id": "other" }))]);
    assert!(!send("discord", "6", "hi").await);
    assert!(!send("discord", "5/../6", "hi").await);
}

#[tokio::test]
async fn the_webhook_secret_is_a_second_lock() {
    let world = World::paired("[channels_config.webhook]\nport = 1\nsecret = \"open sesame\"\n").await;
    let (status, body) = world.say("hi").await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (401, &json!("Unauthorized — invalid or missing X-Webhook-Secret header"))
    );
    let with = |secret: &'static str| {
        world.post("/webhook").header("X-Webhook-Secret", secret).json(&json!({ "message": "hi" }))
    };
    assert_eq!(with("wrong").send().await.unwrap().status(), 401);
    assert_eq!(with("open sesame").send().await.unwrap().status(), 200);
    // One that ZeroClaw encrypted is no secret: whoever reads the file knows its text.
    let world = World::paired("[channels_config.webhook]\nport = 1\nsecret = \"enc2:00aa\"\n").await;
    let known = world.post("/webhook").header("X-Webhook-Secret", "enc2:00aa").json(&json!({ "message": "hi" }));
    assert_eq!(known.send().await.unwrap().status(), 401);
}
