//! The event stream across restarts, removals and slow readers.

use std::collections::BTreeMap;

use zeroone::control::{Agents, EventsError, NewUser, Settings};
use zeroone::domain::{AgentId, Plan, Status};
use zeroone::store::{Event, EventKind, LogEntry};
use zeroone::testkit::{self, FakeDisk, Fakes, new_agent};

use crate::{PATIENCE, status, until};

#[tokio::test(start_paused = true)]
async fn event_stream_misses_and_repeats_nothing_across_restarts_and_removals() {
    let (fakes, disk) = (Fakes::new(7), FakeDisk::new());
    let (mut user, mut position, mut seen) = (None, 0, Vec::<Event>::new());
    let mut living = BTreeMap::<AgentId, Vec<LogEntry>>::new();
    for life in 0..3 {
        let plane = testkit::start(&fakes, &disk, Settings::default()).await.unwrap();
        if user.is_none() {
            let new = NewUser::new("ada@example.com", Plan::Pro);
            user = Some(plane.create_user(new).await.unwrap().id);
        }
        let mut events = plane.events(position);
        for name in ["first", "second"] {
            let agent = plane.create_agent(user.unwrap(), new_agent(&format!("{name} {life}"))).await.unwrap();
            agent.wait(&[Status::Running], PATIENCE).await.unwrap();
            if name == "first" {
                fakes.engine().crash(agent.id());
                let restarted = || agent.view().is_some_and(|view| view.record.state.restart_count == 1);
                until("it is restarted", || restarted() && status(&agent) == Some(Status::Running)).await;
                agent.delete().await.unwrap();
                assert!(agent.gone(PATIENCE).await);
            }
        }
        // A reader that is slow in the first lives, and catches up in the last one.
        while seen.len() < 4 * (life + 1) || (life == 2 && events.position() < plane.newest_event()) {
            seen.push(events.next().await.unwrap().unwrap());
        }
        position = events.position();
        if life == 2 {
            for view in plane.agents(user, None, 100, &[]).agents {
                let timeline = plane.agent(view.record.id).unwrap().events(0, 1000).await.unwrap();
                living.insert(view.record.id, timeline);
            }
            let beyond = plane.events(position + 1).next().await;
            assert_eq!(beyond, Err(EventsError::Ahead { newest: position }));
        }
        plane.shutdown(Agents::Leave).await;
        assert_eq!(plane.events(position).next().await, Ok(None), "a stream ends with its control plane");
    }

    let offsets: Vec<u64> = seen.iter().map(|event| event.offset).collect();
    assert_eq!(offsets, (1..=position).collect::<Vec<_>>());
    let mut of = BTreeMap::<AgentId, Vec<&Event>>::new();
    seen.iter().for_each(|event| of.entry(event.agent).or_default().push(event));
    assert_eq!((of.len(), living.len()), (6, 3));
    for (agent, events) in of {
        assert!(matches!(events[0].kind, EventKind::Created { .. }), "{events:?}");
        let entries: Vec<&LogEntry> = events.iter().filter_map(|event| event.kind.entry()).collect();
        assert!(entries.is_sorted_by(|one, next| one.seq < next.seq && one.to == next.from), "{entries:?}");
        match living.get(&agent) {
            Some(timeline) => assert_eq!(entries, timeline.iter().collect::<Vec<_>>()),
            None => assert_eq!(events.last().unwrap().kind, EventKind::Removed),
        }
    }
}
