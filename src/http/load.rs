//! How much each user may have open at once, so that one user does not take the places of all others.

use std::sync::{Arc, Mutex, PoisonError};

use crate::by_id::LockedById;
use crate::domain::UserId;

/// Counts what users have open.
#[derive(Clone)]
pub struct Load {
    counts: Arc<Mutex<Counts>>,
    per_user: usize,
    all: usize,
}

#[derive(Default)]
struct Counts {
    by_user: LockedById<UserId, usize>,
    all: usize,
}

/// Counts until it is dropped.
pub struct Open {
    user: UserId,
    counts: Arc<Mutex<Counts>>,
}

impl Load {
    pub fn new(per_user: usize, all: usize) -> Self {
        Self { counts: Arc::default(), per_user, all }
    }

    pub const fn per_user(&self) -> usize {
        self.per_user
    }

    /// `None` where the user, or all users together, have as many as allowed.
    pub fn open(&self, user: UserId) -> Option<Open> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.all || counts.by_user.get(&user).is_some_and(|open| *open >= self.per_user) {
            return None;
        }
        counts.all += 1;
        *counts.by_user.entry(user).or_default() += 1;
        Some(Open { user, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(open) = counts.by_user.get_mut(&self.user) {
            *open -= 1;
            if *open == 0 {
                counts.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_bound_and_all_have_one() {
        let load = Load::new(2, 3);
        let (a, b) = (UserId::new(), UserId::new());
        let (first, second) = (load.open(a).unwrap(), load.open(a));
        assert!(second.is_some() && load.open(a).is_none(), "the user has two");
        let third = load.open(b);
        assert!(third.is_some() && load.open(b).is_none(), "all have three");
        drop(first);
        assert!(load.open(b).is_some() && load.open(a).is_some());
        drop((second, third));
        let counts = load.counts.lock().unwrap();
        assert!(counts.by_user.is_empty() && counts.all == 0);
    }
}
