//! What a platform's events mean to us: a text to answer, something that cannot be read, an edit, a deletion, or nothing.

use crate::gateway::channels::{Place, Platform};

/// A message from somebody who is allowed to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The platform's own name for it: the same when it is sent again.
    pub(super) id: String,
    pub(super) place: Place,
    /// The message that the answer quotes, where people would not know otherwise whom it answers.
    pub(super) quoted: Option<String>,
    /// The platform's name for the person.
    pub(super) sender: String,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    /// A voice message, a picture without words: the person should know that it was not understood.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Message(Incoming),
    /// A message whose text was changed; `of` is the id it has, `message.id` that of the edit.
    Edit {
        of: String,
        message: Incoming,
    },
    /// A message was taken back.
    Delete {
        platform: Platform,
        of: String,
    },
}

/// What came in one request, to be taken as a whole.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// How far the platform was read, kept together with what was read.
    pub(super) marks: Vec<(String, String)>,
}

impl Content {
    /// Words, if there are some, with a note on what came with them and cannot be seen.
    pub(super) fn new(text: &str, attached: Option<&str>) -> Option<Self> {
        let text = text.trim();
        match (text.is_empty(), attached) {
            (false, None) => Some(Self::Text(text.to_owned())),
            (false, Some(kind)) => Some(Self::Text(format!("{text}\n\n[With it came {kind}, which you cannot see.]"))),
            (true, Some(_)) => Some(Self::Unreadable),
            (true, None) => None,
        }
    }
}

/// A text before which stands what it replies to.
pub(super) fn with_quote(text: &str, quoted: &str) -> String {
    /// Enough to know which message is meant, in characters.
    const QUOTE: usize = 500;
    let quoted: String = quoted.trim().chars().take(QUOTE).collect();
    if quoted.is_empty() {
        return text.to_owned();
    }
    let lines: Vec<String> = quoted.lines().map(|line| format!("> {line}")).collect();
    format!("{}\n\n{text}", lines.join("\n"))
}

/// Whether `name` stands in a text as a word of its own, in any case of letters: `@bot` is not in `@bottle`.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    !name.is_empty()
        && text.match_indices(&name).any(|(at, found)| {
            let before = text[..at].chars().next_back();
            let after = text[at + found.len()..].chars().next();
            !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mentioned_as_whole_words() {
        assert!(mentions("Hi @Bot, hello", "@bot") && mentions("(@bot)", "@bot") && mentions("@BOT", "@bot"));
        assert!(!mentions("@bottle", "@bot") && !mentions("a@bot", "@bot") && !mentions("@bot-two", "@bot"));
        assert!(!mentions("anything", ""));
    }

    #[test]
    fn words_win_over_attachments_and_nothing_is_nothing() {
        assert_eq!(Content::new(" hi ", None), Some(Content::Text("hi".into())));
        assert!(
            matches!(Content::new("look", Some("a photo")), Some(Content::Text(text)) if text.starts_with("look\n"))
        );
        assert_eq!(Content::new("", Some("a photo")), Some(Content::Unreadable));
        assert_eq!(Content::new(" ", None), None);
    }

    #[test]
    fn quotes_stand_before_the_text_and_are_bounded() {
        assert_eq!(with_quote("why?", "a\nb"), "> a\n> b\n\nwhy?");
        assert_eq!(with_quote("why?", " "), "why?");
        assert!(with_quote("why?", &"é".repeat(9_999)).len() < 1_100);
    }
}
