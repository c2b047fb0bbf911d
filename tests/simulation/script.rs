//! What can happen in a moment of a life.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use zeroone::control::{ActorCrash, AgentPatch, CommandError, CommandOutcome, CreateError, NewAgent};
use zeroone::domain::{AgentId, Exit, HostPort, Plan, Secret};
use zeroone::store::{CommitFault, Conflict, StoreError};
use zeroone::testkit::{Call, Condition, Fault, GatewayBehavior, GatewayFault, Image, Wish, message, new_agent};

use super::world::{Sent, Service, World};

/// What a user can ask of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Start,
    Stop,
    Restart,
    Update,
    Delete,
}

impl World {
    pub async fn act(&mut self, service: &Service) {
        match self.random.below(100) {
            0..=12 => self.create(service).await,
            13 | 14 => self.change_plan(service).await,
            15..=39 => self.command(service).await,
            40..=57 => self.send(service),
            58..=64 => self.refuse(service),
            65..=86 => self.meddle(),
            87..=92 => self.trouble_engine(),
            93 => self.put_clock(),
            94..=96 => self.crash_actors(service),
            _ => self.trouble_disk(service),
        }
    }

    /// Some agents at once: the quota's edge is where they meet.
    async fn create(&mut self, service: &Service) {
        let Some(user) = self.random.pick(&self.users).copied() else { return };
        let wanted: Vec<NewAgent> = (0..1 + self.random.below(4))
            .map(|_| {
                let mut id = [0; 16];
                let number = self.agents.len() as u64 + 1;
                id[..8].copy_from_slice(&number.to_be_bytes());
                id[8..].copy_from_slice(&self.random.next().to_be_bytes());
                let id = AgentId::from_bytes(id);
                self.agents.push(id);
                new_agent(&format!("Agent {number}")).with_id(id)
            })
            .collect();
        let creates = wanted.iter().map(|new| async {
            let created = service.plane.create_agent(user, new.clone()).await;
            (new.id, created)
        });
        let again = wanted[0].clone();
        let mut outcomes = join_all(creates).await;
        if self.random.chance(300) {
            // As somebody does who did not get the answer.
            outcomes.push((again.id, service.plane.create_agent(user, again).await));
        }
        for (id, created) in outcomes {
            let is_there = matches!(created, Ok(_) | Err(CreateError::Store(StoreError::Rejected(Conflict::Exists))));
            if is_there && !service.disk.cut_token().is_cancelled() {
                self.inspector.created(id);
                self.note(&format!("{id} was created"));
            }
        }
    }

    async fn change_plan(&mut self, service: &Service) {
        let users: Vec<_> = self.users.iter().copied().enumerate().collect();
        let Some((number, user)) = self.random.pick(&users).copied() else { return };
        let plan = *self.random.pick(&[Plan::Free, Plan::Pro]).expect("some");
        // Whether it is known to be stored or not: the store says which plan there is.
        let outcome = service.plane.set_plan(user, plan, None).await.is_ok();
        // Their ids are made by the service, and other ones each time.
        self.note(&format!("user {number} is to have the plan {}: {outcome}", plan.as_str()));
    }

    async fn command(&mut self, service: &Service) {
        let Some(agent) = self.some_agent() else { return };
        let asks = [Ask::Start, Ask::Start, Ask::Stop, Ask::Stop, Ask::Restart, Ask::Update, Ask::Delete];
        let both = self.random.chance(200);
        let first = *self.random.pick(&asks).expect("some");
        let second = self.random.pick(&asks).copied().filter(|_| both);
        self.note(&format!("{agent} is asked to {first:?} {second:?}"));
        // From here on nobody knows, until the answer says so.
        self.inspector.wished(agent, Wish::Open, 0);
        if [Some(first), second].contains(&Some(Ask::Delete)) {
            self.inspector.may_go(agent);
        }
        let outcomes = join_all([Some(first), second].into_iter().flatten().map(|ask| obey(service, agent, ask))).await;
        if service.disk.cut_token().is_cancelled() {
            return;
        }
        let revision = service.plane.agent(agent).and_then(|handle| handle.view());
        let revision = revision.map_or(u64::MAX, |view| view.record.state.revision);
        let outcome = |ask: Ask| outcomes.iter().any(|(asked, outcome)| *asked == ask && outcome.is_ok());
        if outcome(Ask::Delete) {
            self.inspector.wished(agent, Wish::Delete, revision);
        } else if second.is_none() && outcome(first) {
            match first {
                Ask::Start | Ask::Restart => self.inspector.wished(agent, Wish::Run, revision),
                Ask::Stop => self.inspector.wished(agent, Wish::Stop, revision),
                Ask::Update | Ask::Delete => {}
            }
        }
    }

    /// The gateway forgets its token under messages, and says so sooner to one than to another.
    fn refuse(&mut self, service: &Service) {
        let Some(agent) = self.some_agent() else { return };
        self.fakes.engine().forget_tokens(agent);
        for _ in 0..2 {
            let delay = Duration::from_millis(self.random.below(8_000));
            self.faults.next(Call::Webhook, Fault::DelayAnswer(delay));
            self.send_to(service, agent);
        }
        self.note(&format!("{agent} forgets its token"));
    }

    fn send(&mut self, service: &Service) {
        if let Some(agent) = self.some_agent() {
            self.send_to(service, agent);
        }
    }

    /// Messages, one after the other, that nobody waits for here.
    fn send_to(&mut self, service: &Service, agent: AgentId) {
        let Some(handle) = service.plane.agent(agent) else { return };
        for _ in 0..1 + self.random.below(4) {
            let text = format!("message {}", self.sent.len());
            let outcome = Arc::new(Mutex::new(None));
            self.sent.push(Sent { agent, text: text.clone(), outcome: Arc::clone(&outcome) });
            let call = message(&text)
                .with_hold(Duration::from_millis(self.random.below(60_000)))
                .with_answer_within(Duration::from_millis(1 + self.random.below(30_000)));
            let (handle, cut) = (handle.clone(), service.disk.cut_token().clone());
            tokio::spawn(async move {
                let answer = handle.deliver(call).await;
                if !cut.is_cancelled() {
                    *outcome.lock().expect("no panic") = Some(answer);
                }
            });
        }
    }

    /// Hands and fate.
    fn meddle(&mut self) {
        let Some(agent) = self.some_agent() else { return };
        let engine = self.fakes.engine().clone();
        let what = self.random.below(14);
        match what {
            0 => drop(engine.crash(agent)),
            1 => drop(engine.restart_by_policy(agent, Exit::with_code(137).with_oom(self.random.chance(500)))),
            2 => drop(engine.out_of_memory(agent)),
            3 => drop(engine.pause(agent, true)),
            4 => drop(engine.pause(agent, false)),
            5 => drop(engine.restart_by_hand(agent)),
            6 => drop(engine.remove_by_hand(agent)),
            7 => {
                engine.wipe(agent);
                engine.restart_by_hand(agent);
            }
            8 | 9 => engine.forget_tokens(agent),
            10 => drop(engine.start_by_hand(agent)),
            11 => {
                let dies = self.random.chance(500);
                let after = Duration::from_millis(self.random.below(3_000));
                engine.set_dying(agent, dies.then_some((after, Exit::with_code(1))));
            }
            12 => {
                let port = HostPort::RANGE.start() + u16::try_from(self.random.below(40)).unwrap_or(0);
                let port = HostPort::try_from(port).expect("within the range");
                if self.random.chance(600) { engine.take_port(port) } else { engine.free_port(port) }
            }
            _ => {
                let slow = GatewayFault::Slow(Duration::from_millis(self.random.below(20_000)));
                let gateway_faults = [
                    GatewayFault::Well,
                    GatewayFault::Well,
                    slow,
                    GatewayFault::Hung,
                    GatewayFault::Fails(500),
                    GatewayFault::Fails(408),
                    GatewayFault::Unwell,
                    GatewayFault::Garbage,
                    GatewayFault::Forgetful,
                    GatewayFault::HangsUp,
                ];
                engine.set_gateway_fault_of(agent, self.random.pick(&gateway_faults).copied());
            }
        }
        self.note(&format!("{agent} is meddled with: {what}"));
    }

    fn trouble_engine(&mut self) {
        let engine = self.fakes.engine().clone();
        let what = self.random.below(8);
        match what {
            0 => engine.set_condition(Condition::Away),
            1 => engine.set_condition(Condition::Hangs),
            2 | 3 => engine.set_condition(Condition::Answers),
            4 => engine.gap(),
            5 => engine.set_behavior(GatewayBehavior::forgetful()),
            6 => engine.set_behavior(GatewayBehavior::zeroclaw_0_8().with_ends_in(None)),
            _ => {
                let images = [Image::Present, Image::Slow(Duration::from_secs(20)), Image::Missing, Image::Unreachable];
                engine.set_image(self.random.pick(&images).cloned().expect("some"));
            }
        }
        self.note(&format!("the engine has trouble: {what}"));
    }

    fn crash_actors(&mut self, service: &Service) {
        // Its successor may come late.
        self.inspector.hinder();
        if self.random.chance(300) {
            service.plane.crash_registry(ActorCrash::Kill);
        } else if let Some(agent) = self.some_agent() {
            service.plane.crash_actor(agent, ActorCrash::Kill);
            self.note(&format!("{agent}'s actor is killed"));
        }
    }

    fn trouble_disk(&mut self, service: &Service) {
        self.inspector.hinder();
        let disk = service.disk.memory();
        if self.random.chance(400) {
            let room = usize::try_from(self.random.below(64 * 1024)).ok().filter(|room| room % 2 == 0);
            disk.fill_up_to(room);
            self.note(&format!("the disk has room for {room:?} bytes"));
            return;
        }
        let faults = [CommitFault::Before, CommitFault::Sync, CommitFault::After];
        let fault = *self.random.pick(&faults).expect("some");
        disk.fail_commit(1 + self.random.below(5), fault);
        self.note(&format!("the disk will fail: {fault:?}"));
    }

    /// As people do, and time servers, and summer.
    fn put_clock(&mut self) {
        const HOUR: i64 = 3_600_000;
        let by = *self.random.pick(&[-24 * HOUR, -HOUR, -5_000, 5_000, HOUR, 24 * HOUR]).expect("some");
        self.fakes.engine().put_clock_forward(jiff::SignedDuration::from_millis(by));
        self.inspector.clock_put();
        self.note(&format!("the clock was put forward by {by} ms"));
    }

    fn some_agent(&mut self) -> Option<AgentId> {
        self.random.pick(&self.agents).copied()
    }
}

async fn obey(service: &Service, agent: AgentId, ask: Ask) -> (Ask, Result<CommandOutcome, CommandError>) {
    let Some(handle) = service.plane.agent(agent) else { return (ask, Err(CommandError::Gone)) };
    let outcome = match ask {
        Ask::Start => handle.start().await,
        Ask::Stop => handle.stop().await,
        Ask::Restart => handle.restart().await,
        Ask::Update => {
            let api_key = Secret::from(zeroone::testkit::API_KEY);
            handle.update(AgentPatch::default().with_api_key(api_key)).await
        }
        Ask::Delete => handle.delete().await,
    };
    (ask, outcome)
}
