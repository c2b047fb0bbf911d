//! The cells as the router reaches them: addresses, connections, places, and whether each answers its check.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::Cell;
use crate::proxy::{Bound, Meets};
use crate::zeroclaw::client::connections::{Connections, Lease};

/// Shorter than a cell keeps a connection that nothing is asked on (10 s), so that none is closed under a request.
const KEPT: Duration = Duration::from_secs(5);
/// A name server of the same cluster answers in milliseconds.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);
const CHECK_EVERY: Duration = Duration::from_secs(3);
const CHECK_WITHIN: Duration = Duration::from_secs(2);
/// Checks in a row without an answer after which a cell has no answer for what was sent either: some twenty seconds, so that a
/// busy one loses nothing.
const MISSES: u32 = 5;

pub(super) struct Fleet {
    cells: Vec<Upstream>,
    connections: Connections<Cell, Body>,
    open_per_cell: usize,
}

struct Upstream {
    cell: Cell,
    /// `host:port`.
    authority: String,
    address: Mutex<Address>,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Address {
    at: Option<SocketAddr>,
    /// Counts the addresses that it had: connections to an earlier one are of no use.
    attempt: u64,
}

/// What the checks of a cell say.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) up: bool,
    missed: u32,
    /// What the last check met.
    pub(super) why: Option<Arc<str>>,
}

/// One of the requests that are open to a cell.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counted where it is met; a WebSocket here has no other bound than silence.
impl Meets for Place {
    fn meets(&self, bound: Bound) {
        tracing::debug!(bound = bound.as_str(), "a WebSocket to a cell was ended");
    }
}

impl Fleet {
    /// By number; `host:port` each.
    pub(super) fn new(authorities: &[String], open_per_cell: usize) -> Self {
        let cells = (0..).map_while(Cell::new).zip(authorities);
        let cells = cells.map(|(cell, authority)| Upstream::new(cell, authority.clone())).collect();
        Self { cells, connections: Connections::keeping(KEPT), open_per_cell }
    }

    fn get(&self, cell: Cell) -> &Upstream {
        // Requests for others were refused before.
        &self.cells[usize::from(cell.number())]
    }

    pub(super) fn states(&self) -> Vec<(Cell, State)> {
        self.cells.iter().map(|it| (it.cell, it.state.borrow().clone())).collect()
    }

    pub(super) fn open(&self, cell: Cell) -> usize {
        self.get(cell).open.load(Ordering::Relaxed)
    }

    /// A place for one more request; `None` where one cell would get more than its part of the router.
    pub(super) fn enter(&self, cell: Cell) -> Option<Place> {
        let open = &self.get(cell).open;
        let place = Place(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < self.open_per_cell).then_some(place)
    }

    /// Ready when the cell has not answered its checks for a while.
    pub(super) fn gone(&self, cell: Cell) -> BoxFuture<'static, ()> {
        let mut state = self.get(cell).state.subscribe();
        Box::pin(async move {
            let _ = state.wait_for(|state| state.missed >= MISSES).await;
        })
    }

    /// A connection. An address that does not answer is looked up once more: a Pod that was started again has another one.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn connect(&self, cell: Cell) -> Result<Lease<Body>, String> {
        let upstream = self.get(cell);
        let (at, attempt) = match upstream.known() {
            Some(known) => known,
            None => upstream.resolve().await?,
        };
        match self.connections.lease(cell, at, attempt).await {
            Ok(lease) => Ok(lease),
            Err(error) => match upstream.resolve().await? {
                (moved, attempt) if moved != at => {
                    self.connections.lease(cell, moved, attempt).await.map_err(|error| error.to_string())
                }
                _ => Err(error.to_string()),
            },
        }
    }

    /// Checks one cell until the end.
    pub(super) async fn watch(&self, cell: Cell, closing: CancellationToken) {
        let checks = async {
            loop {
                self.note(cell, self.check(cell).await);
                sleep(CHECK_EVERY).await;
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = checks => {}
        }
    }

    async fn check(&self, cell: Cell) -> Result<(), String> {
        let asked = async {
            // It may have moved without having been asked for anything.
            self.get(cell).resolve().await?;
            let mut lease = self.connect(cell).await?;
            let request = Request::get("/livez").header(header::HOST, &self.get(cell).authority).body(Body::empty());
            let request = request.map_err(|error| error.to_string())?;
            let answer = lease.send(request).await.map_err(|error| error.into_error().to_string())?;
            // The rest of the answer goes with its connection.
            let status = answer.status();
            if status == StatusCode::OK { Ok(()) } else { Err(format!("its check answers {status}")) }
        };
        timeout(CHECK_WITHIN, asked).await.unwrap_or_else(|_| Err("its check is not answered in time".into()))
    }

    fn note(&self, cell: Cell, checked: Result<(), String>) {
        self.get(cell).state.send_modify(|state| {
            let was = std::mem::replace(&mut state.up, checked.is_ok());
            match checked {
                Ok(()) => (state.missed, state.why) = (0, None),
                Err(why) => (state.missed, state.why) = (state.missed.saturating_add(1), Some(why.into())),
            }
            match &state.why {
                None if !was => tracing::info!(%cell, "the cell answers"),
                Some(why) if was || state.missed == 1 => tracing::warn!(%cell, %why, "the cell does not answer"),
                _ => {}
            }
        });
    }
}

impl Upstream {
    fn new(cell: Cell, authority: String) -> Self {
        Self {
            cell,
            authority,
            address: Mutex::default(),
            state: watch::Sender::new(State::default()),
            open: Arc::default(),
        }
    }

    fn address(&self) -> MutexGuard<'_, Address> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Option<(SocketAddr, u64)> {
        let address = self.address();
        Some((address.at?, address.attempt))
    }

    /// Looks its name up, and gives where it is.
    async fn resolve(&self) -> Result<(SocketAddr, u64), String> {
        let found = timeout(RESOLVE_WITHIN, lookup_host(self.authority.as_str())).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(format!("its name cannot be looked up: {error}")),
            Err(_elapsed) => return Err("its name is not looked up in time".into()),
        };
        let mut address = self.address();
        if address.at.is_none_or(|at| !found.contains(&at)) {
            address.at = found.first().copied();
            address.attempt += 1;
        }
        address.at.map(|at| (at, address.attempt)).ok_or_else(|| "its name has no address".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Cell = Cell::FIRST;

    #[tokio::test]
    async fn a_cell_is_gone_after_some_missed_checks_and_back_with_the_first_answer() {
        let fleet = Fleet::new(&["127.0.0.1:1".into()], 2);
        let mut gone = fleet.gone(ONE);
        for _ in 1..MISSES {
            fleet.note(ONE, Err("refused".into()));
        }
        assert!(futures_util::poll!(&mut gone).is_pending());
        fleet.note(ONE, Ok(()));
        assert!(fleet.states()[0].1.up);
        for _ in 0..MISSES {
            fleet.note(ONE, Err("refused".into()));
        }
        gone.await;
        assert_eq!(fleet.states()[0].1.why.as_deref(), Some("refused"));
    }

    #[test]
    fn a_cell_has_no_more_than_its_part() {
        let fleet = Fleet::new(&["127.0.0.1:1".into()], 2);
        let (first, second) = (fleet.enter(ONE), fleet.enter(ONE));
        assert!(first.is_some() && second.is_some() && fleet.enter(ONE).is_none());
        drop(first);
        assert!(fleet.enter(ONE).is_some());
        drop(second);
        assert_eq!(fleet.open(ONE), 0);
    }

    #[tokio::test]
    async fn an_address_that_changes_makes_connections_of_before_useless() {
        let upstream = Upstream::new(ONE, "127.0.0.1:1".into());
        let (at, attempt) = upstream.resolve().await.unwrap();
        assert_eq!(upstream.resolve().await.unwrap(), (at, attempt), "the same");
        upstream.address().at = Some("127.0.0.2:1".parse().unwrap());
        assert_eq!(upstream.resolve().await.unwrap(), (at, attempt + 1));
        assert!(Upstream::new(ONE, "nosuch.invalid:1".into()).resolve().await.is_err());
    }
}
