//! Weeks of an installation's life in seconds: agents crash, are talked to, stopped, started, deleted and made anew, and what
//! the service keeps of it does not grow.
//!
//! - `ZEROONE_SIM_WEEKS=100` simulates so many weeks (3 by default);
//! - `ZEROONE_SIM_SECS=1800` goes on for so long, and looks at the memory of the process, too. Run alone:
//!   `cargo test --test simulation weeks -- --nocapture`

use std::time::{Duration, Instant};

use zeroone::control::{AgentHandle, ControlPlane, NewUser, RestartPolicy, Settings, Timing};
use zeroone::domain::{Plan, Status, UserId};
use zeroone::internal::store::{Batch, commit};
use zeroone::store::{IdempotencyRecord, IdempotencyState};
use zeroone::testkit::{self, FakeDisk, Fakes, Sequence, check, message, new_agent};

use crate::number;

const WEEKS: u64 = 3;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Something happens so often.
const MOMENT: Duration = Duration::from_secs(600);
const AGENTS: u32 = 10;
/// Where a store's file and a process's memory are at home after a week: freed pages and arenas are used again.
const SLACK_PERCENT: u64 = 25;
/// Over months a file keeps the highest mark that commits at one time ever needed, and timelines are longer and shorter
/// by chance. What is forgotten at each deletion shows all the same: a row for each agent doubles the rows in five weeks.
const LONG_SLACK_PERCENT: u64 = 100;

/// What is there at the end of a week.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Size {
    agents: usize,
    tasks: usize,
    rows: u64,
    store_bytes: u64,
    resident_kib: u64,
}

struct Installation {
    random: Sequence,
    fakes: Fakes,
    plane: ControlPlane,
    user: UserId,
    /// Agents made so far.
    made: u64,
    /// Requests so far that carried an idempotency key.
    keyed: u64,
}

impl Installation {
    async fn new() -> Self {
        let fakes = Fakes::new(1);
        // A gateway is looked at every quarter of an hour: a week has more seconds than a test has time.
        let timing = Timing::default().with_health_interval(Duration::from_secs(900));
        let settings = Settings::default().with_timing(timing).with_restart(RestartPolicy::default());
        let plane = testkit::start(&fakes, &FakeDisk::new(), settings).await.expect("it comes up");
        let limits = Plan::Pro.limits().with_max_agents(AGENTS);
        let user = NewUser::new("ada@example.com", Plan::Pro).with_limits(limits);
        let user = plane.create_user(user).await.expect("a new store takes a user").id;
        Self { random: Sequence::new(1), fakes, plane, user, made: 0, keyed: 0 }
    }

    async fn fill(&mut self) {
        while self.agents().len() < AGENTS as usize {
            self.made += 1;
            let new = new_agent(&format!("Agent {}", self.made));
            self.plane.create_agent(self.user, new).await.expect("within the plan");
        }
    }

    fn agents(&self) -> Vec<AgentHandle> {
        let page = self.plane.agents(Some(self.user), None, usize::MAX, &[]);
        page.agents.iter().filter_map(|view| self.plane.agent(view.record.id)).collect()
    }

    async fn week(&mut self) {
        let end = tokio::time::Instant::now() + WEEK;
        while tokio::time::Instant::now() < end {
            self.moment().await;
            tokio::time::sleep(MOMENT).await;
        }
        self.fill().await;
        self.settle().await;
        // What the fakes remember is theirs.
        self.fakes.engine().forget_tallies();
    }

    async fn moment(&mut self) {
        self.fill().await;
        let agents = self.agents();
        let agent = self.random.pick(&agents).expect("there are some").clone();
        let id = agent.id();
        match self.random.below(10) {
            0..=2 => drop(self.fakes.engine().crash(id)),
            3 => drop(self.fakes.engine().out_of_memory(id)),
            4..=6 => {
                let _ = agent.deliver(message("how are you?")).await;
                self.remember_request().await;
            }
            7 => drop(agent.restart().await),
            8 => {
                let _ = agent.stop().await;
                let _ = agent.start().await;
            }
            _ => {
                let _ = agent.delete().await;
                assert!(agent.gone(MOMENT).await, "a deletion ends");
            }
        }
    }

    /// What the HTTP facade notes of a request with an idempotency key.
    async fn remember_request(&mut self) {
        self.keyed += 1;
        let now = self.plane.now();
        let expires_at = now.checked_add(Duration::from_secs(24 * 3600)).expect("no end of time");
        let state = IdempotencyState::InFlight { agent: None, started_at: now };
        let record = IdempotencyRecord::new([7; 32], state, expires_at);
        let batch = Batch::put_idempotency(self.user, &format!("key {}", self.keyed), &record);
        commit(self.plane.store(), batch).await.expect("a store in memory takes it");
    }

    /// Waits until every agent runs: stopped ones were started, crashed ones come back.
    async fn settle(&self) {
        for agent in self.agents() {
            let _ = agent.start().await;
            agent.wait(&[Status::Running], Duration::from_secs(7200)).await.expect("it runs");
        }
        tokio::time::sleep(MOMENT).await;
        assert_eq!(check(&self.plane, &*self.fakes.runtime(), true).await, Ok(Vec::new()));
    }

    async fn size(&self) -> Size {
        let stats = self.plane.store().stats().await.expect("a store in memory can be read");
        Size {
            agents: self.agents().len(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            rows: stats.rows.iter().map(|(_, rows)| rows).sum(),
            store_bytes: stats.bytes,
            resident_kib: resident_kib(),
        }
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has one");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

fn within(now: u64, then: u64, slack_percent: u64) -> bool {
    now * 100 <= then * (100 + slack_percent)
}

#[tokio::test(start_paused = true)]
async fn weeks_leave_the_store_and_the_memory_as_they_were() {
    let began = Instant::now();
    let secs = number("ZEROONE_SIM_SECS");
    let weeks = number("ZEROONE_SIM_WEEKS").unwrap_or(WEEKS);
    let slack = if secs.is_some() { LONG_SLACK_PERCENT } else { SLACK_PERCENT };
    let mut installation = Installation::new().await;
    let mut first: Option<Size> = None;
    for week in 1.. {
        let over = secs.map_or(week > weeks, |secs| week > 2 && began.elapsed() > Duration::from_secs(secs));
        if over {
            break;
        }
        installation.week().await;
        let now = installation.size().await;
        println!("week {week}, {} agents made: {now:?}", installation.made);
        // The first week fills what later ones use again: timelines, freed pages.
        let Some(then) = first.as_ref() else {
            first = (week == 2).then_some(now);
            continue;
        };
        assert_eq!((now.agents, now.tasks), (then.agents, then.tasks), "week {week}");
        assert!(within(now.rows, then.rows, slack), "week {week}: {} rows became {}", then.rows, now.rows);
        assert!(within(now.store_bytes, then.store_bytes, slack), "week {week}: {then:?} became {now:?}");
        // Beside other tests the memory of the process says nothing.
        assert!(
            secs.is_none() || within(now.resident_kib, then.resident_kib, SLACK_PERCENT),
            "week {week}: {then:?} became {now:?}"
        );
    }
    let agents = installation.made;
    assert!(agents > u64::from(AGENTS) * 3, "only {agents} agents were made");
}
