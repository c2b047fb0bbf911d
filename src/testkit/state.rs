//! What the engine in memory knows: instances, their data and logs, and what was done to them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Notify;

use super::behavior::{GatewayBehavior, GatewayFault};
use super::engine::{Image, Pace};
use super::images::Images;
use super::process::Process;
use super::random::Sequence;
use crate::actor::Clock;
use crate::domain::{AgentId, Exit, HostPort, ImageRef, InstallationId, Origin, RunId, SessionName, Timestamp, later};
use crate::runtime::{
    InstanceKey, InstanceState, LeaseRecord, LogCursor, LogLine, LogStream, ObservedInstance, Run, RuntimeError, Wait,
};

/// Where gateways listen that have an address of their own.
const GATEWAY_PORT: u16 = 42_617;
/// Lines kept of each instance, the newest.
const LOG_LINES: usize = 2048;

impl State {
    pub(super) fn new(seed: u64, clock: Clock) -> Self {
        Self {
            random: Sequence::new(seed),
            stamped: clock.now(),
            stands_at: None,
            clock,
            pace: Pace { half_call: Duration::from_millis(1) },
            image: Image::Present,
            images: Images::default(),
            strangers: BTreeSet::new(),
            instances: BTreeMap::new(),
            on_port: BTreeMap::new(),
            volumes: BTreeMap::new(),
            leases: BTreeMap::new(),
            leases_refused: false,
            attached: 0,
            behavior: Arc::new(GatewayBehavior::default()),
            habits_of: BTreeMap::new(),
            gateway_fault: GatewayFault::Well,
            gateway_faults: BTreeMap::new(),
            dying: BTreeMap::new(),
            tallies: BTreeMap::new(),
            engine_ids: 0,
            host_ports: true,
            slow_start: None,
        }
    }
}

pub(super) struct State {
    pub(super) random: Sequence,
    pub(super) clock: Clock,
    /// Set while no clock runs.
    pub(super) stands_at: Option<Timestamp>,
    pub(super) stamped: Timestamp,
    pub(super) pace: Pace,
    pub(super) image: Image,
    pub(super) images: Images,
    pub(super) strangers: BTreeSet<HostPort>,
    pub(super) instances: BTreeMap<AgentId, Instance>,
    /// Instances by their port, running or not.
    pub(super) on_port: BTreeMap<HostPort, BTreeSet<AgentId>>,
    /// Data by instance; it may outlive the instance.
    pub(super) volumes: BTreeMap<AgentId, Volume>,
    pub(super) leases: BTreeMap<InstallationId, LeaseRecord>,
    pub(super) leases_refused: bool,
    /// How often a control plane asked to be let into the instances' networks.
    pub(super) attached: u64,
    pub(super) behavior: Arc<GatewayBehavior>,
    pub(super) habits_of: BTreeMap<AgentId, Arc<GatewayBehavior>>,
    pub(super) gateway_fault: GatewayFault,
    pub(super) gateway_faults: BTreeMap<AgentId, GatewayFault>,
    pub(super) dying: BTreeMap<AgentId, (Duration, Exit)>,
    pub(super) tallies: BTreeMap<AgentId, Tally>,
    pub(super) engine_ids: u64,
    pub(super) host_ports: bool,
    /// How long the engine is busy with each start, and with what.
    pub(super) slow_start: Option<(Duration, Arc<str>)>,
}

/// Data of an instance.
#[derive(Default)]
pub(super) struct Volume {
    pub(super) installation: Option<InstallationId>,
    pub(super) files: BTreeMap<Cow<'static, str>, Vec<u8>>,
}

pub(super) struct Instance {
    pub(super) installation: InstallationId,
    pub(super) key: InstanceKey,
    pub(super) engine_id: String,
    pub(super) spec_hash: String,
    pub(super) image: Option<ImageRef>,
    pub(super) command: Vec<String>,
    pub(super) port: Option<HostPort>,
    pub(super) memory_mb: u32,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) state: InstancePhase,
    /// How its last run ended, where the engine's own policy replaced it.
    pub(super) died: Option<Exit>,
    pub(super) boots: u64,
    pub(super) lines: VecDeque<Line>,
    /// Number of the first line that is kept.
    pub(super) first_line: u64,
    pub(super) sampled: bool,
    /// Something was printed, or a run ended.
    pub(super) stirred: Arc<Notify>,
}

pub(super) enum InstancePhase {
    Created,
    Starting(Wait),
    Up(Box<Up>),
    Down(Exit),
}

pub(super) struct Up {
    pub(super) run: Run,
    pub(super) paused: bool,
    /// The machine that it runs on is lost to the engine.
    pub(super) unreachable: bool,
    pub(super) process: Process,
    pub(super) behavior: Arc<GatewayBehavior>,
    /// When and how it will end by itself.
    pub(super) dies: Option<(Timestamp, Exit)>,
}

pub(super) struct Line {
    pub(super) run_id: RunId,
    pub(super) line: LogLine,
}

/// What was done to one instance, for tests to judge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Instances made.
    pub creates: u64,
    /// When runs began, by whomever.
    pub starts: Vec<Timestamp>,
    /// Calls of `/pair`.
    pub pairings: u64,
    /// Those among them that failed.
    pub failed_pairings: u64,
    /// Times that a lockout began.
    pub lockouts: u64,
    /// When the gateway refused a token, of a message or of a check.
    pub refusals: Vec<Timestamp>,
    /// Messages that the gateway read, in order.
    pub messages: Vec<Delivery>,
}

/// A message that a gateway read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// When it was read.
    pub at: Timestamp,
    /// The run that read it.
    pub run_id: RunId,
    /// As it was sent.
    pub body: bytes::Bytes,
    /// The conversation that it was said to belong to.
    pub session: Option<SessionName>,
}

impl Delivery {
    /// A message of no conversation.
    pub fn new(at: Timestamp, run_id: RunId, body: impl Into<bytes::Bytes>) -> Self {
        Self { at, run_id, body: body.into(), session: None }
    }

    setters! {
        with_session(session: impl Into<Option<SessionName>> => session.into());
    }
}

impl State {
    pub(super) fn now(&self) -> Timestamp {
        self.stands_at.unwrap_or_else(|| self.clock.now())
    }

    pub(super) fn until(&self, at: Timestamp) -> Duration {
        self.clock.until(at)
    }

    /// The time, later than every time that was given before.
    pub(super) fn stamp(&mut self) -> Timestamp {
        let next = later(self.stamped, Duration::from_nanos(1));
        self.stamped = self.now().max(next);
        self.stamped
    }

    /// Everything that is to come keeps its distance from now; what was is not put off.
    pub(super) fn put_clock_forward(&mut self, by: SignedDuration) {
        let now = self.now();
        self.clock.put_forward(i64::try_from(by.as_millis()).unwrap_or_default());
        let then = self.now();
        self.stamped = then;
        let moved = |at: &mut Timestamp| {
            *at = if *at > now { at.checked_add(by).unwrap_or(*at) } else { (*at).min(then) };
        };
        for instance in self.instances.values_mut() {
            instance.lines.iter_mut().for_each(|line| moved(&mut line.line.time));
            let InstancePhase::Up(up) = &mut instance.state else { continue };
            if let Some((at, _)) = &mut up.dies {
                moved(at);
            }
            if let Process::Gateway(gateway) = &mut up.process {
                moved(&mut gateway.listens_from);
                if let Some(until) = &mut gateway.locked_until {
                    moved(until);
                }
            }
        }
    }

    pub(super) fn gateway_fault(&self, agent: AgentId) -> GatewayFault {
        let own = self.gateway_faults.get(&agent).copied();
        own.or_else(|| self.image_fault(agent)).unwrap_or(self.gateway_fault)
    }

    pub(super) fn tally(&mut self, agent: AgentId) -> &mut Tally {
        self.tallies.entry(agent).or_default()
    }

    pub(super) fn engine_id(&mut self) -> String {
        self.engine_ids += 1;
        format!("fake-{:04x}", self.engine_ids)
    }

    pub(super) fn run_of(&mut self, agent: AgentId) -> Option<&Run> {
        self.instances.get_mut(&agent)?.up().map(|up| &up.run)
    }

    pub(super) fn put(&mut self, instance: Instance) {
        let agent = instance.key.agent;
        if let Some(port) = instance.port {
            self.on_port.entry(port).or_default().insert(agent);
        }
        self.instances.insert(agent, instance);
    }

    pub(super) fn take(&mut self, agent: AgentId) -> Option<Instance> {
        let instance = self.instances.remove(&agent)?;
        if let Some(there) = instance.port.and_then(|port| self.on_port.get_mut(&port)) {
            there.remove(&agent);
        }
        Some(instance)
    }

    /// One that nobody had before, where none are taken from the host.
    fn address(&mut self) -> SocketAddr {
        self.engine_ids += 1;
        let nth = u32::try_from(self.engine_ids).unwrap_or(u32::MAX >> 8);
        SocketAddr::from((Ipv4Addr::from_bits((10 << 24) + nth), GATEWAY_PORT))
    }

    /// Who listens at this address.
    pub(super) fn listener_at(&self, at: SocketAddr) -> Option<AgentId> {
        if self.host_ports {
            return self.listener(at.port());
        }
        let is_it = |instance: &&Instance| matches!(&instance.state, InstancePhase::Up(up) if up.run.endpoint == at);
        self.instances.values().find(is_it).map(|instance| instance.key.agent)
    }

    /// Who listens on this port.
    fn listener(&self, port: u16) -> Option<AgentId> {
        let there = self.on_port.get(&HostPort::try_from(port).ok()?)?;
        let is_up = |agent: &AgentId| {
            self.instances.get(agent).is_some_and(|instance| matches!(instance.state, InstancePhase::Up(_)))
        };
        there.iter().copied().find(is_up)
    }

    pub(super) fn begin_run(&mut self, agent: AgentId) -> Result<(Run, bool), RuntimeError> {
        let instance = self.instances.get_mut(&agent).ok_or(RuntimeError::NotFound)?;
        if let InstancePhase::Up(up) = &instance.state {
            return Ok((up.run.clone(), false));
        }
        let port = instance.port;
        let endpoint = match port {
            Some(port) if self.strangers.contains(&port) || self.listener(port.get()).is_some() => {
                return Err(RuntimeError::PortTaken(port));
            }
            Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.get())),
            None => self.address(),
        };
        let started_at = self.stamp();
        let exits = self.image_exits(agent);
        let behavior = self.image_of(agent).map(|image| Arc::new(image.behavior.clone()));
        let behavior = behavior.unwrap_or_else(|| Arc::clone(self.habits_of.get(&agent).unwrap_or(&self.behavior)));
        self.tally(agent).starts.push(started_at);
        let dies = self.dying.get(&agent).map(|(after, exit)| (later(started_at, *after), exit.clone()));
        let files = self.volumes.get(&agent).map(|volume| &volume.files);
        let config = files.and_then(|files| files.get(crate::zeroclaw::workspace::CONFIG_PATH)).map(Vec::as_slice);
        let mut random = self.random.fork();
        let instance = self.instances.get_mut(&agent).ok_or(RuntimeError::NotFound)?;
        instance.boots += 1;
        let run_id = RunId(format!("{}/{}", instance.engine_id, instance.boots).into());
        let run = Run { run_id, started_at, endpoint };
        let begun = Process::begin(&instance.command, config, started_at, &behavior, &mut random);
        for (after, stream, text) in begun.prints {
            instance.print(run.run_id.clone(), later(started_at, after), stream, text);
        }
        instance.died = None;
        let process = exits.map_or(begun.process, |code| Err(Exit::with_code(code)));
        instance.state = match process {
            Ok(process) => InstancePhase::Up(Box::new(Up {
                run: run.clone(),
                paused: false,
                unreachable: false,
                process,
                behavior,
                dies,
            })),
            Err(exit) => InstancePhase::Down(exit),
        };
        instance.stirred.notify_waiters();
        Ok((run, true))
    }
}

impl Instance {
    pub(super) fn observed(&self) -> ObservedInstance {
        let state = match &self.state {
            InstancePhase::Created => InstanceState::Created,
            InstancePhase::Starting(wait) => InstanceState::Starting(wait.clone()),
            InstancePhase::Up(up) if up.unreachable => InstanceState::Unreachable(up.run.clone()),
            InstancePhase::Up(up) if up.paused => InstanceState::Paused(up.run.clone()),
            InstancePhase::Up(up) => InstanceState::Running(up.run.clone()),
            InstancePhase::Down(exit) => InstanceState::Exited(exit.clone()),
        };
        ObservedInstance {
            key: self.key.clone(),
            state,
            engine_id: self.engine_id.clone(),
            spec_hash: self.spec_hash.clone(),
            died: self.died.clone(),
            created_now: false,
            data_created_now: false,
        }
    }

    pub(super) fn up(&mut self) -> Option<&mut Up> {
        match &mut self.state {
            InstancePhase::Up(up) => Some(up),
            InstancePhase::Created | InstancePhase::Starting(_) | InstancePhase::Down(_) => None,
        }
    }

    /// Ends the run, and what it would have printed later. False where nothing runs.
    pub(super) fn end(&mut self, exit: Exit, now: Timestamp) -> bool {
        if matches!(self.state, InstancePhase::Starting(_)) {
            self.state = InstancePhase::Created;
            return true;
        }
        let was_up = matches!(self.state, InstancePhase::Up(_));
        if was_up {
            self.state = InstancePhase::Down(exit);
            self.lines.retain(|line| line.line.time <= now);
            self.stirred.notify_waiters();
        }
        was_up
    }

    pub(super) fn print(&mut self, run_id: RunId, time: Timestamp, stream: LogStream, text: String) {
        if self.lines.len() == LOG_LINES {
            self.lines.pop_front();
            self.first_line += 1;
        }
        let cursor = LogCursor((self.first_line + self.lines.len() as u64).to_string().into());
        self.lines.push_back(Line { run_id, line: LogLine { time, cursor, stream, text } });
    }
}
