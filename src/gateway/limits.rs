//! How often one client may knock: a sliding window per address.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All limits count per minute.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Who is counted. An IPv6 client owns its whole /64 and could take a new address for each try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(IpAddr);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into())),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Remembers when each client came by; at most `limit` times in any [`WINDOW`].
pub(super) struct SlidingWindow {
    /// 0 is no limit.
    limit: u32,
    max_clients: usize,
    visits: Mutex<HashMap<ClientKey, VecDeque<Instant>>>,
}

impl SlidingWindow {
    pub(super) fn new(limit: u32, max_clients: usize) -> Self {
        Self { limit, max_clients: max_clients.max(1), visits: Mutex::new(HashMap::new()) }
    }

    /// Counts a visit.
    ///
    /// # Errors
    /// How long to wait, when the client came too often; such a visit is not counted.
    pub(super) fn admit(&self, client: ClientKey, now: Instant) -> Result<(), Duration> {
        if self.limit == 0 {
            return Ok(());
        }
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() >= self.max_clients && !visits.contains_key(&client) {
            make_room(&mut visits, now);
        }
        let times = visits.entry(client).or_default();
        while times.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.limit as usize => Err(WINDOW - now.duration_since(*first)),
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

/// Forgets clients that have not come for a window, or else the one that came least recently.
fn make_room(visits: &mut HashMap<ClientKey, VecDeque<Instant>>, now: Instant) {
    let before = visits.len();
    visits.retain(|_, times| times.back().is_some_and(|last| now.duration_since(*last) < WINDOW));
    if visits.len() == before {
        let oldest = visits.iter().min_by_key(|(_, times)| times.back().copied()).map(|(client, _)| *client);
        oldest.map(|client| visits.remove(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> ClientKey {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_window_slides() {
        let (limits, start, one) = (SlidingWindow::new(2, 10), Instant::now(), client("10.0.0.1"));
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(limits.admit(one, at(0)), Ok(()));
        assert_eq!(limits.admit(one, at(30)), Ok(()));
        assert_eq!(limits.admit(one, at(50)), Err(Duration::from_secs(10)));
        assert_eq!(limits.admit(client("10.0.0.2"), at(50)), Ok(()));
        assert_eq!(limits.admit(one, at(60)), Ok(()));
        assert_eq!(limits.admit(one, at(61)), Err(Duration::from_secs(29)));
    }

    #[test]
    fn memory_is_bounded_and_the_busy_stay_counted() {
        let (limits, now) = (SlidingWindow::new(1, 2), Instant::now());
        assert!(limits.admit(client("10.0.0.1"), now).is_ok());
        assert!(limits.admit(client("10.0.0.2"), now + Duration::from_secs(1)).is_ok());
        assert!(limits.admit(client("10.0.0.3"), now + Duration::from_secs(2)).is_ok());
        assert_eq!(limits.visits.lock().unwrap().len(), 2);
        assert!(limits.admit(client("10.0.0.2"), now + Duration::from_secs(3)).is_err());
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_ipv4_address_are_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    }
}
