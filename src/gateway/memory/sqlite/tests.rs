use super::*;
use crate::gateway::memory::{CONVERSATION, CORE};

fn open(folder: &tempfile::TempDir) -> Sqlite {
    Sqlite::new(folder.path().join("memory.db"))
}

fn told(key: &str, content: &str) -> Note {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let (owner, kind) = (Owner::agent(), Kind::Told);
    Note { key: key.into(), content: content.into(), category: CORE.into(), at, owner, kind }
}

#[test]
fn a_folder_that_cannot_hold_a_database_is_an_error_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory/memory.db");
    std::fs::write(folder.path().join("memory"), "a file in the way").unwrap();
    let memory = Sqlite::new(path);
    assert!(memory.list(None, 1).is_err());
    std::fs::remove_file(folder.path().join("memory")).unwrap();
    assert!(memory.list(None, 1).unwrap().is_empty());
}

#[test]
fn the_oldest_messages_make_room_and_notes_on_purpose_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(&folder);
    memory.store(&told("keep", "x")).unwrap();
    let stranger = Owner::person("telegram", "7");
    for number in 0..SAID_BY_STRANGER + 2 * TRIM_EVERY as usize {
        memory.store(&Note::said("telegram", stranger.clone(), &format!("message {number}"))).unwrap();
    }
    memory.store(&Note::said("telegram", Owner::person("telegram", "8"), "message 0")).unwrap();
    let kept = memory.list(Some(CONVERSATION), 20_000).unwrap();
    assert!((SAID_BY_STRANGER..=SAID_BY_STRANGER + TRIM_EVERY as usize).contains(&kept.len()), "{}", kept.len());
    let of = |owner: &'static str| kept.iter().filter(move |entry| entry.owner == owner).map(|entry| &entry.content);
    assert!(!of("telegram:7").any(|content| content == "message 0"));
    assert_eq!(of("telegram:8").count(), 1, "another person's messages stay");
    assert_eq!(memory.list(Some(CORE), 10).unwrap().len(), 1);
    // The terms of what was removed are gone, too.
    let orphans = memory.with(|connection| {
        connection.query_row("SELECT count(*) FROM terms WHERE note NOT IN (SELECT id FROM notes)", [], |row| {
            row.get::<_, i64>(0)
        })
    });
    assert_eq!(orphans.unwrap(), 0i64);
}

#[test]
fn a_database_of_version_1_keeps_its_notes_and_gains_owners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.db");
    schema::make_version_1(
        &Connection::open(&path).unwrap(),
        &[
            ("tea", "Ada likes green tea", "core"),
            ("webhook_msg_1", "I live in Basel", "conversation"),
            ("telegram_msg_1", "my code is 4711", "conversation"),
            ("cron_msg_1", "Check the tea", "conversation"),
            ("diary", "用户喜欢绿茶", "daily"),
        ],
    );
    let memory = open(&folder);
    let all = memory.list(None, 10).unwrap();
    let seen: Vec<(&str, &str, Kind)> =
        all.iter().map(|entry| (entry.content.as_str(), entry.owner.as_str(), entry.kind)).collect();
    assert_eq!(
        seen,
        [
            ("用户喜欢绿茶", "core", Kind::Told),
            ("my code is 4711", "telegram:unknown", Kind::Said),
            ("I live in Basel", "client", Kind::Said),
            ("Ada likes green tea", "core", Kind::Told),
        ]
    );
    let visible = [Owner::client(), Owner::agent()];
    assert_eq!(memory.recall("绿茶", &visible, 5).unwrap()[0].key, "diary");
    assert!(memory.recall("code", &visible, 5).unwrap().is_empty());
    // Opened again, it is as it is.
    assert_eq!(open(&folder).list(None, 10).unwrap().len(), 4);
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(open(&folder).list(None, 1), Err(MemoryError::TooNew)));
}

/// Whatever is asked, a search reads a bounded number of rows. Counted, not timed: a busy machine is no failure.
#[test]
fn a_search_reads_a_bounded_number_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let memory = open(&folder);
    memory
        .with(|connection| {
            let transaction = connection.transaction()?;
            for number in 0..2_000 {
                put(&transaction, &told(&format!("n{number}"), &format!("the cat sat on mat {number}")))?;
            }
            transaction.commit()
        })
        .unwrap();
    let question = "the cat sat on the mat ".repeat(3_000);
    let wanted = terms::query(&question, QUERY_TERMS);
    assert!(wanted.len() <= QUERY_TERMS);
    let scopes = memory.with(|connection| scopes_of(connection, &[Owner::agent()])).unwrap();
    let tally = memory.with(|connection| match_terms(connection, &wanted, Some(&scopes))).unwrap();
    assert!(tally.best(usize::MAX).len() <= PER_TERM * QUERY_TERMS);
    let found = memory.recall("which mat has 1234?", &[Owner::agent()], 3).unwrap();
    assert_eq!(found[0].key, "n1234", "a rare word finds an old note");
}
