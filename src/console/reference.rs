//! `GET /api/docs`: the OpenAPI document as a page. It needs no script: everything is in the markup.

use std::sync::LazyLock;

use maud::{Markup, html};
use serde_json::Value;

use super::layout::{self, Frame, View};

static DOCUMENT: LazyLock<Value> = LazyLock::new(crate::http::openapi);
const METHODS: [&str; 7] = ["get", "head", "options", "post", "put", "patch", "delete"];
/// Where the types are that have a name.
const TYPES: &str = "types";

pub(super) fn page(view: &View) -> Markup {
    let document = &*DOCUMENT;
    let tags = items(&document["tags"]);
    let body = html! {
        div.docs {
            nav.toc aria-label="Parts of the API" {
                @for tag in tags { a href={ "#" (text(&tag["name"])) } { (text(&tag["name"])) } }
                a href={ "#" (TYPES) } { (TYPES) }
            }
            h1 { "REST API" }
            p {
                "JSON over HTTP, described by " a href=(view.to("/api/openapi.json")) { "OpenAPI 3.1" } ". Send an API key as "
                code { "Authorization: Bearer zo_…" } "; make one on the " a href=(view.to("/account")) { "account page" } "."
            }
            p { "What is not as it should be is answered with " code { "application/problem+json" } ": each " code { "type" } " leads to a page that says what to do." }
            @for tag in tags {
                @let name = text(&tag["name"]);
                section aria-labelledby=(name) {
                    h2 id=(name) { (name) }
                    p.hint { (text(&tag["description"])) }
                    @for (path, method, operation) in operations(document, name) { (operation_of(path, method, operation)) }
                }
            }
            section aria-labelledby=(TYPES) {
                h2 id=(TYPES) { (TYPES) }
                @for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                    details.operation id={ "type-" (name) } {
                        summary { code { (name) } " " em { (text(&schema["description"])) } }
                        (shape(schema))
                    }
                }
            }
        }
    };
    layout::shell(view, "REST API", None, Frame::Plain, &body)
}

fn operations<'a>(document: &'a Value, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(move |(path, item)| {
        let named = METHODS.iter().filter_map(move |method| Some((path.as_str(), *method, item.get(method)?)));
        named.filter(move |(_, _, operation)| items(&operation["tags"]).iter().any(|known| known == tag))
    })
}

fn operation_of(path: &str, method: &str, operation: &Value) -> Markup {
    let whole = text(&operation["summary"]);
    let summary = whole.split_inclusive(". ").next().unwrap_or_default().trim_end();
    let about = [whole.strip_prefix(summary).unwrap_or_default().trim(), text(&operation["description"])];
    let scopes: Vec<&str> = items(&operation["security"])
        .iter()
        .filter_map(Value::as_object)
        .flatten()
        .flat_map(|(_, scopes)| items(scopes))
        .filter_map(Value::as_str)
        .collect();
    html! {
        details.operation {
            summary { code.method.(method) { (method.to_uppercase()) } " " code.path { (path) } " " em { (summary) } }
            @for part in about.iter().filter(|part| !part.is_empty()) { p { (part) } }
            p.hint {
                @if operation["security"].is_null() { "Needs no key." } @else if scopes.is_empty() { "Any key." } @else { "Scope: " (scopes.join(", ")) "." }
            }
            @let parameters = items(&operation["parameters"]);
            @if !parameters.is_empty() {
                h3 { "Parameters" }
                (table(&["Name", "Where", "Type", "Meaning"], parameters.iter().map(|it| vec![
                    html! { code { (text(&it["name"])) } @if it["required"] == true { " " em { "required" } } },
                    html! { (text(&it["in"])) },
                    html! { (kind(&it["schema"])) },
                    html! { (text(&it["description"])) },
                ])))
            }
            @for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                h3 { "Body " code { (media) } }
                (shape(&content["schema"]))
            }
            h3 { "Answers" }
            (answers(&operation["responses"]))
        }
    }
}

fn answers(responses: &Value) -> Markup {
    let all = || responses.as_object().into_iter().flatten();
    let problem = |response: &Value| response["content"].get("application/problem+json").is_some();
    html! {
        @for (status, response) in all().filter(|(_, response)| !problem(response)) {
            p { code { (status) } " " (text(&response["description"])) }
            @for (media, content) in response["content"].as_object().into_iter().flatten() {
                @if media == "application/json" { (shape(&content["schema"])) } @else { p.hint { "As " code { (media) } "." } }
            }
        }
        @let problems: Vec<&str> = all().filter(|(_, response)| problem(response)).map(|(status, _)| status.as_str()).collect();
        @if !problems.is_empty() { p.hint { "Problems: " (problems.join(", ")) "." } }
    }
}

/// The fields of an object, or what else it is. What has a name is written once, among the types.
fn shape(schema: &Value) -> Markup {
    let fields = fields(schema);
    if fields.is_empty() {
        return html! { p { (kind(schema)) } };
    }
    let parts = items(&schema["allOf"]).iter().filter(|part| part["$ref"].is_string());
    html! {
        @for part in parts { p { "All of " (kind(part)) ", and:" } }
        (table(&["Field", "Type", "Meaning"], fields.iter().map(|(name, field, required)| vec![
            html! { code { (name) } @if *required { " " em { "required" } } },
            html! { (kind(field)) },
            html! { (text(&field["description"])) },
        ])))
    }
}

/// An object's own fields, and whether each is required.
fn fields(schema: &Value) -> Vec<(&str, &Value, bool)> {
    let required = |name: &str| items(&schema["required"]).iter().any(|it| it == name);
    let own = schema["properties"].as_object().into_iter().flatten();
    let own = own.map(|(name, field)| (name.as_str(), field, required(name)));
    items(&schema["allOf"]).iter().flat_map(fields).chain(own).collect()
}

/// A type in a few words; one with a name leads to where it is written out.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href={ "#type-" (name) } { code { (name) } } };
    }
    let choices = items(&schema["oneOf"]);
    let parts = items(&schema["allOf"]);
    html! {
        @if !choices.is_empty() {
            @for (at, choice) in choices.iter().enumerate() { @if at > 0 { " or " } (kind(choice)) }
        } @else if !parts.is_empty() && schema["properties"].is_null() {
            @for (at, part) in parts.iter().enumerate() { @if at > 0 { " with " } (kind(part)) }
        } @else if schema["items"].is_object() {
            "list of " (kind(&schema["items"]))
        } @else {
            (words(schema))
        }
    }
}

/// A type that holds no other.
fn words(schema: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().map(plain).collect::<Vec<_>>().join(" | ");
    }
    let mut words = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(several) => several.iter().map(plain).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    if let Some(format) = schema["format"].as_str().filter(|format| matches!(*format, "date-time" | "uuid" | "email")) {
        words = format!("{words} ({format})");
    }
    if let (Some(least), Some(most)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        words = format!("{words}, {least} to {most}");
    }
    words
}

/// In as few bytes as it takes: there are more than a hundred of them on the page.
fn table(names: &[&str], rows: impl Iterator<Item = Vec<Markup>>) -> Markup {
    html! {
        table {
            tr { @for name in names { th { (name) } } }
            @for row in rows { tr { @for cell in row { td { (cell) } } } }
        }
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_on_the_page() {
        let view = View { base: String::new(), path: "/api/docs".into(), agent: None };
        let page = page(&view).0;
        for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let written = format!("{}</code> <code class=\"path\">{path}</code>", method.to_uppercase());
                assert!(page.contains(&written), "{method} {path}");
            }
        }
        assert!(page.len() < 150 * 1024, "the page has {} bytes", page.len());
    }
}
