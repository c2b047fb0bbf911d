//! Slack's two ways to write words, in both directions that are needed: its markup (`<@U1>`, `&lt;`) as plain text, and
//! blocks in its markup.

use serde_json::Value;

use crate::gateway::incoming::webhook::text;

/// Slack's markup as plain text: `<http://x|name>` is a link, `<#C1|general>` a channel, `&lt;` a `<`.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        plain.push_str(before);
        let Some((inside, after)) = after.split_once('>') else {
            plain.push('<');
            rest = after;
            continue;
        };
        let (target, label) = inside.split_once('|').unwrap_or((inside, ""));
        let name = |target: &str, label: &str| if label.is_empty() { target.to_owned() } else { label.to_owned() };
        match target.chars().next() {
            Some('@') => plain += &format!("@{}", name(&target[1..], label)),
            Some('#') => plain += &format!("#{}", name(&target[1..], label)),
            Some('!') => plain += &format!("@{}", name(&target[1..], label)),
            _ if label.is_empty() || label == target => plain.push_str(target),
            _ => plain += &format!("{label} ({target})"),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// The words of a message: its text or, where an app or a client left that empty, those of its blocks.
pub(super) fn said(message: &Value) -> String {
    let words = text(message, "/text");
    if words.trim().is_empty() { of_block(&message["blocks"]) } else { words.to_owned() }
}

/// The words of blocks, or of one. Mentions are in them as in the text of a message, so that they are found alike.
pub(super) fn of_block(block: &Value) -> String {
    if block.is_array() {
        return joined(block, "\n", of_block);
    }
    if !block.is_object() {
        return String::new();
    }
    let id = |key: &str| text(block, key);
    match text(block, "/type") {
        "text" | "raw_text" | "plain_text" | "markdown" => escape(text(block, "/text")),
        "mrkdwn" => text(block, "/text").to_owned(),
        "link" => match (id("/url"), text(block, "/text")) {
            (url, "") => format!("<{url}>"),
            (url, words) => format!("<{url}|{}>", escape(words)),
        },
        "user" => format!("<@{}>", id("/user_id")),
        "channel" => format!("<#{}>", id("/channel_id")),
        "usergroup" => format!("<!subteam^{}>", id("/usergroup_id")),
        "broadcast" => format!("<!{}>", id("/range")),
        "emoji" => format!(":{}:", id("/name")),
        "date" => escape(id("/fallback")),
        "color" => id("/value").to_owned(),
        "rich_text_section" => joined(&block["elements"], "", of_block),
        "rich_text_list" => joined(&block["elements"], "\n", |item| format!("- {}", of_block(item))),
        "rich_text_quote" => {
            let words = joined(&block["elements"], "", of_block);
            words.lines().map(|line| format!("&gt; {line}")).collect::<Vec<_>>().join("\n")
        }
        "rich_text_preformatted" => format!("```\n{}\n```", joined(&block["elements"], "", of_block)),
        // Of all other blocks, what they have of text and of parts.
        _ => {
            let parts = ["text", "fields", "elements", "rows"].map(|key| of_block(&block[key]));
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
        }
    }
}

fn joined(parts: &Value, between: &str, words: impl Fn(&Value) -> String) -> String {
    let parts = parts.as_array().into_iter().flatten().map(words);
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(between)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks_say_what_their_text_would() {
        let section = |elements: Value| json!({ "type": "rich_text_section", "elements": elements });
        let blocks = json!([{ "type": "rich_text", "elements": [
            section(json!([
                { "type": "user", "user_id": "U7" }, { "type": "text", "text": " is 1 < 2 & 3 in " },
                { "type": "link", "url": "http://x", "text": "this" }, { "type": "text", "text": " of " },
                { "type": "channel", "channel_id": "C2" }, { "type": "emoji", "name": "wave" }
            ])),
            { "type": "rich_text_list", "style": "bullet", "elements": [
                section(json!([{ "type": "text", "text": "tea" }])), section(json!([{ "type": "text", "text": "milk" }]))
            ] },
            { "type": "rich_text_quote", "elements": [{ "type": "text", "text": "a\nb" }] },
            { "type": "rich_text_preformatted", "elements": [{ "type": "text", "text": "let x;" }] }
        ] }]);
        let words = said(&json!({ "text": " ", "blocks": blocks }));
        assert!(words.starts_with("<@U7> is 1 &lt; 2 &amp; 3"), "{words}");
        assert_eq!(
            plain(&words),
            "@U7 is 1 < 2 & 3 in this (http://x) of #C2:wave:\n- tea\n- milk\n> a\n> b\n```\nlet x;\n```"
        );
        assert_eq!(said(&json!({ "text": "short", "blocks": blocks })), "short");
    }

    #[test]
    fn blocks_of_apps_are_read_by_their_texts_and_junk_is_nothing() {
        let blocks = json!([
            { "type": "header", "text": { "type": "plain_text", "text": "R & D" } },
            { "type": "section", "text": { "type": "mrkdwn", "text": "ask <@U2|bob>" },
              "fields": [{ "type": "mrkdwn", "text": "one" }, { "type": "plain_text", "text": "two" }] },
            { "type": "divider" },
            { "type": "context", "elements": [{ "type": "mrkdwn", "text": "small" }, { "type": "image" }] }
        ]);
        assert_eq!(plain(&of_block(&blocks)), "R & D\nask @bob\none\ntwo\nsmall");
        for junk in [json!(null), json!(5), json!("x"), json!([[]]), json!({ "type": 5, "elements": "x" })] {
            assert_eq!(of_block(&junk), "", "{junk}");
        }
    }
}
