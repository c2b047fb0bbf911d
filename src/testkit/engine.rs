//! The engine in memory: instances, their data, ports and logs, and the hands that meddle with them.
//!
//! One lock, never held over an await; what takes time is waited for outside of it, by tokio's clock alone. An instance's
//! life is data with times in it, not tasks: it outlives the service, and the runtime that the service ran on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Notify, broadcast};

use super::behavior::{GatewayBehavior, GatewayFault};
use super::images::FakeImage;
use super::process::Process;
use super::state::{Instance, InstancePhase, State, Tally};
use crate::actor::Clock;
use crate::domain::{AgentId, Exit, HostPort, InstallationId, RunId, Timestamp};
use crate::runtime::{InstanceState, LogStream, ObservedInstance, Resync, Run, RuntimeError, RuntimeResult, Wait};

/// Wake-ups kept for a slow watcher; a slower one is told of a gap.
const WAKE_UPS: usize = 1024;
/// Whether the engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// As it should be.
    Answers,
    /// Every call fails at once.
    Away,
    /// No call comes back until the condition changes; instances run on.
    Hangs,
}

/// What becomes of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Image {
    /// It is there, and nothing is pulled.
    Present,
    /// The pull takes this long, with progress on the way; then it is present.
    Slow(Duration),
    /// There is no such image.
    Missing,
    /// The registry does not answer.
    Unreachable,
}

/// How long the engine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// Of a call, before and again after its effect.
    pub half_call: Duration,
}

impl Pace {
    /// Calls take this long before and again after their effect.
    pub const fn new(half_call: Duration) -> Self {
        Self { half_call }
    }
}

/// A container engine in memory, and the hands that do to its instances what the control plane would not. Clones share
/// it.
#[derive(Clone)]
pub struct FakeEngine(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    condition: Mutex<Condition>,
    /// Wakes calls that hang in the order in which they came. A watch channel would wake them in a random one, and the same
    /// seed would have many histories.
    condition_changed: Notify,
    changes: broadcast::Sender<(InstallationId, Resync)>,
}

impl FakeEngine {
    /// An engine whose choices come from `seed`, and whose clock is `clock`.
    pub fn new(seed: u64, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::new(seed, clock)),
            condition: Mutex::new(Condition::Answers),
            condition_changed: Notify::new(),
            changes: broadcast::Sender::new(WAKE_UPS),
        }))
    }

    /// Changes whether the engine answers. One that is back tells its watchers that they may have missed something.
    pub fn set_condition(&self, condition: Condition) {
        let before = std::mem::replace(&mut *self.condition(), condition);
        self.0.condition_changed.notify_waiters();
        if before != Condition::Answers && condition == Condition::Answers {
            self.gap();
        }
    }

    /// From now on it answers every question for a lease with a refusal, like a filter that lets nobody at volumes.
    pub fn refuse_leases(&self, refuse: bool) {
        self.lock().leases_refused = refuse;
    }

    /// Tells all watchers that they may have missed something.
    pub fn gap(&self) {
        let owners: BTreeSet<_> = self.lock().volumes.values().filter_map(|volume| volume.installation).collect();
        for owner in owners {
            self.told(owner, Resync::All);
        }
    }

    /// How long calls take from now on.
    pub fn set_pace(&self, pace: Pace) {
        self.lock().pace = pace;
    }

    /// What becomes of the image from now on.
    pub fn set_image(&self, image: Image) {
        self.lock().image = image;
    }

    /// Gives instances addresses of their own from now on, instead of ports of the host.
    pub fn give_addresses(&self) {
        self.lock().host_ports = false;
    }

    /// Every start keeps the engine busy for so long, and it says with what; `None` for starts that are done at once.
    pub fn set_slow_start(&self, slow: Option<(Duration, &str)>) {
        self.lock().slow_start = slow.map(|(time, why)| (time, why.into()));
    }

    /// What the engine says of a start that it is busy with: why it takes so long, and whether it tries and fails. False where
    /// it is busy with none.
    pub fn set_wait(&self, agent: AgentId, why: &str, stuck: bool) -> bool {
        match self.lock().instances.get_mut(&agent).map(|instance| &mut instance.state) {
            Some(InstancePhase::Starting(wait)) => {
                *wait = Wait { why: why.into(), stuck, ..wait.clone() };
                true
            }
            Some(InstancePhase::Created | InstancePhase::Up(_) | InstancePhase::Down(_)) | None => false,
        }
    }

    /// The machine that the instance runs on is lost to the engine, or is back. False where nothing runs.
    pub fn lose_machine(&self, agent: AgentId, lost: bool) -> bool {
        let done = self.lock().instances.get_mut(&agent).and_then(Instance::up).map(|up| up.unreachable = lost);
        self.changed(agent);
        done.is_some()
    }

    /// Puts an image there. The first one is what the runtime is set up with; without any it has no images.
    pub fn add_image(&self, name: &str, image: FakeImage) {
        self.lock().images.add(name, image);
    }

    /// How gateways behave that start from now on.
    pub fn set_behavior(&self, behavior: GatewayBehavior) {
        self.lock().behavior = Arc::new(behavior);
    }

    /// How this agent's gateway behaves from its next start on.
    pub fn set_behavior_of(&self, agent: AgentId, behavior: GatewayBehavior) {
        self.lock().habits_of.insert(agent, Arc::new(behavior));
    }

    /// How all gateways are that have no mood of their own.
    pub fn set_gateway_fault(&self, gateway_fault: GatewayFault) {
        self.lock().gateway_fault = gateway_fault;
    }

    /// How this agent's gateway is from now on; `None` for as all others are.
    pub fn set_gateway_fault_of(&self, agent: AgentId, gateway_fault: Option<GatewayFault>) {
        let mut state = self.lock();
        match gateway_fault {
            Some(gateway_fault) => state.gateway_faults.insert(agent, gateway_fault),
            None => state.gateway_faults.remove(&agent),
        };
    }

    /// Lets every run of this agent end by itself after so long; `None` lets it live.
    pub fn set_dying(&self, agent: AgentId, dying: Option<(Duration, Exit)>) {
        let mut state = self.lock();
        match dying {
            Some(dying) => state.dying.insert(agent, dying),
            None => state.dying.remove(&agent),
        };
    }

    /// A stranger listens on the port: whoever starts there finds it taken.
    pub fn take_port(&self, port: HostPort) {
        self.lock().strangers.insert(port);
    }

    /// Ends what [`FakeEngine::take_port`] began.
    pub fn free_port(&self, port: HostPort) {
        self.lock().strangers.remove(&port);
    }

    /// Kills the run, as `kill -9` does. False where nothing runs.
    pub fn crash(&self, agent: AgentId) -> bool {
        self.end(agent, Exit::with_code(137))
    }

    /// Kills the run for want of memory.
    pub fn out_of_memory(&self, agent: AgentId) -> bool {
        self.end(agent, Exit { code: Some(137), oom: true, asked: false, reason: None })
    }

    /// Lets the run end with this exit.
    pub fn end(&self, agent: AgentId, exit: Exit) -> bool {
        let ended = {
            let mut state = self.lock();
            let now = state.now();
            state.instances.get_mut(&agent).is_some_and(|instance| instance.end(exit, now))
        };
        if ended {
            self.changed(agent);
        }
        ended
    }

    /// Pauses the run, or lets it go on. False where nothing runs.
    pub fn pause(&self, agent: AgentId, paused: bool) -> bool {
        let done = match self.lock().instances.get_mut(&agent).and_then(Instance::up) {
            Some(up) => {
                up.paused = paused;
                true
            }
            None => false,
        };
        if done {
            self.changed(agent);
        }
        done
    }

    /// Starts the instance by hand. False where there is none, or it runs, or its port is taken.
    pub fn start_by_hand(&self, agent: AgentId) -> bool {
        let begun = self.begin_run(agent).is_ok_and(|(_, begun)| begun);
        if begun {
            self.changed(agent);
        }
        begun
    }

    /// Restarts the instance by hand: another run, on the same data.
    pub fn restart_by_hand(&self, agent: AgentId) -> bool {
        self.end(agent, Exit::with_code(0));
        self.start_by_hand(agent)
    }

    /// Ends the run and begins another one, as an engine does by a restart policy of its own.
    pub fn restart_by_policy(&self, agent: AgentId, exit: Exit) -> bool {
        let restarted = self.end(agent, exit.clone()) && self.start_by_hand(agent);
        if let Some(instance) = self.lock().instances.get_mut(&agent).filter(|_| restarted) {
            instance.died = Some(exit);
        }
        restarted
    }

    /// Removes the instance by hand and keeps its data.
    pub fn remove_by_hand(&self, agent: AgentId) -> bool {
        let removed = {
            let mut state = self.lock();
            let now = state.now();
            state.take(agent).map(|mut instance| {
                instance.end(Exit::with_code(137), now);
                instance.installation
            })
        };
        if let Some(owner) = removed {
            self.told(owner, Resync::Instance(agent));
        }
        removed.is_some()
    }

    /// Empties the instance's data, as somebody does who removes a volume.
    pub fn wipe(&self, agent: AgentId) {
        if let Some(volume) = self.lock().volumes.get_mut(&agent) {
            volume.files.clear();
        }
    }

    /// Lets a running gateway forget every token; the next one needs a new code, which it does not print.
    pub fn forget_tokens(&self, agent: AgentId) {
        if let Some(up) = self.lock().instances.get_mut(&agent).and_then(Instance::up)
            && let Process::Gateway(gateway) = &mut up.process
        {
            gateway.tokens.clear();
        }
    }

    /// Lets the run print a line, as its gateway would. False where nothing runs.
    pub fn print(&self, agent: AgentId, text: &str) -> bool {
        let mut state = self.lock();
        let now = state.now();
        let Some(instance) = state.instances.get_mut(&agent) else { return false };
        let Some(run_id) = instance.up().map(|up| up.run.run_id.clone()) else { return false };
        instance.print(run_id, now, LogStream::Stdout, text.to_owned());
        instance.stirred.notify_waiters();
        true
    }

    /// How often control planes have made sure that they reach their instances.
    pub fn attached(&self) -> u64 {
        self.lock().attached
    }

    /// What there is of this agent's instance.
    pub fn observed(&self, agent: AgentId) -> Option<ObservedInstance> {
        self.lock().instances.get(&agent).map(Instance::observed)
    }

    /// All instances there are, of whatever installation.
    pub fn all(&self) -> Vec<ObservedInstance> {
        self.lock().instances.values().map(Instance::observed).collect()
    }

    /// The instances of one installation.
    pub fn all_of(&self, installation: InstallationId) -> Vec<ObservedInstance> {
        let state = self.lock();
        let ours = |instance: &&Instance| instance.installation == installation;
        state.instances.values().filter(ours).map(Instance::observed).collect()
    }

    /// Agents that have data here, with an instance or without.
    pub fn volumes(&self) -> Vec<AgentId> {
        self.lock().volumes.keys().copied().collect()
    }

    /// Puts a file into the instance's data, as the instance itself would.
    pub fn put_file(&self, agent: AgentId, path: &str, content: &[u8]) {
        self.lock().volumes.entry(agent).or_default().files.insert(path.to_owned().into(), content.to_vec());
    }

    /// A file of the instance's data.
    pub fn file(&self, agent: AgentId, path: &str) -> Option<Vec<u8>> {
        self.lock().volumes.get(&agent)?.files.get(path).cloned()
    }

    /// What was done to this agent's instance so far.
    pub fn tally(&self, agent: AgentId) -> Tally {
        self.lock().tallies.get(&agent).cloned().unwrap_or_default()
    }

    /// The time by its clock.
    pub fn now(&self) -> Timestamp {
        self.lock().now()
    }

    /// Puts the wall clock forward, or back, for the engine and for whoever has its clock. What is under way in
    /// instances takes as long as it would have taken.
    pub fn put_clock_forward(&self, by: SignedDuration) {
        self.lock().put_clock_forward(by);
    }

    /// Forgets what was done to instances so far: for runs so long that their history would fill the memory.
    pub fn forget_tallies(&self) {
        self.lock().tallies.clear();
    }

    pub(super) fn clock(&self) -> Clock {
        self.lock().clock.clone()
    }

    /// Time stands still, until [`FakeEngine::go_on`].
    pub(super) fn stand_still(&self) {
        let mut state = self.lock();
        state.stands_at = Some(state.now());
    }

    /// Time stands still from the very beginning, which is then.
    pub(super) fn begin_at(&self, at: Timestamp) {
        let mut state = self.lock();
        state.stamped = at;
        state.stands_at = Some(at);
    }

    /// Time goes on with the clock of the tokio runtime that this is called in, and what that runtime has to wake is set
    /// up again.
    pub(super) fn go_on(&self) {
        let dying: Vec<_> = {
            let mut state = self.lock();
            state.clock = Clock::tokio(state.now());
            state.stands_at = None;
            let up = state.instances.iter_mut().filter_map(|(agent, instance)| Some((*agent, instance.up()?)));
            up.filter_map(|(agent, up)| Some((agent, up.run.run_id.clone(), up.dies.clone()?))).collect()
        };
        for (agent, run_id, (at, exit)) in dying {
            self.let_die(agent, run_id, at, exit);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.0.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while it hangs; fails if it is away.
    pub(super) async fn reach(&self) -> RuntimeResult<()> {
        loop {
            let changed = self.0.condition_changed.notified();
            let condition = *self.condition();
            match condition {
                Condition::Answers => return Ok(()),
                Condition::Away => return Err(RuntimeError::Unavailable("the fake engine is away".into())),
                Condition::Hangs => changed.await,
            }
        }
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<(InstallationId, Resync)> {
        self.0.changes.subscribe()
    }

    /// Wakes the watchers of the instance's installation.
    pub(super) fn changed(&self, agent: AgentId) {
        let owner = self.lock().instances.get(&agent).map(|instance| instance.installation);
        if let Some(owner) = owner {
            self.told(owner, Resync::Instance(agent));
        }
    }

    /// Wakes an installation's watchers, unless the engine is away: then they hear of a gap later.
    pub(super) fn told(&self, owner: InstallationId, change: Resync) {
        let answers = *self.condition() == Condition::Answers;
        if answers {
            // Nobody watching is fine.
            let _ = self.0.changes.send((owner, change));
        }
    }

    /// Begins a run, or finds one that is up. Says whether it began now.
    pub(super) fn begin_run(&self, agent: AgentId) -> Result<(Run, bool), RuntimeError> {
        let (run, dies) = {
            let mut state = self.lock();
            let begun = state.begin_run(agent)?;
            if !begun.1 {
                return Ok(begun);
            }
            let dies = state.instances.get_mut(&agent).and_then(Instance::up).and_then(|up| up.dies.clone());
            (begun.0, dies)
        };
        if let Some((at, exit)) = dies {
            self.let_die(agent, run.run_id.clone(), at, exit);
        }
        Ok((run, true))
    }

    /// Starts the instance, at once or after a while.
    pub(super) fn start(&self, agent: AgentId) -> Result<InstanceState, RuntimeError> {
        let (time, wait) = {
            let mut state = self.lock();
            let now = state.now();
            let slow = state.slow_start.clone();
            let instance = state.instances.get_mut(&agent).ok_or(RuntimeError::NotFound)?;
            match (&instance.state, slow) {
                (InstancePhase::Starting(wait), _) => return Ok(InstanceState::Starting(wait.clone())),
                (InstancePhase::Created | InstancePhase::Down(_), Some((time, why))) => {
                    let wait = Wait { since: now, why, stuck: false };
                    instance.state = InstancePhase::Starting(wait.clone());
                    (time, wait)
                }
                (InstancePhase::Up(_), _) | (_, None) => {
                    drop(state);
                    let (run, begun) = self.begin_run(agent)?;
                    if begun {
                        self.changed(agent);
                    }
                    return Ok(InstanceState::Running(run));
                }
            }
        };
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let still = matches!(
                engine.lock().instances.get(&agent).map(|instance| &instance.state),
                Some(InstancePhase::Starting(_))
            );
            if still && engine.begin_run(agent).is_ok() {
                engine.changed(agent);
            }
        });
        self.changed(agent);
        Ok(InstanceState::Starting(wait))
    }

    fn let_die(&self, agent: AgentId, run_id: RunId, at: Timestamp, exit: Exit) {
        let engine = self.clone();
        let wait = self.lock().clock.until(at);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let same = engine.lock().run_of(agent).is_some_and(|run| run.run_id == run_id);
            if same {
                engine.end(agent, exit);
            }
        });
    }
}
