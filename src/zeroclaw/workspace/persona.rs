//! IDENTITY.md, USER.md and SOUL.md: who the agent is, whom it serves, how it speaks. They become its system prompt.
//!
//! No line of user text begins a line of a file: short values are put on one line behind a list marker, longer ones are
//! quoted, each line behind `> `. So a name such as `x\n# Tools` stays a name and cannot pose as a section of its own.

use crate::domain::AgentSpec;

/// How an agent speaks when its user did not say.
const DEFAULT_STYLE: &str = "Warm, direct and brief. Say what you know, say when you do not, and ask when it matters.";

pub(super) fn identity(spec: &AgentSpec) -> String {
    format!(
        "# Identity\n\n\
         - Name: {name}\n\
         - Role: a personal assistant\n\n\
         Introduce yourself by this name, and keep to it.\n",
        name = one_line(&spec.agent_name),
    )
}

pub(super) fn user(spec: &AgentSpec) -> String {
    let name = spec.user_name.as_deref().map_or_else(|| "not told yet".to_owned(), one_line);
    format!(
        "# User\n\n\
         - Name: {name}\n\
         - Time zone: {zone}\n\n\
         Give times and dates in this time zone.\n",
        zone = one_line(&spec.timezone),
    )
}

pub(super) fn soul(spec: &AgentSpec) -> String {
    let style = spec.communication_style.as_deref().filter(|style| !style.trim().is_empty());
    format!("# Soul\n\nHow to speak:\n\n{}\n", quoted(style.unwrap_or(DEFAULT_STYLE)))
}

/// Everything that some reader takes for the end of a line.
const fn breaks_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn one_line(text: &str) -> String {
    text.split(breaks_line).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn quoted(text: &str) -> String {
    text.split(breaks_line).map(|line| format!("> {}", line.trim_end())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Provider;

    fn spec(name: &str, style: Option<&str>) -> AgentSpec {
        AgentSpec {
            agent_name: name.into(),
            user_name: Some(name.into()),
            timezone: "Europe/Zurich".into(),
            communication_style: style.map(Into::into),
            ..AgentSpec::new("a", Provider::Openai, "m")
        }
    }

    #[test]
    fn the_files_say_what_the_user_said() {
        let spec = spec("Robo", Some("Dry.\nShort."));
        assert!(identity(&spec).contains("- Name: Robo\n"));
        assert!(user(&spec).contains("- Name: Robo\n- Time zone: Europe/Zurich\n"));
        assert!(soul(&spec).ends_with("> Dry.\n> Short.\n"));
        let silent = AgentSpec { user_name: None, communication_style: None, ..spec };
        assert!(user(&silent).contains("- Name: not told yet\n"));
        assert!(soul(&silent).contains(DEFAULT_STYLE));
    }

    proptest! {
        #[test]
        fn no_line_of_user_text_begins_a_line(text in "(#|-|>|`|\n|\r\n|\u{2028}|\u{85}|[a-z ]){0,40}") {
            let lines = |file: String| file.split(breaks_line).map(str::to_owned).collect::<Vec<_>>();
            let (calm, wild) = (spec("x", Some("x")), spec(&text, Some(&text)));
            // The other lines are the same, in number and in text, whatever the name is.
            for (mine, theirs) in [(lines(identity(&calm)), lines(identity(&wild))), (lines(user(&calm)), lines(user(&wild)))] {
                prop_assert_eq!(mine.len(), theirs.len());
                for (a, b) in mine.iter().zip(&theirs) {
                    prop_assert!(a == b || b.starts_with("- Name: "));
                }
            }
            for line in lines(soul(&wild)) {
                prop_assert!(matches!(line.as_str(), "" | "# Soul" | "How to speak:") || line.starts_with("> "));
            }
        }
    }
}
