//! Nothing that was taken is lost or answered twice: over stops, kills at every step, and floods.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::model::{FakeModel, Reply};
use super::telegram_server::{Fate, TelegramServer};
use super::world::{World, eventually};

/// A gateway process that is killed rather than stopped.
struct Process {
    home: TempDir,
    child: Option<Child>,
}

impl Process {
    fn new(model: &FakeModel, channels: &str) -> Self {
        let home = TempDir::new().unwrap();
        std::fs::create_dir_all(home.path().join(".zeroclaw")).unwrap();
        let config = format!(
            "default_provider = \"custom:{}\"\ndefault_model = \"m\"\napi_key = \"sk-planted-key\"\n{channels}",
            model.url()
        );
        std::fs::write(home.path().join(".zeroclaw/config.toml"), config).unwrap();
        let mut process = Self { home, child: None };
        process.start();
        process
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeroone"));
        command.arg("gateway").env_clear().env("HOME", self.home.path()).env("ZEROCLAW_GATEWAY_PORT", "0");
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn restart(&mut self) {
        self.kill();
        self.start();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

const SORRY: &str = "Sorry, I was interrupted";

/// Waits until everything of a chat is worked off: conversations are answered in order.
async fn settled(telegram: &TelegramServer, chat: i64) -> Vec<String> {
    telegram.text(chat, "last");
    eventually(async || telegram.texts(chat).last().is_some_and(|last| last == "echo: last").then_some(())).await;
    let mut texts = telegram.texts(chat);
    texts.pop();
    texts
}

/// Either one answer or one apology, and never an answer twice.
fn once_or_sorry(texts: &[String], answer: &str) {
    let answers = texts.iter().filter(|text| *text == answer).count();
    let sorries = texts.iter().filter(|text| text.starts_with(SORRY)).count();
    assert!(answers <= 1 && sorries <= 1 && answers + sorries >= 1, "{texts:?}");
}

#[tokio::test]
async fn killed_while_the_model_is_asked_the_next_process_answers_once() {
    let (model, telegram) = (FakeModel::start().await, TelegramServer::start().await);
    let mut process = Process::new(&model, &telegram.config(""));
    model.script([Reply::Hang]);
    telegram.text(5, "hello");
    eventually(async || (model.calls().len() == 1).then_some(())).await;
    process.restart();
    assert_eq!(settled(&telegram, 5).await, ["echo: hello"]);
}

#[tokio::test]
async fn killed_while_it_sends_the_answer_is_not_sent_again_but_the_person_hears_of_it() {
    let (model, telegram) = (FakeModel::start().await, TelegramServer::start().await);
    let mut process = Process::new(&model, &telegram.config(""));
    telegram.fate(Fate::ArrivesWithoutAnswer);
    telegram.text(5, "hello");
    eventually(async || (telegram.sent(5).len() == 1).then_some(())).await;
    // And once more while it apologizes.
    telegram.fate(Fate::ArrivesWithoutAnswer);
    process.restart();
    eventually(async || (telegram.sent(5).len() == 2).then_some(())).await;
    process.restart();
    let texts = settled(&telegram, 5).await;
    once_or_sorry(&texts, "echo: hello");
    assert_eq!(texts.len(), 2);
    assert_eq!(model.calls().len(), 2, "the model is not asked for the same again");
}

#[tokio::test]
async fn killed_when_it_just_polled_nothing_is_lost_or_doubled() {
    let (model, telegram) = (FakeModel::start().await, TelegramServer::start().await);
    let mut process = Process::new(&model, &telegram.config(""));
    for round in 0..5 {
        let chat = 10 + round;
        telegram.text(chat, "hello");
        // Sometimes before, sometimes after the message is in the inbox.
        tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
        process.restart();
        once_or_sorry(&settled(&telegram, chat).await, "echo: hello");
    }
}

#[tokio::test]
async fn killed_again_and_again_each_message_is_answered_once_or_apologized_for() {
    let (model, telegram) = (FakeModel::start().await, TelegramServer::start().await);
    let mut process = Process::new(&model, &telegram.config(""));
    let chats = [21, 22, 23];
    for kill in 0..8_u64 {
        for chat in chats {
            telegram.text(chat, &format!("message {kill}"));
        }
        tokio::time::sleep(Duration::from_millis(40 + 37 * kill % 90)).await;
        process.restart();
        // An apology is never sent twice either, so one that a second kill hits may be lost: one kill for each message.
        for chat in chats {
            eventually(async || (telegram.texts(chat).len() as u64 > kill).then_some(())).await;
        }
    }
    for chat in chats {
        let texts = settled(&telegram, chat).await;
        let sorries = texts.iter().filter(|text| text.starts_with("Sorry")).count();
        let mut missing = 0;
        for kill in 0..8 {
            let answers = texts.iter().filter(|text| **text == format!("echo: message {kill}")).count();
            assert!(answers <= 1, "{texts:?}");
            missing += 1 - answers;
        }
        assert!(missing <= sorries && sorries <= 8, "{texts:?}");
    }
    eventually(async || telegram.all_confirmed().then_some(())).await;
}

#[tokio::test]
async fn a_message_that_kills_the_process_each_time_is_given_up_with_one_apology() {
    let (model, telegram) = (FakeModel::start().await, TelegramServer::start().await);
    let mut process = Process::new(&model, &telegram.config(""));
    model.script([Reply::Hang, Reply::Hang, Reply::Hang]);
    telegram.text(5, "poison");
    for tries in 1..=3 {
        eventually(async || (model.calls().len() == tries).then_some(())).await;
        process.restart();
    }
    let texts = settled(&telegram, 5).await;
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with("Sorry, I could not answer that"), "{texts:?}");
}

#[tokio::test]
async fn a_stop_waits_for_answers_under_way_and_leaves_the_rest_to_the_next_start() {
    let telegram = TelegramServer::start().await;
    let mut world = World::new(&format!("[gateway]\nshutdown_grace_secs = 1\n{}", telegram.config(""))).await;
    world.model.script([Reply::Hang]);
    telegram.text(5, "slow");
    telegram.text(5, "after it");
    eventually(async || (world.model.calls().len() == 1).then_some(())).await;
    world.restart().await;
    eventually(async || (telegram.sent(5).len() == 2).then_some(())).await;
    assert_eq!(telegram.texts(5), ["echo: slow", "echo: after it"], "in order, and each once");
}

#[tokio::test]
async fn one_slow_conversation_delays_no_other() {
    let telegram = TelegramServer::start().await;
    let world = World::new(&telegram.config("")).await;
    world.model.script([Reply::Hang]);
    telegram.text(5, "slow");
    eventually(async || (world.model.calls().len() == 1).then_some(())).await;
    telegram.text(5, "waits behind it");
    for chat in 30..40 {
        telegram.text(chat, "quick");
    }
    for chat in 30..40 {
        eventually(async || (telegram.texts(chat) == ["echo: quick"]).then_some(())).await;
    }
    assert!(telegram.sent(5).is_empty());
}

#[tokio::test]
async fn histories_survive_a_restart_and_known_messages_are_not_answered_again() {
    let telegram = TelegramServer::start().await;
    let mut world = World::new(&telegram.config("")).await;
    telegram.text(5, "my name is Ada");
    eventually(async || (telegram.sent(5).len() == 1).then_some(())).await;
    world.restart().await;
    // A platform that lost our confirmation sends the same message under a new number.
    telegram.update(json!({ "message": {
        "message_id": 100, "from": { "id": 5 }, "chat": { "id": 5, "type": "private" }, "text": "my name is Ada"
    } }));
    telegram.text(5, "who am I?");
    eventually(async || (telegram.sent(5).len() == 2).then_some(())).await;
    assert_eq!(telegram.texts(5)[1], "echo: who am I?");
    assert!(world.model.calls()[1].body["messages"].to_string().contains("my name is Ada"));
}
