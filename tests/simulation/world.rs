//! One seed: lives of the service, one after the other, on one engine and one disk.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::task::yield_now;
use tokio::time::sleep;
use zeroone::control::{Agents, ControlPlane, DeliveryError, FeedEntry, NewUser};
use zeroone::domain::{AgentId, HostPort, InstallationId, Plan, Slug, Status, UserId};
use zeroone::runtime::{ContainerRuntime, InstanceKey, InstanceSpec};
use zeroone::store::{Crash, Snapshot, Store, StoreOptions};
use zeroone::testkit::Sabotage;
use zeroone::testkit::{
    self, Condition, Cut, FakeDisk, FakeRuntime, Fakes, Faults, GatewayBehavior, GatewayFault, Guard, Image, Inspector,
    Invariant, Odds, Sequence, Tap, Violation, message,
};
use zeroone::zeroclaw::client::WebhookAnswer;

/// What a seed led to.
pub struct History {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub lines: Vec<String>,
}

/// A message and what became of it, as far as the sender lived to see it.
pub struct Sent {
    pub agent: AgentId,
    pub text: String,
    pub outcome: Arc<Mutex<Option<Result<WebhookAnswer, DeliveryError>>>>,
}

/// Everything that outlives the service.
pub struct World {
    pub random: Sequence,
    pub fakes: Fakes,
    pub faults: Faults,
    pub inspector: Inspector,
    pub agents: Vec<AgentId>,
    pub users: Vec<UserId>,
    pub sent: Vec<Sent>,
    pub lines: Vec<String>,
    /// Messages, by their number, that were handed over to a gateway.
    handed_over: BTreeSet<usize>,
    violations: Vec<Violation>,
    sabotage: Option<Sabotage>,
}

/// The service in one of its lives.
pub struct Service {
    pub plane: ControlPlane,
    pub disk: FakeDisk,
    guard: Guard,
    tap: Tap,
    feed: Receiver<Arc<FeedEntry>>,
    /// The store after so many commits.
    seen: Option<(u64, Snapshot)>,
}

/// How a life ends.
enum End {
    InCommit(u64, Cut),
    AfterTurns(Duration, u64),
    Orderly,
}

/// How long everything may take to come to rest once all is well outside.
const REST_WITHIN: Duration = Duration::from_secs(900);
/// Two sweeps of the reconciler, and some more.
const SWEEPS: Duration = Duration::from_secs(70);
/// Another installation on the same engine, and its one agent.
const OTHERS: InstallationId = InstallationId::from_bytes([0x07; 16]);
const THEIRS: AgentId = AgentId::from_bytes([0x07; 16]);
/// How a bearer token begins, whichever gateway gave it.
const TOKENS: [&str; 2] = ["zc_", "zcl_live_"];

pub fn run(seed: u64, sabotage: Option<Sabotage>) -> History {
    let mut world = World {
        random: Sequence::new(seed),
        fakes: Fakes::new(seed),
        faults: Faults::new(!seed),
        inspector: TOKENS
            .iter()
            .fold(Inspector::new().with_secret(testkit::API_KEY), |inspector, prefix| inspector.with_secret(*prefix)),
        agents: Vec::new(),
        users: Vec::new(),
        sent: Vec::new(),
        lines: Vec::new(),
        handed_over: BTreeSet::new(),
        violations: Vec::new(),
        sabotage,
    };
    let mut disk = FakeDisk::new();
    let lives = 2 + world.random.below(3);
    for _ in 0..lives {
        world.live(&disk);
        let crash = match world.random.below(3) {
            0 => Crash::Process,
            1 => Crash::Power,
            _ => Crash::Torn { seed: world.random.next() },
        };
        disk = disk.after(crash);
        if !world.violations.is_empty() {
            break;
        }
    }
    if world.violations.is_empty() {
        world.come_to_rest(&disk);
    }
    History { seed, violations: world.violations, lines: world.lines }
}

impl World {
    /// A life full of trouble, until its end.
    fn live(&mut self, disk: &FakeDisk) {
        self.choose_odds();
        let end = self.choose_end();
        if let End::InCommit(n, cut) = end {
            disk.cut_in(n, cut);
        }
        let fakes = self.fakes.clone();
        testkit::run_until_killed(&fakes, async {
            let turns = async {
                match end {
                    End::AfterTurns(time, turns) => {
                        sleep(time).await;
                        for _ in 0..turns {
                            yield_now().await;
                        }
                        disk.cut_now();
                    }
                    End::InCommit(..) | End::Orderly => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = disk.cut_off() => {}
                () = turns => {}
                () = self.work(disk) => {}
            }
        });
        self.note("the service ended");
    }

    async fn work(&mut self, disk: &FakeDisk) {
        let Some(mut service) = self.start(disk).await else { return };
        if self.users.is_empty() && !self.make_users(&service).await {
            return;
        }
        self.look(&mut service).await;
        for _ in 0..10 + self.random.below(20) {
            self.act(&service).await;
            self.look(&mut service).await;
            self.pause().await;
            self.look(&mut service).await;
            if !self.violations.is_empty() {
                return;
            }
        }
        if self.random.chance(300) {
            service.plane.shutdown(Agents::Leave).await;
        }
    }

    async fn start(&mut self, disk: &FakeDisk) -> Option<Service> {
        self.inspector.new_life(self.fakes.engine().now());
        self.settle_others().await;
        let options = StoreOptions::default()
            .with_installation(self.fakes.installation())
            .with_now(self.fakes.engine().now())
            .with_check_integrity(true);
        let store = match Store::in_memory(disk.clone(), options) {
            Ok(store) => store,
            Err(error) => {
                self.failed(format!("the store does not open: {error}"));
                return None;
            }
        };
        let runtime = self.faults.runtime(self.fakes.runtime());
        let guard = Guard::new(runtime, store.clone(), disk.cut_token().clone());
        let tap = Tap::new(self.faults.gateway(self.fakes.gateway()));
        let started = ControlPlane::builder(store, testkit::vault(), Arc::new(guard.clone()))
            .gateway(Arc::new(tap.clone()))
            .clock(self.fakes.clock())
            .sabotage(self.sabotage)
            .start()
            .await;
        match started {
            Ok(plane) => {
                self.note("the service started");
                // It claims its lease first, for as long as the engine may take: only from here on it can be in time.
                self.inspector.new_life(self.fakes.engine().now());
                Some(Service { feed: plane.feed(), plane, disk: disk.clone(), guard, tap, seen: None })
            }
            // A store that fails while it starts ends the service: the next life tries again.
            Err(_) if disk.cut_token().is_cancelled() => None,
            Err(error) => {
                self.failed(format!("the service does not start: {error}"));
                None
            }
        }
    }

    /// Another installation has an instance here before ours begins, on a port that ours would take.
    async fn settle_others(&mut self) {
        let engine = self.fakes.engine();
        if engine.all_of(OTHERS).is_empty() {
            let runtime = FakeRuntime::new(engine.clone(), OTHERS);
            let key = InstanceKey { agent: THEIRS, slug: Slug::parse("theirs").expect("a slug") };
            let spec =
                InstanceSpec::new(key, vec!["gateway".into()], Plan::Free.limits()).with_port(HostPort::all().nth(1));
            runtime.ensure_created(&spec).await.expect("an engine without faults creates");
            runtime.start(&spec.key).await.expect("an engine without faults starts");
        }
    }

    async fn make_users(&mut self, service: &Service) -> bool {
        for (name, plan) in [("free", Plan::Free), ("pro", Plan::Pro)] {
            let email = format!("{name}-{}@example.com", self.random.next());
            let Ok(user) = service.plane.create_user(NewUser::new(email, plan)).await else { return false };
            self.users.push(user.id);
        }
        true
    }

    /// Holds everything against what must hold.
    async fn look(&mut self, service: &mut Service) {
        while let Ok(fed) = service.feed.try_recv() {
            let entry = &fed.entry;
            self.lines.push(format!(
                "{} {} #{} {} -> {}: {} (attempt {})",
                entry.time, fed.agent, entry.seq, entry.from, entry.to, entry.cause, entry.attempt
            ));
            self.inspector.fed(&fed, &self.fakes.engine().tally(fed.agent));
        }
        let commits = service.disk.commits();
        if service.seen.as_ref().is_none_or(|(seen, _)| *seen != commits) {
            service.seen = service.plane.store().load().await.ok().map(|snapshot| (commits, snapshot));
        }
        if service.disk.cut_token().is_cancelled() {
            // What a service that is cut off shows is not told to anybody.
            service.seen = None;
        }
        if let Some((_, snapshot)) = &service.seen {
            let engine = self.fakes.engine();
            self.inspector.step(snapshot, &engine.all_of(self.fakes.installation()));
            self.inspector.others(&engine.all_of(OTHERS));
            self.inspector.data(&engine.volumes());
            self.inspector.shown(&service.plane.agents(None, None, usize::MAX, &[]));
            for user in &self.users {
                self.inspector.listed(*user, &service.plane.agents(Some(*user), None, usize::MAX, &[]));
            }
        }
        self.follow_messages(service);
        self.violations.extend(service.guard.violations());
        self.violations.extend(self.inspector.violations());
    }

    /// Holds the order in which messages are handed over against the order in which they came.
    fn follow_messages(&mut self, service: &Service) {
        for body in service.tap.noted() {
            let number = self.sent.iter().position(|sent| message(&sent.text).body == body);
            if let Some(number) = number.filter(|number| self.handed_over.insert(*number)) {
                self.inspector.sent_on(self.sent[number].agent, number as u64);
            }
        }
    }

    /// The last life: all is well outside, so that all must become well inside.
    fn come_to_rest(&mut self, disk: &FakeDisk) {
        self.faults.set_odds(Odds::default());
        let engine = self.fakes.engine().clone();
        engine.set_condition(Condition::Answers);
        engine.set_image(Image::Present);
        engine.set_behavior(GatewayBehavior::default());
        engine.set_gateway_fault(GatewayFault::Well);
        for agent in &self.agents {
            engine.set_gateway_fault_of(*agent, None);
            engine.set_dying(*agent, None);
        }
        let fakes = self.fakes.clone();
        testkit::run_until_killed(&fakes, async {
            let Some(mut service) = self.start(disk).await else { return };
            sleep(SWEEPS).await;
            self.look(&mut service).await;
            let deadline = tokio::time::Instant::now() + REST_WITHIN;
            while !at_rest(&service.plane) && tokio::time::Instant::now() < deadline {
                sleep(Duration::from_secs(5)).await;
                self.look(&mut service).await;
            }
            self.judge(&service).await;
        });
        if self.violations.is_empty() {
            self.restart_at_rest(&disk.after(Crash::Process));
        }
    }

    /// One more life, for which there is nothing to do.
    fn restart_at_rest(&mut self, disk: &FakeDisk) {
        let fakes = self.fakes.clone();
        testkit::run_until_killed(&fakes, async {
            let Some(mut service) = self.start(disk).await else { return };
            let running = service.plane.agents(None, None, usize::MAX, &[Status::Running]).agents;
            let before: Vec<_> =
                running.iter().map(|view| (view.record.id, fakes.engine().tally(view.record.id))).collect();
            sleep(SWEEPS).await;
            for (agent, before) in before {
                self.inspector.service_restarted(agent, &before, &fakes.engine().tally(agent));
            }
            self.look(&mut service).await;
        });
    }

    async fn judge(&mut self, service: &Service) {
        let running: Vec<_> = service.plane.agents(None, None, usize::MAX, &[Status::Running]).agents;
        for view in running {
            let agent = view.record.id;
            let Some(handle) = service.plane.agent(agent) else { continue };
            let outcome = handle.deliver(message(&format!("last words of {agent}"))).await;
            self.inspector.answered(agent, &outcome);
        }
        match service.plane.store().load().await {
            Ok(snapshot) => {
                let engine = self.fakes.engine();
                let ours = engine.all_of(self.fakes.installation());
                self.inspector.step(&snapshot, &ours);
                self.inspector.at_rest(&snapshot, &ours);
                for agent in engine.volumes() {
                    if agent != THEIRS && !snapshot.agents.iter().any(|stored| stored.record.id == agent) {
                        let violation = Violation::new(Invariant::NoLeftovers, agent, "data without a record");
                        self.violations.push(violation);
                    }
                }
                for user in &self.users {
                    match service.plane.used(*user).await {
                        Ok(used) => self.inspector.counted(*user, used, &snapshot),
                        Err(error) => self.lines.push(format!("the registry does not count: {error}")),
                    }
                }
            }
            Err(error) => self.failed(format!("the store cannot be read: {error}")),
        }
        for sent in &self.sent {
            let body = message(&sent.text).body;
            let read = self.fakes.engine().tally(sent.agent).messages;
            let read = read.iter().filter(|delivery| delivery.body == body).count();
            let outcome = sent.outcome.lock().expect("no panic").clone();
            self.inspector.message(sent.agent, &sent.text, read, outcome.as_ref());
        }
        for agent in &self.agents {
            self.inspector.read(*agent, &self.fakes.engine().tally(*agent).messages);
        }
        self.inspector.told(None, &String::from_utf8_lossy(&service.disk.memory().bytes()));
        self.violations.extend(self.inspector.violations());
    }

    fn choose_odds(&mut self) {
        let mut some = |most: u64| if self.random.chance(500) { self.random.below(most) } else { 0 };
        let odds = Odds::default()
            .with_fail(some(80))
            .with_delay(some(200))
            .with_hang(some(20))
            .with_repeat(some(80))
            .with_lose_answer(some(60))
            .with_lose_event(some(500))
            .with_repeat_event(some(300))
            .with_longest_delay(Duration::from_millis(1 + some(10_000)));
        self.faults.set_odds(odds);
    }

    fn choose_end(&mut self) -> End {
        match self.random.below(10) {
            0..=2 => End::InCommit(1 + self.random.below(60), Cut::Before),
            3..=5 => End::InCommit(1 + self.random.below(60), Cut::After),
            6..=8 => End::AfterTurns(Duration::from_millis(self.random.below(60_000)), self.random.below(300)),
            _ => End::Orderly,
        }
    }

    /// Lets time pass: moments, seconds, or most of a minute.
    async fn pause(&mut self) {
        let most = *self.random.pick(&[3, 20, 200, 3_000, 40_000]).expect("some");
        sleep(Duration::from_millis(self.random.below(most))).await;
    }

    pub fn note(&mut self, what: &str) {
        self.lines.push(format!("{} {what}", self.fakes.engine().now()));
    }

    fn failed(&mut self, detail: String) {
        self.violations.push(Violation::new(Invariant::CreatesAreKept, None, detail));
    }
}

fn at_rest(plane: &ControlPlane) -> bool {
    let transient = [Status::Pending, Status::Starting, Status::Stopping];
    plane.agents(None, None, 1, &transient).agents.is_empty()
}
