//! What a committed transition tells: edges, waits, budgets, wishes.

use super::{Inspector, Invariant, Known, Wish};
use crate::actor::FeedEntry;
use crate::domain::{Status, Timestamp, elapsed};
use crate::store::LogEntry;
use crate::testkit::state::Tally;

/// Causes for which a run that nobody asked to end is followed by another one.
const DEATHS: [&str; 7] =
    ["exited", "oom-killed", "ended-outside", "instance-gone", "restarted-outside", "health-lost", "token-refused"];
/// Causes with which the past is forgiven.
const PARDONS: [&str; 3] = ["start-requested", "restart-requested", "stopped"];

impl Inspector {
    /// A committed transition, with what the gateway did so far.
    pub fn fed(&mut self, fed: &FeedEntry, tally: &Tally) {
        let (agent, entry) = (fed.agent, &fed.entry);
        let policy = self.policy.clone();
        let punctual_from = self.lives_since.filter(|_| !self.hindered);
        let known = self.agents.entry(agent).or_default();
        let mut found: Vec<(Invariant, String)> = Vec::new();
        let mut fails = |invariant, detail| found.push((invariant, detail));
        if known.owner.is_some_and(|owner| owner != fed.user) {
            fails(Invariant::UsersApart, format!("{} is told of it, its user is {:?}", fed.user, known.owner));
        }
        edges(known, entry, &mut fails);
        if entry.from == Status::Running && entry.to != entry.from && entry.cause == "runtime-unavailable" {
            fails(Invariant::AbsenceIsNoDeath, format!("to {}", entry.to));
        }
        if let Some(since) = known.running_since.filter(|_| entry.from == Status::Running)
            && entry.cause == "token-refused"
            && !tally.refusals.iter().any(|refused| *refused >= since)
        {
            fails(Invariant::NewsOfThisRun, format!("re-paired, nothing refused since {since}"));
        }
        waits(known, entry, punctual_from, &mut fails);
        budget(known, entry, &policy, &mut fails);
        wishes(known, entry, &mut fails);
        known.revision = entry.seq;
        known.status = Some(entry.to);
        match (entry.from, entry.to) {
            (Status::Running, Status::Running) => {}
            (_, Status::Running) => known.running_since = Some(entry.time),
            _ => known.running_since = None,
        }
        for (invariant, detail) in found {
            self.violated(invariant, agent, detail);
        }
        let told = format!("{} {}", entry.cause, entry.detail.as_deref().unwrap_or_default());
        self.told(Some(agent), &told);
    }
}

fn edges(known: &Known, entry: &LogEntry, fails: &mut impl FnMut(Invariant, String)) {
    let (revision, status) = (known.revision, known.status);
    if entry.seq <= revision {
        fails(Invariant::Edges, format!("revision {} after {revision}", entry.seq));
    }
    let torn = entry.seq == revision + 1 && status.is_some_and(|status| status != entry.from);
    let moved = entry.from != entry.to;
    if torn || (moved && !Status::EDGES.contains(&(entry.from, entry.to))) {
        fails(Invariant::Edges, format!("{} to {} after {status:?}", entry.from, entry.to));
    }
}

/// `punctual_from`: since when the service can be in time, if it can.
fn waits(
    known: &mut Known,
    entry: &LogEntry,
    punctual_from: Option<Timestamp>,
    fails: &mut impl FnMut(Invariant, String),
) {
    let Some((shown, due)) = known.due.take() else { return };
    if entry.seq != shown + 1 || entry.cause != "retry-due" {
        return;
    }
    if entry.time < due {
        fails(Invariant::WaitsAreKept, format!("at {} instead of {due}", entry.time));
    } else if punctual_from.is_some_and(|from| elapsed(due.max(from), entry.time).as_millis() > 1) {
        fails(Invariant::WaitsAreKept, format!("at {}, {due} was promised", entry.time));
    }
}

fn budget(
    known: &mut Known,
    entry: &LogEntry,
    policy: &crate::backoff::RestartPolicy,
    fails: &mut impl FnMut(Invariant, String),
) {
    let rested = entry.cause == "retry-due" && entry.from == Status::Error;
    if rested || PARDONS.contains(&entry.cause.as_str()) {
        known.restarts.clear();
    }
    if entry.from == Status::Running && entry.to == Status::Starting && DEATHS.contains(&entry.cause.as_str()) {
        known.restarts.push(entry.time);
        known.restarts.retain(|then| elapsed(*then, entry.time) < policy.window);
        let restarts = known.restarts.len();
        if restarts > policy.max_restarts as usize {
            fails(Invariant::RestartsBudgeted, format!("{restarts} restarts within {:?}", policy.window));
        }
    }
}

fn wishes(known: &Known, entry: &LogEntry, fails: &mut impl FnMut(Invariant, String)) {
    let comes_up = matches!(entry.to, Status::Pending | Status::Starting | Status::Running);
    let against = match known.wish {
        Wish::Open | Wish::Run => false,
        Wish::Stop => comes_up,
        Wish::Delete => comes_up || entry.to == Status::Stopped,
    };
    if against && entry.seq > known.wished_at {
        fails(Invariant::WishesHold, format!("{:?} was acknowledged, then {}: {}", known.wish, entry.to, entry.cause));
    }
}
