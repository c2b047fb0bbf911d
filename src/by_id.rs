//! Tables that every request looks into.

use std::collections::HashMap;

use dashmap::DashMap;
use foldhash::fast::RandomState;

/// A table by ids, addresses, hashes or names of routes that this service made itself. Against keys that somebody chose so that they meet in one place
/// the standard library's hash is safe, for ten times the work at each look-up; nobody outside chooses these.
pub(crate) type ById<K, V> = DashMap<K, V, RandomState>;

/// The same for one that has a lock of its own.
pub(crate) type LockedById<K, V> = HashMap<K, V, RandomState>;
