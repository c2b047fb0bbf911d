//! Lists over all cells.
//!
//! Both are sorted by id, ids are made in the order of creation, and a cursor is the last id of a page: so the same cursor means the
//! same place in every cell, and the router needs to keep none.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{Passed, Shared};
use crate::domain::Cell;
use crate::http::{Code, Problem, cursor};

/// A page of 200 agents is some hundred kilobytes.
const PAGE: usize = 8 * 1024 * 1024;
/// Entries of a page where the request does not say.
const DEFAULT_LIMIT: usize = 50;

/// One page of the list that all cells' lists make. A cell that is away makes it a refusal: a list in which some are missing would
/// be taken for the whole.
pub(super) async fn merged(router: &Shared, passed: Passed) -> Result<Response, Problem> {
    let head = passed.head();
    let limit = limit(head.uri().query().unwrap_or_default());
    let mut pages = Vec::new();
    for answer in of_all(router, &head).await? {
        match answer {
            Ok(page) => pages.push(page),
            Err(refusal) => return Ok(refusal),
        }
    }
    Ok(Json(merge(pages, limit)).into_response())
}

/// What each cell answers to this request, which has no body: JSON, or its refusal as it came.
pub(super) async fn of_all(router: &Shared, head: &http::Request<()>) -> Result<Vec<Result<Value, Response>>, Problem> {
    let asked = router.layout.from(Cell::FIRST).map(|cell| ask(router, cell, head));
    join_all(asked).await.into_iter().collect()
}

async fn ask(router: &Shared, cell: Cell, head: &http::Request<()>) -> Result<Result<Value, Response>, Problem> {
    let mut request = head.clone().map(|()| Body::empty());
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let response = router.road.send(cell, request).await?.into_response(None);
    if response.status() != StatusCode::OK {
        return Ok(Err(response));
    }
    let unreadable = || {
        Problem::new(Code::CellFailed, format!("The list of cell {cell} cannot be read.")).with("cell", cell.number())
    };
    let bytes = to_bytes(response.into_body(), PAGE).await.map_err(|_| unreadable())?;
    serde_json::from_slice(&bytes).map(Ok).map_err(|_| unreadable())
}

/// As the cells read it; what they refuse is refused before.
fn limit(query: &str) -> usize {
    let limits = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "limit");
    limits.last().and_then(|(_, value)| value.parse().ok()).unwrap_or(DEFAULT_LIMIT)
}

/// The first page of what these pages are the first ones of.
fn merge(pages: Vec<Value>, limit: usize) -> Value {
    let id = |item: &Value| item["id"].as_str().unwrap_or_default().to_owned();
    let more_in_a_cell = pages.iter().any(|page| page["nextCursor"].is_string());
    let mut items: Vec<Value> = pages
        .into_iter()
        .filter_map(|mut page| match page["data"].take() {
            Value::Array(items) => Some(items),
            _ => None,
        })
        .flatten()
        .collect();
    items.sort_by_cached_key(id);
    let more = more_in_a_cell || items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| cursor(id(last)));
    json!({ "data": items, "nextCursor": next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ids: &[&str], more: bool) -> Value {
        let data: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        json!({ "data": data, "nextCursor": more.then_some("x") })
    }

    fn ids(merged: &Value) -> String {
        merged["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn pages_are_merged_by_id_and_go_on_after_the_last() {
        for (pages, limit, expected, next) in [
            (vec![page(&["a", "d"], false), page(&["b"], false)], 50, "abd", None),
            (vec![page(&["a", "d"], false), page(&["b"], false)], 2, "ab", Some("b")),
            (vec![page(&["a", "d"], false), page(&["b"], false)], 3, "abd", None),
            (vec![page(&["a", "d"], true), page(&["b", "c"], true)], 2, "ab", Some("b")),
            (vec![page(&["a", "b"], true), page(&[], false)], 2, "ab", Some("b")),
            (vec![page(&[], false), page(&[], false)], 2, "", None),
        ] {
            let merged = merge(pages, limit);
            assert_eq!(ids(&merged), expected);
            assert_eq!(merged["nextCursor"].as_str(), next.map(cursor).as_deref());
        }
    }

    #[test]
    fn the_limit_is_read_as_cells_do() {
        for (query, expected) in [("", 50), ("limit=2", 2), ("limit=2&limit=7", 7), ("a=limit", 50), ("limit=x", 50)] {
            assert_eq!(limit(query), expected, "{query}");
        }
    }
}
