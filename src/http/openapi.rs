//! The OpenAPI document, from the router's own table; what all routes have in common is added here, once.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, PathItem, Ref, RefOr, ResponseBuilder, SecurityRequirement};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::guard::{KeyRule, Rule};
use super::problem;
use super::schema::shown;
use super::session;
use super::state::Api;
use crate::domain::Status;

#[derive(OpenApi)]
#[openapi(
    info(title = "zeroone", description = "ZeroClaw agents as a service."),
    components(schemas(shown::Problem)),
    tags(
        (name = "agents", description = "Agents, their lifecycle and their messages"),
        (name = "sign-in", description = "People, and the session cookie of their browsers"),
        (name = "account", description = "The caller, their keys and their sessions"),
        (name = "openai", description = "Agents as OpenAI's clients see models"),
        (name = "admin", description = "Users and the installation"),
        (name = "service", description = "Health, metrics and this document")
    )
)]
struct Document;

/// Names of the two ways to say who is calling: a key, and the cookie of a session.
const SCHEME: &str = "apiKey";
const SESSION: &str = "session";

pub fn document(table: Vec<(Rule, UtoipaMethodRouter<Api>)>) -> serde_json::Value {
    let mut document = table
        .into_iter()
        .fold(OpenApiRouter::with_openapi(Document::openapi()), |router, (rule, (schemas, mut paths, methods))| {
            for (path, item) in &mut paths.paths {
                operations(item).for_each(|(method, operation)| complete(path, &method, operation, rule));
            }
            router.routes((schemas, paths, methods))
        })
        .into_openapi();
    // axum's name for a parameter that takes the rest of the path; OpenAPI has none for it.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("zo_…").build();
    let cookie = ApiKeyValue::with_description(
        session::COOKIE,
        "Set by POST /api/auth/login. Requests that change something must then come from a page of this service.",
    );
    document.components.get_or_insert_default().security_schemes.extend([
        (SCHEME.to_owned(), SecurityScheme::Http(bearer).into()),
        (SESSION.to_owned(), SecurityScheme::ApiKey(ApiKey::Cookie(cookie)).into()),
    ]);
    let mut document = serde_json::to_value(document).unwrap_or_default();
    refine(&mut document);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, head, options, post, patch, put, delete, .. } = item;
    let methods =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
    methods
        .into_iter()
        .zip([get, head, options, post, patch, put, delete])
        .filter_map(|(method, it)| Some((method, it.as_mut()?)))
}

/// Who may call it, how a POST is repeated, and which problems it may answer.
fn complete(path: &str, method: &Method, operation: &mut Operation, rule: Rule) {
    if let Rule::Key(KeyRule { scope, .. }) = rule {
        let scopes: Vec<&str> = scope.iter().map(|scope| scope.as_str()).collect();
        let session = SecurityRequirement::new(SESSION, Vec::<String>::new());
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, scopes), session]);
    }
    for status in statuses(path, method, operation, rule) {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let reason = status.canonical_reason().unwrap_or("A problem");
        let mut problem = ResponseBuilder::new().description(reason).content(problem::MEDIA_TYPE, content);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            problem = problem.header("Retry-After", Header::default());
        }
        operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(|| problem.build().into());
    }
}

fn parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}

/// The problems that a route may answer, by what it takes.
fn statuses(path: &str, method: &Method, operation: &Operation, rule: Rule) -> Vec<StatusCode> {
    use StatusCode as S;
    let mut statuses = vec![S::BAD_REQUEST, S::REQUEST_HEADER_FIELDS_TOO_LARGE, S::INTERNAL_SERVER_ERROR];
    let keyed = matches!(rule, Rule::Key(_));
    if keyed {
        statuses.extend([S::UNAUTHORIZED, S::FORBIDDEN, S::TOO_MANY_REQUESTS, S::SERVICE_UNAVAILABLE]);
    }
    if path.starts_with("/api/auth/") {
        statuses.extend([S::UNAUTHORIZED, S::FORBIDDEN, S::TOO_MANY_REQUESTS, S::SERVICE_UNAVAILABLE, S::CONFLICT]);
    }
    if matches!(path, "/metrics" | "/readyz") {
        statuses.extend([S::FORBIDDEN, S::UNPROCESSABLE_ENTITY]);
    }
    if path.contains('{') {
        statuses.push(S::NOT_FOUND);
    }
    if parameters(operation).any(|it| it.parameter_in == ParameterIn::Query) {
        statuses.push(S::UNPROCESSABLE_ENTITY);
    }
    if keyed && *method != Method::GET {
        statuses.push(S::CONFLICT);
    }
    if operation.request_body.is_some() || *method == Method::POST {
        statuses.extend([S::REQUEST_TIMEOUT, S::PAYLOAD_TOO_LARGE, S::UNSUPPORTED_MEDIA_TYPE, S::UNPROCESSABLE_ENTITY]);
    }
    if parameters(operation).any(|it| it.name == "If-Match") {
        statuses.push(S::PRECONDITION_FAILED);
    }
    if path.ends_with("/wait") {
        statuses.extend([S::REQUEST_TIMEOUT, S::CONFLICT]);
    }
    // What an agent's gateway is asked for: it may be away, held up, or not in a status in which it has one.
    let asks_agent = ["/message", "/health", "/gateway/", "/gateway/{*path}", "/sessions", "/sessions/{session}"]
        .iter()
        .any(|end| path.starts_with("/api/agents/") && path.ends_with(end));
    let asks_model = matches!(path, "/v1/chat/completions" | "/v1/responses");
    if asks_agent || asks_model {
        statuses.extend([S::NOT_FOUND, S::CONFLICT, S::BAD_GATEWAY, S::GATEWAY_TIMEOUT]);
    }
    if path.starts_with("/api/agents/{id}/sessions") {
        statuses.push(S::NOT_IMPLEMENTED);
    }
    if path.starts_with("/api/auth/oidc/") || path == "/api/admin/orphans" {
        statuses.push(S::NOT_FOUND);
    }
    statuses
}

/// What is written more easily into the finished document: the form of parameters, and the events of streams.
fn refine(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if method == "post" && operation["security"].is_array() && !path.ends_with("/password") {
                add_idempotency_key(operation);
            }
            for parameter in operation.pointer_mut("/parameters").and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(name) = parameter["name"].as_str().map(ToOwned::to_owned) else { continue };
                if let Some(form) = form(&name) {
                    parameter["schema"] = form;
                }
            }
            if let Some(stream) = operation.pointer_mut("/responses/200/content/text~1event-stream") {
                stream["schema"] = json!({
                    "type": "string", "contentMediaType": "text/event-stream", "x-events": events(path)
                });
            }
        }
    }
}

fn add_idempotency_key(operation: &mut Value) {
    let known = |list: &[Value]| list.iter().any(|it| it["name"] == "Idempotency-Key");
    if operation["parameters"].as_array().is_some_and(|list| known(list)) {
        return;
    }
    let parameter = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key and body get the stored answer, for 24 hours"
    });
    match operation["parameters"].as_array_mut() {
        Some(list) => list.push(parameter),
        None => operation["parameters"] = json!([parameter]),
    }
}

/// What a parameter of this name must look like.
fn form(name: &str) -> Option<Value> {
    let statuses = Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join("|");
    Some(match name {
        "cursor" => json!({"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"}),
        "status" => json!({"type": "string", "pattern": format!("^({statuses})(,({statuses}))*$")}),
        "since" => json!({"type": "string", "format": "date-time"}),
        "email" => json!({"type": "string", "format": "email", "maxLength": 254}),
        "follow" | "stream" => json!({"type": "boolean"}),
        "outcome" => json!({"type": "string", "enum": ["done", "refused", "failed"]}),
        "step" => json!({"type": "string", "pattern": "^[0-9]+[smhd]?$"}),
        "from" | "to" => json!({"type": "string", "format": "date-time"}),
        "until" => json!({"type": "string", "format": "date-time"}),
        "agents" => json!({"type": "string", "enum": ["delete"]}),
        "code" => json!({"type": "string", "pattern": "^[a-z-]+$"}),
        "Idempotency-Key" => json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}),
        "If-Match" => json!({"type": "string", "pattern": "^(\\*|(W/)?\"[0-9]+\"(, *(W/)?\"[0-9]+\")*)$"}),
        _ => return None,
    })
}

/// The events of a stream, and what their data is.
fn events(path: &str) -> Value {
    let of = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    match path.rsplit('/').next() {
        Some("events") if path == "/api/events" => json!({
            "transition": {"allOf": [of("Entry"), {"type": "object", "properties": {"agentId": {"type": "string", "format": "uuid"}}}]},
            "gap": {"type": "object", "properties": {"missed": {"type": "integer"}}}
        }),
        Some("events") => json!({"transition": of("Entry")}),
        Some("logs") => json!({
            "line": of("Line"), "restart": {"type": "object", "properties": {"attempt": {"type": "integer"}}}
        }),
        Some("stats") => json!({"usage": of("Usage")}),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_route_lists_its_problems_and_no_default() {
        let document = crate::http::openapi();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                assert!(!responses.contains_key("default"), "{method} {path}");
                assert!(responses.contains_key("500") && responses.contains_key("400"), "{method} {path}");
                let keyed = operation["security"].is_array();
                let signs_in = path.starts_with("/api/auth/");
                assert_eq!(keyed || signs_in, responses.contains_key("401"), "{method} {path}");
                let names = |name: &str| {
                    let list = operation["parameters"].as_array().map_or(&[] as &[Value], Vec::as_slice);
                    list.iter().any(|it| it["name"] == name)
                };
                let kept = keyed && method == "post" && !path.ends_with("/password");
                assert_eq!(kept, names("Idempotency-Key"), "{method} {path}");
            }
        }
    }
}
