//! What happens in the gateway, as it happens: for dashboards, which may come late or lose their connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::persona::head;
use crate::domain::Timestamp;

/// Events kept for those who come back.
const KEPT: usize = 512;
/// Events that a slow listener may be behind; then it is told that it missed some.
const BACKLOG: usize = 256;
/// As much of a message as an event shows, in bytes.
const EXCERPT: usize = 2_000;

/// One event with its place in the order of this process.
#[derive(Debug)]
pub(super) struct Event {
    number: u64,
    pub(super) body: Value,
}

pub(super) struct Events {
    /// Tells the numbers of this process from those of an earlier one.
    boot: String,
    ring: Mutex<Ring>,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<Arc<Event>>,
}

/// A listener: first what it missed, then what comes.
pub(super) struct Subscription {
    pub(super) missed: Vec<Arc<Event>>,
    /// Something between the last event seen and the first of these is gone.
    pub(super) gap: bool,
    pub(super) live: broadcast::Receiver<Arc<Event>>,
}

impl Events {
    pub(super) fn new() -> Self {
        let boot = Timestamp::now().as_millisecond().to_string();
        Self { boot, ring: Mutex::default(), sender: broadcast::channel(BACKLOG).0 }
    }

    /// Publishes an event; `body` is an object and gets `type` and `timestamp`.
    pub(super) fn publish(&self, kind: &str, mut body: Value) {
        body["type"] = kind.into();
        body["timestamp"] = Timestamp::now().to_string().into();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let event = Arc::new(Event { number: ring.last, body });
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Sent under the lock, so that a subscription sees each event exactly once. No listener is no error.
        let _ = self.sender.send(event);
    }

    /// A message in or out, shown in part.
    pub(super) fn message(&self, source: &str, role: &str, text: &str) {
        self.publish("message", json!({ "source": source, "role": role, "content": head(text, EXCERPT) }));
    }

    pub(super) fn error(&self, component: &str, message: &str) {
        self.publish("error", json!({ "component": component, "message": message }));
    }

    /// The name of an event for one who wants to go on after it.
    pub(super) fn id(&self, event: &Event) -> String {
        format!("{}-{}", self.boot, event.number)
    }

    /// Listens from after the event named `last_id`; without one, from now. An unknown name means everything kept.
    pub(super) fn subscribe(&self, last_id: Option<&str>) -> Subscription {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.sender.subscribe();
        let Some(last_id) = last_id else { return Subscription { missed: vec![], gap: false, live } };
        let ours = last_id.split_once('-').filter(|(boot, _)| *boot == self.boot);
        let after = ours.and_then(|(_, number)| number.parse::<u64>().ok()).filter(|number| *number <= ring.last);
        let first_kept = ring.events.front().map_or(ring.last + 1, |event| event.number);
        let gap = after.is_none_or(|after| after + 1 < first_kept);
        let missed = ring.events.iter().filter(|event| event.number > after.unwrap_or(0)).cloned().collect();
        Subscription { missed, gap, live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(subscription: &Subscription) -> Vec<u64> {
        subscription.missed.iter().map(|event| event.number).collect()
    }

    #[test]
    fn who_comes_back_gets_what_was_missed_and_is_told_of_a_gap() {
        let events = Events::new();
        for n in 0..3 {
            events.publish("test", json!({ "n": n }));
        }
        let second = format!("{}-2", events.boot);
        let back = events.subscribe(Some(&second));
        assert_eq!((numbers(&back), back.gap), (vec![3], false));
        assert_eq!(numbers(&events.subscribe(None)), Vec::<u64>::new());
        for _ in 0..KEPT {
            events.publish("test", json!({}));
        }
        let late = events.subscribe(Some(&second));
        assert_eq!((late.missed.len(), late.gap), (KEPT, true));
        for stranger in ["", "x", "1-2", &format!("{}-99999", events.boot)] {
            assert!(events.subscribe(Some(stranger)).gap, "{stranger}");
        }
    }

    #[test]
    fn live_events_follow_without_overlap() {
        let events = Events::new();
        events.publish("a", json!({}));
        let mut subscription = events.subscribe(Some("other-1"));
        events.publish("b", json!({}));
        assert_eq!(numbers(&subscription), [1]);
        assert_eq!(subscription.live.try_recv().unwrap().body["type"], "b");
        assert!(subscription.live.try_recv().is_err());
    }
}
