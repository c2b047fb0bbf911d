use super::{Act, Report};
use crate::domain::{Status, elapsed};
use crate::lifecycle::Context;
use crate::lifecycle::tests::*;

/// What the last command that was followed asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Up,
    Down,
    Gone,
}

/// A life, with all that is pending round it and all that must not be forgotten about it.
pub(super) struct World {
    state: AgentState,
    now: Timestamp,
    restart: RestartPolicy,
    timing: Timing,
    /// The job under way with its attempt, and whether it writes files.
    lane: Option<(Job, u64, bool)>,
    /// Jobs that were superseded and may still report.
    ghosts: Vec<(Job, u64)>,
    /// The revision that the timer was set at, and when it is due.
    timer: Option<(u64, Timestamp)>,
    health: Option<u64>,
    looks: Vec<u64>,
    wanted: Wanted,
    /// Files that no run has seen yet: none may be probed, let alone serve, before they are written.
    unwritten: bool,
    /// A run that was found deaf or could not be paired with: none may be created beside it before it is halted.
    unhalted: bool,
    /// Restarts that the budget paid for, in this window.
    granted: Vec<Timestamp>,
    failed_starts: u32,
    pub(super) ended: bool,
}

type Checked = Result<(), String>;

macro_rules! hold {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            state: AgentState::new(),
            now: at(0),
            restart: RestartPolicy { max_restarts: 6, max_failed_starts: 4, ..RestartPolicy::default() },
            timing: Timing::default(),
            lane: None,
            ghosts: Vec::new(),
            timer: None,
            health: None,
            looks: Vec::new(),
            wanted: Wanted::Up,
            unwritten: true,
            unhalted: false,
            granted: Vec::new(),
            failed_starts: 0,
            ended: false,
        };
        world.tell(Event::Recovered).expect("a new agent is taken up");
        world
    }

    pub(super) fn happen(&mut self, act: Act) -> Checked {
        match act {
            Act::Command(command) => self.command(command),
            Act::Finish(report) => self.finish(report),
            Act::Ghost(which, report) => {
                if self.ghosts.is_empty() {
                    return Ok(());
                }
                let (job, attempt) = self.ghosts.remove(which.index(self.ghosts.len()));
                self.unheard(Event::Job { attempt, job, outcome: report.outcome(job) })
            }
            Act::Stale { job, behind, report } => {
                let attempt = self.state.attempt.saturating_sub(behind);
                self.ignored(Event::Job { attempt, job, outcome: report.outcome(job) })
            }
            Act::Timer => self.ring(),
            Act::StaleTimer { behind } => {
                self.ignored(Event::Wake { revision: self.state.revision.saturating_sub(behind) })
            }
            Act::Look(which, observation) => {
                if self.looks.is_empty() {
                    return Ok(());
                }
                let revision = self.looks.remove(which.index(self.looks.len()));
                let event = Event::Observed { revision, observation };
                if revision == self.state.revision { self.tell(event) } else { self.unheard(event) }
            }
            Act::Nudge => self.unheard(Event::Resync),
            Act::Health(alive) => match self.health.take() {
                Some(attempt) => self.tell(Event::Health { attempt, alive }),
                None => Ok(()),
            },
            Act::StaleHealth { behind, alive } => {
                self.ignored(Event::Health { attempt: self.state.attempt.saturating_sub(behind), alive })
            }
            Act::TokenRefused { behind: 0 } => self.tell(Event::TokenRefused { attempt: self.state.attempt }),
            Act::TokenRefused { behind } => {
                self.ignored(Event::TokenRefused { attempt: self.state.attempt.saturating_sub(behind) })
            }
            Act::Reboot => {
                (self.lane, self.timer, self.health) = (None, None, None);
                self.ghosts.clear();
                self.looks.clear();
                self.tell(Event::Recovered)
            }
            Act::Pass { millis } => {
                self.now = later(self.now, Duration::from_millis(millis));
                Ok(())
            }
            Act::Jump { millis } => {
                self.now =
                    self.now.saturating_add(jiff::SignedDuration::from_millis(millis)).map_err(|e| e.to_string())?;
                // In whose time would the budget be counted now? It is checked again from here on.
                self.granted.clear();
                Ok(())
            }
        }
    }

    /// From here on all goes well, or nothing does: either way the agent must come to rest, and soon.
    pub(super) fn settle(&mut self, healthy: bool) -> Checked {
        let report = if healthy { Report::Good } else { Report::Bad(FailureKind::Transient) };
        for _ in 0..200 {
            let at_rest = match (&self.state.phase, self.wanted) {
                _ if self.ended => self.wanted == Wanted::Gone,
                (Phase::Running { .. }, _) => healthy,
                (Phase::Stopped, wanted) => wanted == Wanted::Down,
                (Phase::Failed { retry_at, .. }, _) => !healthy || retry_at.is_none(),
                (Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. }, _) => false,
            };
            if at_rest {
                return Ok(());
            }
            match (&self.state.phase, healthy) {
                (Phase::Running { .. }, _) => self.tell(Event::TokenRefused { attempt: self.state.attempt })?,
                _ if self.timer.is_some_and(|(revision, _)| revision == self.state.revision) => self.ring()?,
                _ => self.finish(report)?,
            }
        }
        Err(format!("still in {:?}", self.state.phase))
    }

    fn command(&mut self, command: Command) -> Checked {
        if admit(&self.state.phase, command) != Admission::Accept {
            return self.ignored(Event::Command(command));
        }
        match command {
            Command::Start | Command::Restart => self.wanted = Wanted::Up,
            Command::Stop => self.wanted = Wanted::Down,
            Command::Delete => self.wanted = Wanted::Gone,
            Command::Update { inside } => self.unwritten |= inside,
        }
        self.tell(Event::Command(command))
    }

    /// The job under way ends. What it did is true, whether anyone still listens or not.
    fn finish(&mut self, report: Report) -> Checked {
        let Some((job, attempt, stages)) = self.lane.take() else { return Ok(()) };
        let outcome = report.outcome(job);
        match (job, &outcome) {
            (Job::Create, Outcome::Created { up: None, .. }) if stages => self.unwritten = false,
            (Job::Kill | Job::Stop | Job::Remove, Outcome::Done) => self.unhalted = false,
            (Job::Probe | Job::Pair, Outcome::Failed(failure)) if failure.kind == FailureKind::Transient => {
                self.unhalted = true;
            }
            _ => {}
        }
        self.tell(Event::Job { attempt, job, outcome })
    }

    fn ring(&mut self) -> Checked {
        let Some((revision, due)) = self.timer.take() else { return Ok(()) };
        self.now = self.now.max(due);
        self.tell(Event::Wake { revision })
    }

    /// Of an older time, or not admitted: nothing comes of it.
    fn ignored(&mut self, event: Event) -> Checked {
        let transition = self.decide(event);
        hold!(transition.state.is_none() && transition.effects.is_empty(), "was not ignored: {transition:?}");
        Ok(())
    }

    /// Nothing is decided by it, though somebody may be sent to look.
    fn unheard(&mut self, event: Event) -> Checked {
        let before = self.state.revision;
        self.tell(event)?;
        hold!(self.state.revision == before, "something was decided");
        Ok(())
    }

    fn decide(&self, event: Event) -> Transition {
        let context = Context { now: self.now, seed: 7, restart: &self.restart, timing: &self.timing };
        step(&self.state, event, &context)
    }

    fn tell(&mut self, event: Event) -> Checked {
        let before = self.state.clone();
        let transition = self.decide(event.clone());
        self.check_transition(&before, &event, &transition)?;
        if let Some(state) = transition.state {
            self.state = state;
        }
        self.unwritten |= transition.token == TokenChange::Forget;
        for effect in transition.effects {
            self.act(effect)?;
        }
        if !self.ended {
            self.check_budget(&before, &event)?;
            self.check()?;
        }
        Ok(())
    }

    fn act(&mut self, effect: Effect) -> Checked {
        match effect {
            Effect::Run(job) => {
                hold!(job != Job::Create || !self.unhalted, "an instance is created beside one that was to be halted");
                let stages = matches!(self.state.phase, Phase::Starting { stage: true, .. });
                let before = self.lane.replace((job, self.state.attempt, stages));
                self.ghosts.extend(before.map(|(job, attempt, _)| (job, attempt)));
            }
            Effect::Observe => self.looks.push(self.state.revision),
            Effect::CheckHealth(_) => self.health = Some(self.state.attempt),
            Effect::WakeAt(due) => {
                let wait = elapsed(self.now, due);
                hold!(wait <= self.restart.max_rest, "a timer in {wait:?}");
                self.timer = Some((self.state.revision, due));
            }
            Effect::End => {
                hold!(self.wanted == Wanted::Gone, "ended unasked");
                self.ended = true;
            }
        }
        Ok(())
    }

    fn check_transition(&self, before: &AgentState, event: &Event, transition: &Transition) -> Checked {
        let count = |matches: fn(&Effect) -> bool| transition.effects.iter().filter(|effect| matches(effect)).count();
        hold!(count(|effect| matches!(effect, Effect::Run(_))) <= 1, "two jobs at once");
        hold!(count(|effect| matches!(effect, Effect::WakeAt(_))) <= 1, "two timers");
        hold!(count(|effect| matches!(effect, Effect::CheckHealth(_))) <= 1, "two chains of checks");
        hold!(transition.cause.is_some() == transition.state.is_some(), "a change has a cause, and only a change");
        let Some(next) = &transition.state else {
            hold!(transition.token == TokenChange::Keep, "a token is forgotten without a commit");
            return Ok(());
        };
        let edge = (before.status(), next.status());
        hold!(edge.0 == edge.1 || Status::EDGES.contains(&edge), "no such edge: {edge:?}");
        hold!(next.revision == before.revision + 1, "revision {} after {}", next.revision, before.revision);
        hold!((0..=1).contains(&(next.attempt - before.attempt)), "attempt {} after {}", next.attempt, before.attempt);
        let updates = u64::from(matches!(event, Event::Command(Command::Update { .. })));
        hold!(next.generation == before.generation + updates, "generation {}", next.generation);
        hold!(next.restart_count >= before.restart_count, "restarts are forgotten");
        Ok(())
    }

    /// What holds between any two events.
    fn check(&self) -> Checked {
        let state = &self.state;
        let waits_for_job =
            |job| self.lane.is_some_and(|(under_way, attempt, _)| (under_way, attempt) == (job, state.attempt));
        let waits_for_timer = self.timer.is_some_and(|(revision, _)| revision == state.revision);
        let goes_on = match &state.phase {
            Phase::Pending => waits_for_timer,
            Phase::Starting { step, .. } => step.job().map_or(waits_for_timer, waits_for_job),
            Phase::Running { .. } => self.health == Some(state.attempt),
            Phase::Stopping { then, retry_at: None, .. } => waits_for_job(then.job()),
            Phase::Stopping { retry_at: Some(_), .. } | Phase::Failed { retry_at: Some(_), .. } => waits_for_timer,
            Phase::Stopped | Phase::Failed { retry_at: None, .. } => true,
        };
        hold!(goes_on, "nothing ends {:?}", state.phase);

        let wanted = match &state.phase {
            Phase::Stopping { then: AfterStop::Delete, .. } | Phase::Failed { resume: RetryTarget::Delete, .. } => {
                Wanted::Gone
            }
            Phase::Stopping { then: AfterStop::Stay, .. } | Phase::Failed { resume: RetryTarget::Stop, .. } => {
                Wanted::Down
            }
            Phase::Stopped => Wanted::Down,
            Phase::Stopping { then: AfterStop::Restart, .. } | Phase::Failed { resume: RetryTarget::Start, .. } => {
                Wanted::Up
            }
            Phase::Pending | Phase::Starting { .. } | Phase::Running { .. } => Wanted::Up,
        };
        hold!(wanted == self.wanted, "{:?} is wanted, and it is in {:?}", self.wanted, state.phase);

        let shown = state.phase.run_id().is_some();
        hold!(!shown || !self.unwritten, "a run goes on with older files");
        hold!(!shown || state.leftover.is_none(), "{:?} beside the run {:?}", state.phase, state.leftover);
        let explained = match &state.phase {
            Phase::Running { misses, .. } => (*misses > 0) == state.reason.is_some(),
            Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. } => state.reason.is_some(),
            Phase::Pending | Phase::Starting { .. } => true,
        };
        hold!(explained, "{:?} because of {:?}", state.phase, state.reason);
        Ok(())
    }

    /// Restarts that nobody asked for are paid from the budget.
    fn check_budget(&mut self, before: &AgentState, event: &Event) -> Checked {
        let after = &self.state;
        if after.restarts == AgentState::new().restarts
            || (before.status(), after.status()) == (Status::Error, Status::Pending)
        {
            (self.granted, self.failed_starts) = (Vec::new(), 0);
            return Ok(());
        }
        let paid = match event {
            Event::Observed { .. } | Event::TokenRefused { .. } | Event::Unusable { .. } => true,
            Event::Job { outcome: Outcome::Failed(failure), .. } => failure.kind != FailureKind::EngineAway,
            Event::Job { outcome: Outcome::Created { up, .. }, .. } => up.is_some(),
            Event::Job { .. } | Event::Command(_) | Event::Recovered => false,
            Event::Resync | Event::Health { .. } | Event::Wake { .. } => false,
            Event::ModelFailed { .. } | Event::ModelAnswered { .. } => false,
        };
        let again = matches!(after.phase, Phase::Starting { .. })
            && (after.attempt > before.attempt || after.next_attempt_at() > before.next_attempt_at());
        match (before.status(), event) {
            _ if after.status() == Status::Running => self.failed_starts = 0,
            (Status::Starting, event)
                if again && paid && !matches!(event, Event::Observed { observation: Observation::Up { .. }, .. }) =>
            {
                self.failed_starts += 1;
            }
            _ => {}
        }
        if again && paid {
            self.granted.retain(|&then| elapsed(then, self.now) < self.restart.window);
            self.granted.push(self.now);
        }
        hold!(self.granted.len() <= self.restart.max_restarts as usize, "restarts beyond the budget");
        hold!(self.failed_starts < self.restart.max_failed_starts, "failed starts beyond the budget");
        Ok(())
    }
}
