//! Faults of calls and events, by script or by chance, in front of any runtime and any gateway.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, pending};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use super::random::Sequence;
use crate::domain::{Origin, Secret, Software};
use crate::runtime::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeaseRequest, LogLine, LogQuery, ObservedInstance, Progress, Resync, RuntimeCall, RuntimeError, RuntimeResult,
    StagedFile, Usage,
};
use crate::zeroclaw::client::{Gateway, GatewayError, HealthReport, Pairing, WebhookAnswer, WebhookCall};
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::spending::Spent;
use crate::zeroclaw::usability::SelfReport;

/// A call that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`ContainerRuntime::ping`].
    Ping,
    /// [`ContainerRuntime::prepare`].
    Prepare,
    /// [`ContainerRuntime::ensure_created`].
    Create,
    /// [`ContainerRuntime::stage`].
    Stage,
    /// [`ContainerRuntime::read_data`].
    ReadData,
    /// [`ContainerRuntime::write_data`].
    WriteData,
    /// [`ContainerRuntime::start`].
    Start,
    /// [`ContainerRuntime::stop`].
    Stop,
    /// [`ContainerRuntime::kill`].
    Kill,
    /// [`ContainerRuntime::remove`].
    Remove,
    /// [`ContainerRuntime::observe`] and [`ContainerRuntime::origin`].
    Observe,
    /// [`ContainerRuntime::list_owned`].
    List,
    /// [`ContainerRuntime::logs`].
    Logs,
    /// [`ContainerRuntime::usage`].
    Usage,
    /// [`Gateway::health`].
    Health,
    /// [`Gateway::accepts_token`].
    Token,
    /// [`Gateway::pair`].
    Pair,
    /// [`Gateway::memory`].
    Memory,
    /// [`Gateway::remember`].
    Remember,
    /// [`Gateway::webhook`].
    Webhook,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails without an effect: the engine is away, the connection refused.
    Fail,
    /// It is under way for this long before it has its effect.
    DelayCall(Duration),
    /// Its answer is under way for this long.
    DelayAnswer(Duration),
    /// It never has an effect and never comes back.
    Hang,
    /// It has its effect twice. A pairing or a message is never repeated by a network: those go well.
    Repeat,
    /// It has its effect, and its answer is lost.
    LoseAnswer,
    /// It panics, as foreign code may.
    Panic,
}

/// How often what goes wrong, in permille of calls and events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Odds {
    /// [`Fault::Fail`].
    pub fail: u64,
    /// [`Fault::DelayCall`] and [`Fault::DelayAnswer`], half of each.
    pub delay: u64,
    /// [`Fault::Hang`].
    pub hang: u64,
    /// [`Fault::Repeat`].
    pub repeat: u64,
    /// [`Fault::LoseAnswer`].
    pub lose_answer: u64,
    /// Wake-ups that do not arrive.
    pub lose_event: u64,
    /// Wake-ups that arrive twice.
    pub repeat_event: u64,
    /// Delays are up to this long.
    pub longest_delay: Duration,
}

impl Odds {
    setters! {
        with_fail(fail: u64);
        with_delay(delay: u64);
        with_hang(hang: u64);
        with_repeat(repeat: u64);
        with_lose_answer(lose_answer: u64);
        with_lose_event(lose_event: u64);
        with_repeat_event(repeat_event: u64);
        with_longest_delay(longest_delay: Duration);
    }
}

/// Faults from a seed. Clones share it.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

struct State {
    random: Sequence,
    odds: Odds,
    script: VecDeque<(Call, Fault)>,
    injected: u64,
    calls: HashMap<Call, u64>,
}

impl Faults {
    /// No faults yet: [`Faults::set_odds`] and [`Faults::next`] bring them.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Sequence::new(seed),
            odds: Odds::default(),
            script: VecDeque::new(),
            injected: 0,
            calls: HashMap::new(),
        })))
    }

    /// How often faults come by chance from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.lock().odds = odds;
    }

    /// The next such call has this fault. Several are met in their order.
    pub fn next(&self, call: Call, fault: Fault) {
        self.lock().script.push_back((call, fault));
    }

    /// Faults that were met so far.
    pub fn injected(&self) -> u64 {
        self.lock().injected
    }

    /// Calls that were made so far, with a fault or without.
    pub fn calls(&self, call: Call) -> u64 {
        self.lock().calls.get(&call).copied().unwrap_or_default()
    }

    /// `runtime` with these faults.
    pub fn runtime(&self, runtime: Arc<dyn ContainerRuntime>) -> Arc<FaultyRuntime> {
        Arc::new(FaultyRuntime { inner: runtime, faults: self.clone() })
    }

    /// `gateway` with these faults.
    pub fn gateway(&self, gateway: Arc<dyn Gateway>) -> Arc<FaultyGateway> {
        Arc::new(FaultyGateway { inner: gateway, faults: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, call: Call) -> Option<Fault> {
        let mut state = self.lock();
        *state.calls.entry(call).or_default() += 1;
        let scripted = state.script.iter().position(|(wanted, _)| *wanted == call);
        let fault = match scripted.and_then(|index| state.script.remove(index)) {
            Some((_, fault)) => Some(fault),
            None => state.by_chance(),
        };
        state.injected += u64::from(fault.is_some());
        fault
    }

    /// How often an event arrives: not at all, once, twice.
    fn events(&self) -> usize {
        let mut state = self.lock();
        let odds = state.odds;
        if state.random.chance(odds.lose_event) {
            0
        } else if state.random.chance(odds.repeat_event) {
            2
        } else {
            1
        }
    }
}

impl State {
    fn by_chance(&mut self) -> Option<Fault> {
        let odds = self.odds;
        let mut rest = self.random.below(1000);
        let mut is = |permille: u64| {
            let hit = rest < permille;
            rest = rest.saturating_sub(permille);
            if hit {
                rest = u64::MAX;
            }
            hit
        };
        let kinds = [is(odds.fail), is(odds.hang), is(odds.repeat), is(odds.lose_answer), is(odds.delay)];
        let longest = u64::try_from(odds.longest_delay.as_millis()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(self.random.below(longest));
        let of_call = self.random.chance(500);
        match kinds {
            [true, ..] => Some(Fault::Fail),
            [_, true, ..] => Some(Fault::Hang),
            [_, _, true, ..] => Some(Fault::Repeat),
            [_, _, _, true, _] => Some(Fault::LoseAnswer),
            [.., true] if of_call => Some(Fault::DelayCall(delay)),
            [.., true] => Some(Fault::DelayAnswer(delay)),
            [.., false] => None,
        }
    }
}

/// A runtime with faults.
pub struct FaultyRuntime {
    inner: Arc<dyn ContainerRuntime>,
    faults: Faults,
}

impl FaultyRuntime {
    async fn through<'a, T>(&self, call: Call, work: impl Fn() -> BoxFuture<'a, RuntimeResult<T>>) -> RuntimeResult<T> {
        match self.faults.draw(call) {
            None => work().await,
            Some(Fault::Fail) => Err(RuntimeError::Unavailable("a fault".into())),
            Some(Fault::Hang) => pending().await,
            Some(Fault::Panic) => panic!("a fault"),
            Some(Fault::DelayCall(delay)) => {
                sleep(delay).await;
                work().await
            }
            Some(Fault::DelayAnswer(delay)) => {
                let answer = work().await;
                sleep(delay).await;
                answer
            }
            Some(Fault::Repeat) => {
                // The first answer is the one that goes astray.
                let _ = work().await;
                work().await
            }
            Some(Fault::LoseAnswer) => {
                let _ = work().await;
                Err(RuntimeError::UnknownOutcome("the answer was lost".into()))
            }
        }
    }
}

impl ContainerRuntime for FaultyRuntime {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.through(Call::Ping, || self.inner.ping()).boxed()
    }

    fn prepare<'a>(&'a self, key: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::Prepare, move || self.inner.prepare(key, Arc::clone(&progress))).boxed()
    }

    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.inner.attach()
    }

    fn longest(&self, call: RuntimeCall) -> Duration {
        self.inner.longest(call)
    }

    fn software<'a>(
        &'a self,
        choice: ImageChoice<'a>,
        progress: Progress,
    ) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        self.inner.software(choice, progress)
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        self.through(Call::Create, || self.inner.ensure_created(spec)).boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::Stage, || self.inner.stage(key, files)).boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.through(Call::ReadData, move || self.inner.read_data(key, folder)).boxed()
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::WriteData, move || self.inner.write_data(key, files)).boxed()
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        self.through(Call::Start, || self.inner.start(key)).boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::Stop, move || self.inner.stop(key, grace)).boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::Kill, || self.inner.kill(key)).boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        self.through(Call::Remove, move || self.inner.remove(key, data)).boxed()
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.through(Call::Observe, || self.inner.observe(key)).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        self.through(Call::List, || self.inner.list_owned()).boxed()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        self.through(Call::Observe, || self.inner.origin(key)).boxed()
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        self.inner.lease(request)
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        let faults = self.faults.clone();
        let repeated = move |change: Resync| stream::iter(vec![change; faults.events()]);
        self.inner.watch().flat_map(repeated).boxed()
    }

    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        self.through(Call::Logs, move || self.inner.logs(key, query.clone())).boxed()
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        self.through(Call::Usage, || self.inner.usage(key)).boxed()
    }
}

/// A gateway with faults.
pub struct FaultyGateway {
    inner: Arc<dyn Gateway>,
    faults: Faults,
}

impl FaultyGateway {
    /// A call with its fault, within the caller's limit.
    async fn through<'a, T>(
        &self,
        call: Call,
        limit: Duration,
        work: impl Fn() -> BoxFuture<'a, Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let fault = self.faults.draw(call);
        let faulty = async {
            match fault {
                None | Some(Fault::Repeat) => work().await,
                Some(Fault::Fail) => Err(GatewayError::NotSent("a fault".into())),
                Some(Fault::Hang) => pending().await,
                Some(Fault::Panic) => panic!("a fault"),
                Some(Fault::DelayCall(delay)) => {
                    sleep(delay).await;
                    work().await
                }
                Some(Fault::DelayAnswer(delay)) => {
                    let answer = work().await;
                    sleep(delay).await;
                    answer
                }
                Some(Fault::LoseAnswer) => match work().await {
                    Err(GatewayError::NotSent(why)) => Err(GatewayError::NotSent(why)),
                    Ok(_) | Err(_) => Err(GatewayError::Unknown("the answer was lost".into())),
                },
            }
        };
        timeout(limit, faulty).await.unwrap_or(Err(GatewayError::TimedOut))
    }
}

impl Gateway for FaultyGateway {
    fn health(&self, at: SocketAddr, within: Duration) -> BoxFuture<'_, Result<HealthReport, GatewayError>> {
        self.through(Call::Health, within, move || self.inner.health(at, within)).boxed()
    }

    fn accepts_token<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<bool, GatewayError>> {
        self.through(Call::Token, within, move || self.inner.accepts_token(at, token, within)).boxed()
    }

    fn self_report<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<SelfReport, GatewayError>> {
        self.inner.self_report(at, token, within)
    }

    fn spent<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Spent>, GatewayError>> {
        self.inner.spent(at, token, within)
    }

    fn pair<'a>(
        &'a self,
        at: SocketAddr,
        code: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Pairing, GatewayError>> {
        self.through(Call::Pair, within, move || self.inner.pair(at, code, within)).boxed()
    }

    fn memory<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<MemoryEntry>, GatewayError>> {
        self.through(Call::Memory, within, move || self.inner.memory(at, token, within)).boxed()
    }

    fn remember<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        entry: &'a MemoryEntry,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.through(Call::Remember, within, move || self.inner.remember(at, token, entry, within)).boxed()
    }

    fn webhook<'a>(
        &'a self,
        at: SocketAddr,
        token: &'a Secret<String>,
        call: WebhookCall,
        within: Duration,
    ) -> BoxFuture<'a, Result<WebhookAnswer, GatewayError>> {
        self.through(Call::Webhook, within, move || self.inner.webhook(at, token, call.clone(), within)).boxed()
    }
}
