//! `zeroone route`: one address before several control planes, each of which is a cell with users, agents and a store of its own.
//!
//! ```text
//! request ─► way: which cell? (pure, from the request alone) ─► forward: head, body and answer streamed, WebSockets joined
//!              ├─ people: sign-ins and new users, by what their body says
//!              └─ lists: users and agents of all cells, merged
//! ```
//! It keeps nothing: no table of users, no keys, no store. There may be several of it. Cells check every key and decide everything;
//! what the router cannot reach it says, with the cell's number.

mod answer;
mod fleet;
mod forward;
mod lists;
mod metrics;
mod people;
mod way;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::fleet::Fleet;
use self::forward::{Road, outbound};
use self::metrics::Figures;
use self::way::{Layout, Unplaced, Way};
use crate::domain::Cell;
use crate::http::{BadRequest, Code, Problem, Trace, peer_of, render};

/// How a router behaves.
#[derive(Debug, Clone)]
pub(crate) struct RouterOptions {
    /// `host:port` of each cell, by number.
    pub(crate) cells: Vec<String>,
    /// Cells that get no new users.
    pub(crate) full: Vec<Cell>,
    /// Agents' host names are below it.
    pub(crate) domain: Option<String>,
    /// How long a cell may take until its answer begins.
    pub(crate) answer_within: Duration,
    /// How long nothing may move in an answer or a WebSocket.
    pub(crate) idle: Duration,
    /// Requests that may be open to one cell, so that one that hangs does not take all that the router has.
    pub(crate) open_per_cell: usize,
    /// Ends what would else go on for ever.
    pub(crate) closing: CancellationToken,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Shared>);

struct Shared {
    layout: Layout,
    /// Cells that get new users.
    open: Vec<Cell>,
    road: Road,
    sign_ins: tokio::sync::Semaphore,
}

/// A request that is on its way.
struct Passed {
    parts: http::request::Parts,
    body: axum::body::Body,
    trace: Trace,
}

impl Router {
    /// Begins to check the cells.
    pub(crate) fn start(options: RouterOptions) -> Self {
        let RouterOptions { cells, full, domain, answer_within, idle, open_per_cell, closing } = options;
        let layout = Layout { cells: u16::try_from(cells.len()).unwrap_or(Cell::MOST).min(Cell::MOST), domain };
        let fleet = Fleet::new(&cells, open_per_cell);
        let router = Self(Arc::new(Shared {
            open: layout.from(Cell::FIRST).filter(|cell| !full.contains(cell)).collect(),
            road: Road {
                fleet,
                figures: Figures::new(layout.from(Cell::FIRST)),
                answer_within,
                idle,
                closing: closing.clone(),
            },
            layout,
            sign_ins: tokio::sync::Semaphore::new(people::SIGN_INS),
        }));
        for cell in router.0.layout.from(Cell::FIRST) {
            let (router, closing) = (router.clone(), closing.clone());
            tokio::spawn(async move { router.0.road.fleet.watch(cell, closing).await });
        }
        router
    }

    /// All requests of the listener that users reach.
    pub(crate) fn service(&self) -> axum::Router {
        let router = self.clone();
        axum::Router::new().fallback(move |request: Request| async move { router.answer(request).await })
    }

    /// The figures alone, for a listener that only Prometheus reaches.
    pub(crate) fn figures(&self) -> axum::Router {
        let router = self.clone();
        axum::Router::new().route("/metrics", axum::routing::get(move || async move { router.0.metrics() }))
    }

    async fn answer(&self, request: Request) -> Response {
        let trace = Trace::of(request.headers());
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let response = match parts.extensions.get::<BadRequest>() {
            Some(BadRequest(why)) => Problem::new(Code::Malformed, *why).into_response(),
            None => {
                let passed = Passed { parts, body, trace: trace.clone() };
                self.0.route(passed).await.unwrap_or_else(IntoResponse::into_response)
            }
        };
        let Some((code, cause)) = response.extensions().get::<Problem>().map(Problem::cause) else { return response };
        tracing::warn!(request = trace.request_id, code, cause, "a request was not passed on");
        let mut response = render(response, &path, &trace);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::try_from(&trace.request_id) {
            headers.insert("x-request-id", id);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl Shared {
    async fn route(&self, passed: Passed) -> Result<Response, Problem> {
        match way::decide(&passed.parts, &self.layout).map_err(|why| self.unplaced(why))? {
            Way::Alive => Ok(Json(json!({ "status": "ok" })).into_response()),
            Way::Ready => Ok(self.ready()),
            Way::Metrics if is_local(&passed.parts) => Ok(self.metrics()),
            Way::Metrics => Err(Problem::new(
                Code::Forbidden,
                "Ask from this machine, or at the address that metrics_bind in [router] says.",
            )),
            Way::To(cell) => {
                let (request, upgrade) = passed.outbound();
                let sent = self.road.send(cell, request).await?;
                Ok(sent.into_response(upgrade))
            }
            Way::Any(first) => {
                let (request, upgrade) = passed.outbound();
                let sent = self.road.send_to_any(self.layout.from(first), request).await?;
                Ok(sent.into_response(upgrade))
            }
            Way::Merged => lists::merged(self, passed).await,
            Way::ByBody(form) => people::placed(self, form, passed).await,
        }
    }

    fn unplaced(&self, why: Unplaced) -> Problem {
        let last = self.layout.cells.saturating_sub(1);
        match why {
            Unplaced::NoCell => Problem::new(
                Code::CellNeeded,
                format!(
                    "This is for one cell: name it by the header Zeroone-Cell, 0 to {last}, or use a key of that cell. The \
                     operator's key alone lists users and agents, makes users, and does what has an id in its path."
                ),
            ),
            Unplaced::BadHeader => {
                Problem::new(Code::CellNeeded, format!("The header Zeroone-Cell must be a number from 0 to {last}."))
            }
            Unplaced::Unknown(cell) => Problem::new(
                Code::CellUnavailable,
                format!("Cell {cell} is none of this router's: they are 0 to {last}."),
            )
            .with("cell", cell.number()),
            Unplaced::NewBrowser => Problem::new(
                Code::CellNeeded,
                "This browser has not signed in here before, so its person's cell is not known; come in by a sign-in link or a \
                 password once.",
            ),
        }
    }

    /// Ready as long as there is a cell that answers: one that is away is no reason to send the others' users away.
    fn ready(&self) -> Response {
        let cells = self.road.fleet.states();
        let ready = cells.iter().any(|(_, state)| state.up);
        let cells: Vec<_> = cells
            .into_iter()
            .map(|(cell, state)| json!({ "cell": cell.number(), "answers": state.up, "problem": state.why.as_deref() }))
            .collect();
        let (code, status) =
            if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
        (code, Json(json!({ "status": status, "cells": cells }))).into_response()
    }

    fn metrics(&self) -> Response {
        let Road { fleet, figures, .. } = &self.road;
        for (cell, state) in fleet.states() {
            figures.show(cell, state.up, fleet.open(cell));
        }
        figures.answer()
    }
}

impl Passed {
    /// What a cell gets, and the caller's end of another protocol.
    fn outbound(mut self) -> (http::Request<axum::body::Body>, Option<OnUpgrade>) {
        let upgrade = self.parts.extensions.remove::<OnUpgrade>();
        let head = self.head();
        (head.map(|()| self.body), upgrade)
    }

    fn head(&self) -> http::Request<()> {
        outbound(&self.parts, peer_of(&self.parts.extensions), &self.trace.request_id)
    }
}

/// Asked by a process of this machine, and by no proxy on it for somebody else.
fn is_local(parts: &http::request::Parts) -> bool {
    let proxied = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
    peer_of(&parts.extensions).is_some_and(|peer| peer.ip().to_canonical().is_loopback())
        && !proxied.iter().any(|name| parts.headers.contains_key(*name))
}
