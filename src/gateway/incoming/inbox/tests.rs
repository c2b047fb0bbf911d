use super::*;

fn place(chat: &str) -> Place {
    Place { platform: Platform::Telegram, chat: chat.into(), thread: None }
}

fn message(id: &str, chat: &str, text: Option<&str>) -> Incoming {
    let content = text.map_or(Content::Unreadable, |text| Content::Text(text.into()));
    Incoming { id: id.into(), place: place(chat), quoted: None, sender: "ada".into(), content }
}

fn take(inbox: &Inbox, event: Event) -> Vec<Place> {
    inbox.take(&Batch { events: vec![event], marks: vec![] }).unwrap()
}

fn edit(of: &str, id: &str, text: &str) -> Event {
    Event::Edit { of: of.into(), message: message(id, "1", Some(text)) }
}

fn said(text: &str) -> AssistantMessage {
    AssistantMessage { text: text.into(), ..AssistantMessage::default() }
}

/// A question with its answer, done.
fn turn(inbox: &Inbox, id: &str, question: &str, answer: &AssistantMessage) -> i64 {
    take(inbox, Event::Message(message(id, "1", Some(question))));
    let number = inbox.next(&place("1")).unwrap().unwrap().number;
    inbox.answered(number, &Answered::of(answer)).unwrap();
    inbox.done(number).unwrap();
    number
}

struct World {
    _folder: tempfile::TempDir,
    inbox: Inbox,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    World { inbox: Inbox::new(folder.path()), _folder: folder }
}

#[test]
fn known_messages_are_dropped_and_marks_kept_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = Inbox::new(folder.path());
    let batch = Batch {
        events: vec![Event::Message(message("1", "1", Some("hi")))],
        marks: vec![("offset".into(), "7".into())],
    };
    assert_eq!(inbox.take(&batch).unwrap(), [place("1")]);
    drop(inbox);
    let inbox = Inbox::new(folder.path());
    assert_eq!(inbox.take(&batch).unwrap(), []);
    assert_eq!(inbox.mark("offset").unwrap().as_deref(), Some("7"));
    assert_eq!(inbox.unfinished().unwrap(), [place("1")]);
    let pending = inbox.next(&place("1")).unwrap().unwrap();
    assert_eq!((pending.text.as_str(), pending.tries, pending.answer), ("hi", 0, None));
}

#[test]
fn each_step_is_seen_by_the_next_process() {
    let World { inbox, _folder } = &world();
    take(inbox, Event::Message(message("1", "1", Some("hi"))));
    let look = || inbox.next(&place("1")).unwrap();
    let number = look().unwrap().number;
    inbox.asking(number).unwrap();
    assert_eq!(look().unwrap().tries, 1);
    inbox.not_asked(number).unwrap();
    assert_eq!(look().unwrap().tries, 0);
    inbox.answered(number, &Answered::of(&said("hello"))).unwrap();
    inbox.sending(number).unwrap();
    assert_eq!((look().unwrap().begun, look().unwrap().sent), (1, 0));
    inbox.not_sent(number).unwrap();
    assert_eq!((look().unwrap().begun, look().unwrap().sent), (0, 0));
    inbox.sending(number).unwrap();
    inbox.sent(number, true).unwrap();
    assert_eq!(look(), None);
    assert_eq!(inbox.history(&place("1"), number + 1, 9).unwrap(), [("hi".to_owned(), said("hello"))]);
    assert_eq!(inbox.history(&place("1"), number, 9).unwrap(), []);
}

#[test]
fn unreadable_messages_get_one_notice_until_text_comes() {
    let World { inbox, _folder } = &world();
    assert_eq!(take(inbox, Event::Message(message("1", "1", None))), [place("1")]);
    assert_eq!(take(inbox, Event::Message(message("2", "1", None))), []);
    assert_eq!(take(inbox, Event::Message(message("3", "2", None))), [place("2")]);
    take(inbox, Event::Message(message("4", "1", Some("words"))));
    assert_eq!(take(inbox, Event::Message(message("5", "1", None))), [place("1")]);
    let notice = inbox.next(&place("1")).unwrap().unwrap();
    assert_eq!((notice.answer.as_deref(), notice.apology), (Some(ONLY_TEXT), true));
}

#[test]
fn edits_change_what_waits_and_are_asked_again_when_it_was_answered() {
    let World { inbox, _folder } = &world();
    take(inbox, Event::Message(message("1", "1", Some("2+2"))));
    assert_eq!(take(inbox, edit("1", "1/a", "2+3")), []);
    let first = inbox.next(&place("1")).unwrap().unwrap();
    assert_eq!(first.text, "2+3");
    inbox.asking(first.number).unwrap();
    inbox.answered(first.number, &Answered::of(&said("5"))).unwrap();
    inbox.done(first.number).unwrap();
    assert_eq!(take(inbox, edit("1", "1/b", "2+3")), [], "nothing changed but a preview");
    assert_eq!(take(inbox, edit("1", "1/c", "2+4")), [place("1")]);
    assert_eq!(take(inbox, edit("1", "1/c", "2+4")), [], "sent again by the platform");
    assert_eq!(take(inbox, edit("never seen", "9", "now for you")), [place("1")]);
    assert_eq!(take(inbox, Event::Message(message("never seen", "1", Some("x")))), []);
}

#[test]
fn deleted_messages_are_not_asked() {
    let World { inbox, _folder } = &world();
    take(inbox, Event::Message(message("1", "1", Some("oops"))));
    take(inbox, Event::Delete { platform: Platform::Telegram, of: "1".into() });
    assert_eq!(inbox.next(&place("1")).unwrap(), None);
}

#[test]
fn a_flood_of_one_conversation_leaves_room_for_others_and_all_is_bounded() {
    let World { inbox, _folder } = &world();
    for n in 0..WAITING_OF_ONE + 10 {
        take(inbox, Event::Message(message(&format!("a{n}"), "1", Some("x"))));
    }
    let waiting = |inbox: &Inbox| {
        inbox
            .read(|db| db.query_row("SELECT count(*) FROM messages WHERE done = 0", [], |row| row.get::<_, i64>(0)))
            .unwrap()
    };
    assert_eq!(waiting(inbox), WAITING_OF_ONE + 1, "the messages and one notice");
    assert_eq!(take(inbox, Event::Message(message("b", "2", Some("x")))), [place("2")]);
    for n in 0..WAITING {
        let event = Event::Message(message(&format!("c{n}"), &format!("chat{n}"), Some("x")));
        if inbox.take(&Batch { events: vec![event], marks: vec![] }).is_err() {
            break;
        }
    }
    assert_eq!(waiting(inbox), WAITING);
    let batch = Batch { events: vec![Event::Message(message("d", "3", Some("x")))], marks: vec![] };
    assert!(matches!(inbox.take(&batch), Err(InboxError::Full)));
}

#[test]
fn old_messages_lose_their_text_and_later_their_id() {
    let World { inbox, _folder } = &world();
    take(inbox, Event::Message(message("1", "1", Some("old"))));
    inbox.done(1).unwrap();
    inbox.write(|db| Ok(db.execute("UPDATE sqlite_sequence SET seq = ?1", [KNOWN + 99])?)).unwrap();
    take(inbox, Event::Message(message("2", "1", Some("new"))));
    let known = inbox.read(|db| db.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)));
    assert_eq!(known.unwrap(), 1);
}

#[test]
fn what_the_provider_wants_back_is_in_the_history() {
    let World { inbox, _folder } = &world();
    let extra = serde_json::json!({ "reasoning_content": "so" }).as_object().unwrap().clone();
    let thought = AssistantMessage { extra, from: "api.example".into(), ..said("hello") };
    let number = turn(inbox, "1", "hi", &thought);
    assert_eq!(inbox.history(&place("1"), number + 1, 9).unwrap(), [("hi".to_owned(), thought)]);
}

#[test]
fn what_was_too_long_for_the_model_is_left_out_from_then_on_and_its_ids_stay_known() {
    let World { inbox, _folder } = &world();
    let last = (1..=5).map(|n| turn(inbox, &n.to_string(), &format!("q{n}"), &said("a"))).last().unwrap();
    inbox.shorten(&place("1"), last, 2).unwrap();
    let questions = || -> Vec<String> {
        inbox.history(&place("1"), last + 1, 9).unwrap().into_iter().map(|(question, _)| question).collect()
    };
    assert_eq!(questions(), ["q3", "q4", "q5"], "the newest two before the one that is being answered");
    assert_eq!(take(inbox, Event::Message(message("1", "1", Some("q1")))), []);
    inbox.shorten(&place("2"), last, 0).unwrap();
    assert_eq!(questions().len(), 3, "another conversation");
}
