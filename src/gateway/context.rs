//! How much of a conversation is put to the model.
//!
//! Pure. Providers count tokens each in their own way; the estimate here errs on the side of too many. What is left out is
//! always the oldest, and never the message that is to be answered.

use super::provider::{AssistantMessage, Message};

/// Tokens of a text: four letters of an alphabet each, and one for each character of other scripts.
pub(super) fn tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let other = text.chars().filter(|c| !c.is_ascii()).count();
    ascii.div_ceil(4) + other
}

/// Tokens of a message with all that goes along.
pub(super) fn tokens_of(message: &Message) -> usize {
    /// What a message costs beside its text.
    const FRAME: usize = 4;
    FRAME
        + match message {
            Message::System(text) | Message::User(text) => tokens(text),
            Message::Named { name, text } => tokens(name) + tokens(text),
            Message::Assistant(said) => {
                let AssistantMessage { text, tool_calls, .. } = said;
                let calls = tool_calls.iter().map(|call| tokens(&call.name) + tokens(&call.arguments));
                tokens(text) + calls.sum::<usize>() + said.extra_bytes().div_ceil(4)
            }
            Message::ToolResult { content, .. } => tokens(content),
        }
}

/// The newest messages of a conversation that fit: at most so many tokens, and so many messages where `most` is not 0.
pub(super) fn fit(conversation: Vec<Message>, budget: usize, most: usize) -> Vec<Message> {
    let last = conversation.len().saturating_sub(1);
    let mut left = budget;
    let mut first = conversation.len();
    for (index, message) in conversation.iter().enumerate().rev() {
        let cost = tokens_of(message);
        let too_many = most > 0 && conversation.len() - index > most;
        if index != last && (cost > left || too_many) {
            break;
        }
        left = left.saturating_sub(cost);
        first = index;
    }
    from_a_question(conversation, first)
}

/// The conversation without its older half, or `None` where there is nothing to leave out: only what came before the last
/// question may go.
pub(super) fn shorten(conversation: &[Message]) -> Option<Vec<Message>> {
    let question = conversation.iter().rposition(|message| message.question().is_some())?;
    let is_system = |message: &&Message| matches!(message, Message::System(_));
    let head: Vec<Message> = conversation.iter().take_while(is_system).cloned().collect();
    let earlier = question.checked_sub(head.len()).filter(|earlier| *earlier > 0)?;
    let kept = from_a_question(conversation.to_vec(), head.len() + earlier.div_ceil(2));
    Some(head.into_iter().chain(kept).collect())
}

/// The conversation from the first question at or after `first` on: an answer without its question misleads the model.
fn from_a_question(mut conversation: Vec<Message>, first: usize) -> Vec<Message> {
    let starts = |message: &Message| message.question().is_some() || matches!(message, Message::System(_));
    let offset = if first == 0 { 0 } else { conversation.iter().skip(first).position(starts).unwrap_or_default() };
    conversation.drain(..first + offset);
    conversation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Message {
        Message::User(text.into())
    }

    fn assistant(text: &str) -> Message {
        Message::assistant(text)
    }

    fn talk(turns: usize) -> Vec<Message> {
        let mut talk: Vec<Message> = (0..turns)
            .flat_map(|turn| [user(&format!("question {turn:04}")), assistant(&format!("answer {turn:04}"))])
            .collect();
        talk.push(user("the last question"));
        talk
    }

    #[test]
    fn scripts_count_as_models_count_them() {
        assert_eq!(tokens(""), 0);
        assert_eq!(tokens("four letters, more or less"), 7);
        assert_eq!(tokens("用户喜欢绿茶"), 6);
    }

    #[test]
    fn the_oldest_goes_first_and_a_conversation_starts_with_a_question() {
        for budget in [0, 10, 20, 33, 60, 100, 10_000] {
            let kept = fit(talk(20), budget, 0);
            assert!(matches!(kept[0], Message::User(_)), "{budget}");
            assert_eq!(kept.last(), Some(&user("the last question")));
            assert!(kept.len() == 1 || kept.iter().map(tokens_of).sum::<usize>() <= budget);
        }
        assert_eq!(fit(talk(20), 10_000, 0).len(), 41);
        assert!(fit(talk(20), 10_000, 5).len() <= 5);
        assert_eq!(fit(vec![user(&"x".repeat(9_000))], 10, 0).len(), 1, "the question itself always goes");
        assert!(fit(vec![], 10, 0).is_empty());
    }

    #[test]
    fn shortening_ends_with_the_question_alone() {
        let mut talk = talk(20);
        talk.insert(0, Message::System("be brief".into()));
        let mut steps = 0;
        while let Some(shorter) = shorten(&talk) {
            assert!(shorter.len() < talk.len());
            assert_eq!(shorter[0], Message::System("be brief".into()));
            assert_eq!(shorter.last(), Some(&user("the last question")));
            (talk, steps) = (shorter, steps + 1);
        }
        assert_eq!(talk.len(), 2);
        assert!(steps <= 6, "{steps}");
    }

    #[test]
    fn tool_rounds_after_the_question_stay() {
        let mut talk = talk(4);
        talk.push(assistant("looking"));
        talk.push(Message::ToolResult { call_id: "1".into(), content: "found".into() });
        let shorter = shorten(&talk).unwrap();
        assert_eq!(shorter[shorter.len() - 2..], talk[talk.len() - 2..]);
    }
}
