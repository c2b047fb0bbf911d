//! What every backend that remembers must do, and what an answer is given.

use super::*;

fn note(key: &str, content: &str, category: &str, second: i64) -> Note {
    let at = Timestamp::from_second(1_700_000_000 + second).unwrap();
    let kind = if category == CONVERSATION { Kind::Said } else { Kind::Told };
    Note { key: key.into(), content: content.into(), category: category.into(), at, owner: Owner::agent(), kind }
}

fn said(owner: &Owner, text: &str) -> Note {
    Note::said("test", owner.clone(), text)
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

fn contents(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.content.as_str()).collect()
}

const REMEMBERING: [MemoryBackend; 2] = [MemoryBackend::Sqlite, MemoryBackend::Markdown];

#[tokio::test]
async fn notes_are_stored_replaced_listed_found_and_forgotten() {
    for name in REMEMBERING {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(name, folder.path());
        assert!(memory.list(None, 10).await.unwrap().is_empty());
        memory.store(note("tea", "Ada likes green tea", CORE, 0)).await.unwrap();
        memory.store(note("bike", "The bike is red", CORE, 1)).await.unwrap();
        let odd = "hello \"there\" OR 1=1; ## heading\n\n## tea\nsecond";
        memory.store(note("chat", odd, CONVERSATION, 2)).await.unwrap();
        memory.store(note("tea", "Ada likes black tea", CORE, 3)).await.unwrap();

        assert_eq!(keys(&memory.list(None, 10).await.unwrap()), ["tea", "chat", "bike"]);
        assert_eq!(keys(&memory.list(Some(CORE), 10).await.unwrap()), ["tea", "bike"]);
        assert_eq!(memory.list(None, 1).await.unwrap().len(), 1);
        let found = memory.recall("which TEA does ada like?", None, 10).await.unwrap();
        assert_eq!((found[0].key.as_str(), found[0].content.as_str()), ("tea", "Ada likes black tea"));
        assert!(found[0].score.unwrap() > 0.0);
        assert!(!contents(&memory.recall("green", None, 10).await.unwrap()).contains(&"Ada likes green tea"));
        for odd in ["", "\"", "tea AND (", "*", "NEAR(", "'; DROP TABLE notes; --", "🫖"] {
            memory.recall(odd, None, 10).await.unwrap();
        }

        let reopened = Memory::new(name, folder.path());
        let chat = &reopened.list(Some(CONVERSATION), 10).await.unwrap()[0];
        assert_eq!((chat.content.as_str(), chat.kind), (odd, Kind::Said));
        assert!(reopened.forget("tea", None).await.unwrap());
        assert!(!reopened.forget("tea", None).await.unwrap());
        assert!(!keys(&reopened.recall("tea", None, 10).await.unwrap()).contains(&"bike"));
        assert_eq!(keys(&reopened.list(None, 10).await.unwrap()), ["chat", "bike"]);
    }
}

#[tokio::test]
async fn a_person_is_told_its_own_notes_and_the_agents_and_no_others() {
    for name in REMEMBERING {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(name, folder.path());
        let (ada, bob) = (Owner::person("telegram", "7"), Owner::person("telegram", "8"));
        memory.store(said(&ada, "the vault code is 4711")).await.unwrap();
        memory.store(said(&Owner::client(), "the vault is in the cellar")).await.unwrap();
        memory.store(said(&Owner::session("s-1"), "the vault is grey")).await.unwrap();
        memory.store(note("vault", "The vault was built in 1990", CORE, 0)).await.unwrap();
        // The same key of another owner is another note.
        memory.store(Note { owner: bob.clone(), ..note("vault", "Bob opened the vault", CORE, 0) }).await.unwrap();

        let visible = async |owner: &Owner| {
            let found = memory.for_answer("what do you know of the vault?", owner).await.unwrap();
            let mut found: Vec<String> = found.into_iter().map(|entry| entry.content).collect();
            found.sort();
            found
        };
        assert_eq!(visible(&ada).await, ["The vault was built in 1990", "the vault code is 4711"], "{name:?}");
        assert_eq!(visible(&bob).await, ["Bob opened the vault", "The vault was built in 1990"]);
        assert_eq!(visible(&Owner::agent()).await, ["The vault was built in 1990"]);
        assert_eq!(memory.recall("vault", None, 10).await.unwrap().len(), 5);
        assert!(memory.forget("vault", Some(&bob)).await.unwrap());
        assert!(!memory.forget("vault", Some(&ada)).await.unwrap());
        let session = memory.recall("grey", None, 1).await.unwrap().remove(0);
        assert_eq!((session.session_id.as_deref(), session.owner.as_str()), (Some("s-1"), "session:s-1"));
    }
}

#[tokio::test]
async fn what_was_stored_on_purpose_is_found_among_copies_of_the_question() {
    for name in REMEMBERING {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(name, folder.path());
        let client = Owner::client();
        memory.store(note("window", "The deploy window is Tuesday 14:00", CORE, 0)).await.unwrap();
        for number in 0..120 {
            memory.store(said(&client, &format!("Is the deploy window open for ticket {number}?"))).await.unwrap();
            memory.store(said(&client, "When is the deploy window?")).await.unwrap();
            memory.store(said(&client, "WHEN IS THE DEPLOY WINDOW")).await.unwrap();
        }
        let found = memory.for_answer("When is the deploy window?", &client).await.unwrap();
        assert_eq!(found[0].key, "window", "{name:?}");
        assert!(found.len() <= FOR_AN_ANSWER);
        assert!(!contents(&found).iter().any(|text| text.eq_ignore_ascii_case("when is the deploy window?")));
    }
}

#[tokio::test]
async fn the_same_message_is_one_note() {
    for name in REMEMBERING {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(name, folder.path());
        for _ in 0..3 {
            memory.store(said(&Owner::client(), "good morning")).await.unwrap();
        }
        assert_eq!(memory.list(None, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_gets_short_excerpts() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new(MemoryBackend::Sqlite, folder.path());
    memory.store(note("long", &format!("harbour {}", "é".repeat(5_000)), CORE, 0)).await.unwrap();
    let found = memory.for_answer("where is the harbour?", &Owner::client()).await.unwrap();
    assert!(found[0].content.len() <= EXCERPT);
}

#[tokio::test]
async fn none_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new(MemoryBackend::None, folder.path());
    memory.store(note("tea", "green", CORE, 0)).await.unwrap();
    assert!(memory.list(None, 10).await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn two_people_never_become_one_owner() {
    let names = ["a b", "a%20b", "a_b", "ä", "a>b", "a\nb"];
    let owners: HashSet<Owner> = names.iter().map(|name| Owner::person("github", name)).collect();
    assert_eq!(owners.len(), names.len());
    assert!(owners.iter().all(|owner| !owner.as_str().contains(['>', ' ', '\n']) && owner.is_stranger()));
    assert!(!Owner::session("x").is_stranger() && !Owner::client().is_stranger() && !Owner::agent().is_stranger());
}
