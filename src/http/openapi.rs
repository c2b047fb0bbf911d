//! The OpenAPI document, from the router's own table; what all routes have in common is added here, once.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, PathItem, Ref, ResponseBuilder, SecurityRequirement};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::guard::Rule;
use super::problem;
use super::schema::shown;
use super::state::Api;

#[derive(OpenApi)]
#[openapi(
    info(title = "zeroone", description = "ZeroClaw agents as a service."),
    components(schemas(shown::Problem)),
    tags(
        (name = "agents", description = "Agents, their life and their messages"),
        (name = "account", description = "The caller and their keys"),
        (name = "admin", description = "Users and the installation"),
        (name = "service", description = "Health, metrics and this document")
    )
)]
struct Document;

/// Name of the only way to say who is calling.
const SCHEME: &str = "apiKey";

pub fn document(table: Vec<(Rule, UtoipaMethodRouter<Api>)>) -> serde_json::Value {
    let mut document = table
        .into_iter()
        .fold(OpenApiRouter::with_openapi(Document::openapi()), |router, (rule, (schemas, mut paths, methods))| {
            paths.paths.values_mut().flat_map(operations).for_each(|operation| complete(operation, rule));
            router.routes((schemas, paths, methods))
        })
        .into_openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("zo_…").build();
    document
        .components
        .get_or_insert_default()
        .security_schemes
        .insert(SCHEME.to_owned(), SecurityScheme::Http(bearer).into());
    serde_json::to_value(document).unwrap_or_default()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete].into_iter().flatten()
}

/// Who may call it, how a POST is repeated, and that every error is a problem.
fn complete(operation: &mut Operation, rule: Rule) {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let problem = ResponseBuilder::new().description("A problem").content(problem::MEDIA_TYPE, content).build();
    operation.responses.responses.entry("default".to_owned()).or_insert_with(|| problem.into());
    if let Rule::Key { scope, .. } = rule {
        let scopes: Vec<&str> = scope.iter().map(|scope| scope.as_str()).collect();
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, scopes)]);
    }
}
