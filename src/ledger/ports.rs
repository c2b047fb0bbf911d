//! Which host port is free, held, or better left alone for a while.

use std::ops::Range;
use std::time::Duration;

use crate::domain::{HostPort, PortRange, Timestamp, elapsed};

/// How long a port is left alone after a stranger was found on it: the stranger may be a client connection that ends
/// within minutes, or a server that never does. Then it costs one failed start in this time to find out again.
pub const PORT_QUARANTINE: Duration = Duration::from_secs(600);

/// All host ports, and a ring of those that are given out. The search for a free one goes on where the last one ended, so
/// that a port that was given back is the last to be given out again: its old user's connections have died down by then.
#[derive(Debug)]
pub(super) struct Ports {
    /// Also those outside of the ring: an agent keeps the port that it has when the range is changed.
    all: Vec<(HostPort, State)>,
    /// Never empty: a [`PortRange`] has a port at least.
    ring: Range<usize>,
    next: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Held,
    Quarantined { since: Timestamp },
}

impl Default for Ports {
    fn default() -> Self {
        Self::of(PortRange::default())
    }
}

impl Ports {
    /// Gives out these, from the lowest on unless [`Ports::begin_at`] says otherwise.
    pub(super) fn of(range: PortRange) -> Self {
        let ring = range.indexes();
        Self { all: HostPort::all().map(|port| (port, State::Free)).collect(), next: ring.start, ring }
    }

    /// Begins somewhere in the range: two installations of one machine, or one and its copy, then rarely try the same
    /// ports one after the other.
    pub(super) fn begin_at(&mut self, seed: u64) {
        self.next = self.ring.start + (seed % self.ring.len() as u64) as usize;
    }

    /// The next free port, held from now on. Costs a step for each neighbour in use, and never allocates.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<HostPort> {
        let (before, after) = (self.ring.start..self.next, self.next..self.ring.end);
        for index in after.chain(before) {
            let (port, state) = &mut self.all[index];
            if state.is_free(now) {
                *state = State::Held;
                self.next = index + 1;
                return Some(*port);
            }
        }
        None
    }

    /// Holds this very port. `false`, and nothing done, if it is held already; a quarantine is no hindrance.
    pub(super) fn hold(&mut self, port: HostPort) -> bool {
        let state = self.state(port);
        let ours = *state != State::Held;
        *state = State::Held;
        ours
    }

    pub(super) fn free(&mut self, port: HostPort) {
        *self.state(port) = State::Free;
    }

    pub(super) fn quarantine(&mut self, port: HostPort, now: Timestamp) {
        *self.state(port) = State::Quarantined { since: now };
    }

    /// Goes on far away: beside a port that a stranger has there are likely more of the same one, as of another
    /// installation. Steps of the golden section of the range come near an earlier place as late as possible.
    pub(super) fn skip_neighbours(&mut self) {
        let (length, from) = (self.ring.len(), self.next - self.ring.start);
        self.next = self.ring.start + (from + length * 618 / 1000) % length;
    }

    fn state(&mut self, port: HostPort) -> &mut State {
        &mut self.all[port.index()].1
    }
}

impl State {
    fn is_free(&mut self, now: Timestamp) -> bool {
        match self {
            Self::Free => true,
            Self::Held => false,
            Self::Quarantined { since } => {
                // A clock that was set back must not make it longer than it was meant to be.
                *since = (*since).min(now);
                elapsed(*since, now) >= PORT_QUARANTINE
            }
        }
    }
}
