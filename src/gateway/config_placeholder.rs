//! Placeholders for variables in one text, as Compose reads them.
//!
//! ```text
//! ${NAME}  $NAME (as the whole text)     the value; an error where it is not set
//! ${NAME:-default}  ${NAME-default}      the default where it is not set (with the colon: or empty)
//! ${NAME:?words}    ${NAME?words}        an error where it is not set (with the colon: or empty)
//! ${NAME:+other}    ${NAME+other}        the other text where it is set (with the colon: and not empty)
//! ```
//! A default may have placeholders of its own. Values are never read again. Pure.

/// Longest text in which names are looked for, and after which they were put in.
const LONGEST: usize = 64 << 10;
/// Longest placeholder with its default: a text full of openings must not be read to its end for each of them.
const LONGEST_PLACEHOLDER: usize = 4 << 10;
/// Defaults in defaults, so deep and no deeper.
const DEEPEST: usize = 8;

/// A text with its variables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The text was one placeholder and nothing else.
    pub(super) is_whole: bool,
    /// The text had a placeholder at all.
    pub(super) names_any: bool,
    /// Something in the text looks like a placeholder and is none of ours.
    pub(super) left_over: bool,
}

/// The variable that is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    NotSet(String),
    Empty(String),
}

/// Puts the variables in.
///
/// # Errors
/// The first variable that is needed and not there.
pub(super) fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, Problem> {
    if text.len() > LONGEST {
        return Ok(Expanded { text: text.to_owned(), ..Expanded::default() });
    }
    if let Some(name) = whole_name(text) {
        let text = variable(name).ok_or_else(|| Problem::NotSet(name.to_owned()))?;
        return Ok(Expanded { text, is_whole: true, names_any: true, left_over: false });
    }
    let mut expanded = braces(text, variable, 0)?;
    expanded.is_whole = placeholder(text.trim()).is_some_and(|found| found.length == text.trim().len());
    expanded.left_over |= is_of_another_form(text.trim());
    Ok(expanded)
}

/// The names that [`expand`] may ask for.
pub(super) fn names(text: &str) -> impl Iterator<Item = String> {
    let text = if text.len() > LONGEST { "" } else { text };
    let braces = text.match_indices("${").filter_map(|(at, _)| placeholder(&text[at..]).map(|found| found.name));
    whole_name(text).into_iter().chain(braces).map(str::to_owned)
}

struct Placeholder<'a> {
    name: &'a str,
    rule: Rule<'a>,
    /// Whether an empty value counts as none.
    empty_is_none: bool,
    length: usize,
}

enum Rule<'a> {
    Plain,
    Default(&'a str),
    Required,
    Instead(&'a str),
}

fn braces(text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<Expanded, Problem> {
    let (mut expanded, mut rest) = (Expanded::default(), text);
    while let Some(at) = rest.find("${") {
        let (before, candidate) = rest.split_at(at);
        expanded.text.push_str(before);
        let Some(placeholder) = placeholder(candidate).filter(|_| depth < DEEPEST) else {
            expanded.left_over = expanded.left_over || candidate.contains('}');
            expanded.text.push_str("${");
            rest = &candidate[2..];
            continue;
        };
        expanded.names_any = true;
        expanded.text.push_str(&value_of(&placeholder, variable, depth, &mut expanded.left_over)?);
        rest = &candidate[placeholder.length..];
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

fn value_of(
    placeholder: &Placeholder<'_>,
    variable: &dyn Fn(&str) -> Option<String>,
    depth: usize,
    left_over: &mut bool,
) -> Result<String, Problem> {
    let value = variable(placeholder.name);
    let is_empty = value.as_deref() == Some("");
    let value = value.filter(|value| !(placeholder.empty_is_none && value.is_empty()));
    let mut below = |text: &str| {
        let inner = braces(text, variable, depth + 1)?;
        *left_over |= inner.left_over;
        Ok(inner.text)
    };
    match (&placeholder.rule, value) {
        (Rule::Instead(other), Some(_)) => below(other),
        (Rule::Instead(_), None) => Ok(String::new()),
        (Rule::Default(default), None) => below(default),
        (Rule::Plain | Rule::Default(_) | Rule::Required, Some(value)) => Ok(value),
        (Rule::Plain | Rule::Required, None) if is_empty => Err(Problem::Empty(placeholder.name.to_owned())),
        (Rule::Plain | Rule::Required, None) => Err(Problem::NotSet(placeholder.name.to_owned())),
    }
}

/// The placeholder at the start of a text.
fn placeholder(text: &str) -> Option<Placeholder<'_>> {
    let inner = &text[2..closing(text)?];
    let length = inner.len() + 3;
    let end = inner.bytes().position(|byte| !byte.is_ascii_alphanumeric() && byte != b'_').unwrap_or(inner.len());
    let (name, rule) = inner.split_at(end);
    let (empty_is_none, rule) = match rule.strip_prefix(':') {
        Some(rule) => (true, rule),
        None => (false, rule),
    };
    let rule = match rule.split_at_checked(1) {
        None if rule.is_empty() && !empty_is_none => Rule::Plain,
        Some(("-", default)) => Rule::Default(default),
        Some(("?", _)) => Rule::Required,
        Some(("+", other)) => Rule::Instead(other),
        _ => return None,
    };
    is_name(name).then_some(Placeholder { name, rule, empty_is_none, length })
}

/// Where the brace that the text begins with (`${`) is closed.
fn closing(text: &str) -> Option<usize> {
    text.strip_prefix("${")?;
    let mut open = 0_usize;
    let mut before = 0;
    for (at, byte) in text.bytes().enumerate().take(LONGEST_PLACEHOLDER) {
        match byte {
            b'{' if before == b'$' => open += 1,
            b'}' if open == 1 => return Some(at),
            b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        before = byte;
    }
    None
}

/// The name in a text that is nothing but `$NAME`.
fn whole_name(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix('$')?;
    (is_name(name) && name.bytes().all(|byte| !byte.is_ascii_lowercase())).then_some(name)
}

/// What other programs write for a variable: `{{ … }}`, `$(NAME)`, `%NAME%`, `env:NAME`, and `$name` in small letters.
fn is_of_another_form(text: &str) -> bool {
    let between = |first: &str, last: &str| text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    text.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}"))
        || [between("$(", ")"), between("%", "%"), between("env:", ""), between("$", "")]
            .into_iter()
            .flatten()
            .any(is_name)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variable(name: &str) -> Option<String> {
        let set = [("KEY", "sk-1"), ("EMPTY", ""), ("lower", "l")];
        set.into_iter().find(|(set, _)| *set == name).map(|(_, value)| value.to_owned())
    }

    #[test]
    fn every_form_of_compose_is_read() {
        for (text, value) in [
            ("${KEY}", "sk-1"),
            ("$KEY", "sk-1"),
            ("a${KEY}b${lower}", "ask-1bl"),
            ("${EMPTY}", ""),
            ("${NONE:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${NONE-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${NONE:-a-b:c?d}", "a-b:c?d"),
            ("${NONE:-}", ""),
            ("${KEY:?set it}", "sk-1"),
            ("${KEY?}", "sk-1"),
            ("${EMPTY?set it}", ""),
            ("${KEY:+other}", "other"),
            ("${NONE:+other}", ""),
            ("${EMPTY+other}", "other"),
            ("${NONE:-${KEY}}", "sk-1"),
            ("${NONE:-x${EMPTY:-y}z}", "xyz"),
        ] {
            let expanded = expand(text, &variable).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.left_over), (value, false), "{text}");
            assert_eq!(expanded.is_whole, !text.starts_with('a'), "{text}");
        }
    }

    #[test]
    fn what_is_needed_and_not_there_is_named() {
        let none = || Problem::NotSet("NONE".into());
        for (text, problem) in [
            ("${NONE}", none()),
            ("$NONE", none()),
            ("${NONE:?}", none()),
            ("${NONE?set it}", none()),
            ("${OTHER:-${NONE}}", none()),
            ("${EMPTY:?set it}", Problem::Empty("EMPTY".into())),
        ] {
            assert_eq!(expand(text, &variable).unwrap_err(), problem, "{text}");
        }
    }

    #[test]
    fn what_looks_alike_stays_as_it_is() {
        for (text, left_over) in [
            ("costs $5", false),
            ("${", false),
            ("a$KEY", false),
            ("$", false),
            ("${KEY", false),
            ("{}", false),
            ("%", false),
            ("env:", false),
            ("${}", true),
            ("${a b}", true),
            ("${env:KEY}", true),
            ("${KEY:=x}", true),
            ("${KEY:}", true),
            ("${KEY^^}", true),
            ("${KEYé}", true),
            ("${5}", true),
            ("$key", true),
            ("{{ env.KEY }}", true),
            ("$(KEY)", true),
            ("%KEY%", true),
            ("env:KEY", true),
        ] {
            let expanded = expand(text, &variable).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.names_any), (text, false), "{text}");
            assert_eq!(expanded.left_over, left_over, "{text}");
        }
    }

    proptest! {
        /// The guard of changes from outside relies on it: no variable is asked for that was not found before.
        #[test]
        fn no_variable_is_read_that_is_not_among_the_names(text in "[$A-C{}:?+ -]{0,24}|\\PC{0,24}") {
            let known: Vec<String> = names(&text).collect();
            let asked = std::cell::RefCell::new(Vec::new());
            let _ = expand(&text, &|name| {
                asked.borrow_mut().push(name.to_owned());
                name.contains('A').then(|| "x".to_owned())
            });
            for name in asked.into_inner() {
                prop_assert!(known.contains(&name), "{name} of {text}");
            }
        }
    }
}
