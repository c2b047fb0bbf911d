//! Requests with an idempotency key that are being worked on in this process: the same one at the same time is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::{Code, Problem};
use crate::domain::UserId;

/// What tells one request from another.
pub type Fingerprint = [u8; 32];

/// Requests with a key that are under way in this process.
#[derive(Default)]
pub struct InFlight(Arc<Mutex<HashMap<(UserId, String), Fingerprint>>>);

/// A place among those under way, given up when dropped.
pub struct Underway {
    all: Arc<Mutex<HashMap<(UserId, String), Fingerprint>>>,
    key: (UserId, String),
}

impl InFlight {
    pub fn enter(&self, user: UserId, key: &str, fingerprint: Fingerprint) -> Result<Underway, Problem> {
        let key = (user, key.to_owned());
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(fingerprint);
                Ok(Underway { all: Arc::clone(&self.0), key })
            }
            Entry::Occupied(other) if *other.get() == fingerprint => {
                Err(Problem::new(Code::InProgress, "The first request with this key is still going on.").retry_after(1))
            }
            Entry::Occupied(_) => Err(other_request()),
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

pub fn other_request() -> Problem {
    Problem::new(
        Code::Invalid,
        "Another request, or one with another API key, was made with this idempotency key; use a new one.",
    )
}
