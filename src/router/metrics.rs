//! The router's own figures, for Prometheus.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::domain::Cell;

const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    cell: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    cell: u16,
    outcome: &'static str,
}

/// How a request to a cell went.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// Whatever the answer is.
    Answered,
    /// It was certainly not carried out.
    Unavailable,
    /// It may have been.
    Failed,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Answered, Self::Unavailable, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

pub(super) struct Figures {
    registry: Registry,
    requests: Family<Sent, Counter>,
    open: Family<Of, Gauge>,
    up: Family<Of, Gauge>,
}

impl Figures {
    /// Every cell has its samples from the beginning.
    pub(super) fn new(cells: impl Iterator<Item = Cell>) -> Self {
        let (requests, open, up) = <(Family<Sent, Counter>, Family<Of, Gauge>, Family<Of, Gauge>)>::default();
        let mut registry = Registry::with_prefix("zeroone_router");
        registry.register("requests", "Requests to a cell, by how they went", requests.clone());
        registry.register("open", "Requests, streams and WebSockets that are open to a cell", open.clone());
        registry.register("cell_up", "Whether a cell answered its last check", up.clone());
        for cell in cells {
            for outcome in Outcome::ALL {
                drop(requests.get_or_create(&Sent { cell: cell.number(), outcome: outcome.as_str() }));
            }
        }
        Self { registry, requests, open, up }
    }

    pub(super) fn count(&self, cell: Cell, outcome: Outcome) {
        self.requests.get_or_create(&Sent { cell: cell.number(), outcome: outcome.as_str() }).inc();
    }

    /// What is looked at when it is asked for.
    pub(super) fn show(&self, cell: Cell, up: bool, open: usize) {
        let of = Of { cell: cell.number() };
        self.up.get_or_create(&of).set(up.into());
        self.open.get_or_create(&of).set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(super) fn answer(&self) -> Response {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
