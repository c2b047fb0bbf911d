//! A conversation as one text, for gateways that take one message at a time. Pure; docs/openai.md shows the form.

use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) role: Role,
    /// Who of several speaks.
    pub(super) name: Option<String>,
    pub(super) text: String,
}

impl Line {
    pub(super) const fn new(role: Role, text: String) -> Self {
        Self { role, name: None, text }
    }

    /// A word for whoever speaks, with the name where there is one.
    fn speaker(&self, word: &str) -> String {
        match &self.name {
            Some(name) => format!("{word} ({name})"),
            None => word.to_owned(),
        }
    }
}

/// A single message without a name stays as it is. Otherwise instructions come first, then the earlier messages with their speakers, then
/// the message to answer.
pub(super) fn flatten(lines: &[Line]) -> String {
    let spoken: Vec<&Line> = lines.iter().filter(|line| line.role != Role::System).collect();
    let instruction = |line: &Line| match &line.name {
        Some(name) => format!("{name}: {}", line.text),
        None => line.text.clone(),
    };
    let instructions: Vec<String> = lines.iter().filter(|line| line.role == Role::System).map(instruction).collect();
    if let ([only], true) = (spoken.as_slice(), instructions.is_empty())
        && only.name.is_none()
    {
        return only.text.clone();
    }
    let mut prompt = String::new();
    // Writing to a string cannot fail.
    if !instructions.is_empty() {
        let _ = write!(prompt, "Instructions:\n{}\n\n", instructions.join("\n"));
    }
    // A conversation that ends with an answer is to be continued: then there is no message to answer.
    let (earlier, last) = match spoken.split_last() {
        Some((last, earlier)) if last.role == Role::User => (earlier, Some(last)),
        _ => (spoken.as_slice(), None),
    };
    if !earlier.is_empty() {
        prompt.push_str("Conversation so far:\n");
        for line in earlier {
            let speaker = line.speaker(if line.role == Role::Assistant { "Assistant" } else { "User" });
            let _ = writeln!(prompt, "{speaker}: {}", line.text);
        }
        prompt.push('\n');
    }
    match last {
        Some(last) => {
            let _ = write!(prompt, "{}:\n{}", last.speaker("Message"), last.text);
        }
        None => prompt.push_str("Continue the last answer."),
    }
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(role: Role, text: &str) -> Line {
        Line::new(role, text.into())
    }

    #[test]
    fn a_single_message_stays_as_it_is_and_a_conversation_keeps_its_speakers() {
        use Role::{Assistant, System, User};
        assert_eq!(flatten(&[line(User, "hi")]), "hi");
        assert_eq!(flatten(&[line(System, "be short"), line(User, "hi")]), "Instructions:\nbe short\n\nMessage:\nhi");
        let talk = [line(System, "a"), line(System, "b"), line(User, "1"), line(Assistant, "2"), line(User, "3")];
        assert_eq!(flatten(&talk), "Instructions:\na\nb\n\nConversation so far:\nUser: 1\nAssistant: 2\n\nMessage:\n3");
        let named = |role, name: &str, text: &str| Line { name: Some(name.into()), ..line(role, text) };
        assert_eq!(flatten(&[named(User, "bob", "hi")]), "Message (bob):\nhi");
        let talk = [
            named(System, "style", "a"),
            named(User, "bob", "1"),
            named(Assistant, "ada", "2"),
            named(User, "eve", "3"),
        ];
        let text =
            "Instructions:\nstyle: a\n\nConversation so far:\nUser (bob): 1\nAssistant (ada): 2\n\nMessage (eve):\n3";
        assert_eq!(flatten(&talk), text);
        let open = [line(User, "1"), line(Assistant, "2")];
        assert_eq!(flatten(&open), "Conversation so far:\nUser: 1\nAssistant: 2\n\nContinue the last answer.");
    }
}
