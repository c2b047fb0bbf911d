//! Random batches, faults, crashes and reboots against a plain model of what the store must hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const EVENTS: u64 = 4;
const MAX_AGENTS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Create { agent: u8, owner: u8, slug: u8, port: u16, idempotency: Option<u8> },
    Update { agent: u8, revision: u64, log: bool },
    Swap { agent: u8, from: u16, to: u16 },
    Remove(u8),
    PutUser(u8),
    RemoveUser(u8),
    PutKey { key: u8, owner: u8, hash: u8 },
    RemoveKey { key: u8, owner: u8 },
    Claim { owner: u8, key: u8 },
    Free { owner: u8, key: u8 },
    Later(i64),
    Fault(CommitFault),
    Reboot(Crash),
    CutPower { syncs: u64, seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 1..6_u8;
    let two = 1..3_u8;
    let idempotency = prop::option::weighted(0.3, 1..4_u8);
    prop_oneof![
        6 => (agent.clone(), two.clone(), 1..6_u8, 1..6_u16, idempotency).prop_map(
            |(agent, owner, slug, port, idempotency)| Step::Create { agent, owner, slug, port, idempotency }
        ),
        6 => (agent.clone(), 1..12_u64, any::<bool>())
            .prop_map(|(agent, revision, log)| Step::Update { agent, revision, log }),
        2 => (agent.clone(), 1..6_u16, 1..6_u16).prop_map(|(agent, from, to)| Step::Swap { agent, from, to }),
        2 => agent.prop_map(Step::Remove),
        2 => two.clone().prop_map(Step::PutUser),
        1 => two.clone().prop_map(Step::RemoveUser),
        3 => (1..4_u8, two.clone(), 1..4_u8).prop_map(|(key, owner, hash)| Step::PutKey { key, owner, hash }),
        1 => (1..4_u8, two.clone()).prop_map(|(key, owner)| Step::RemoveKey { key, owner }),
        2 => (two.clone(), 1..4_u8).prop_map(|(owner, key)| Step::Claim { owner, key }),
        1 => (two, 1..4_u8).prop_map(|(owner, key)| Step::Free { owner, key }),
        1 => (1..40_i64).prop_map(Step::Later),
        1 => prop_oneof![Just(CommitFault::Before), Just(CommitFault::Sync), Just(CommitFault::After)]
            .prop_map(Step::Fault),
        1 => prop_oneof![Just(Crash::Process), Just(Crash::Power), any::<u64>().prop_map(|seed| Crash::Torn { seed })]
            .prop_map(Step::Reboot),
        1 => (1..3_u64, any::<u64>()).prop_map(|(syncs, seed)| Step::CutPower { syncs, seed }),
    ]
}

/// What the store must hold: the same rules, without a disk.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    agents: BTreeMap<AgentId, (AgentRecord, Option<HostPort>, Vec<LogEntry>)>,
    users: BTreeMap<UserId, UserRecord>,
    keys: BTreeMap<KeyId, KeyRecord>,
    claims: BTreeMap<(UserId, String), IdempotencyRecord>,
    log: Vec<(AgentId, UserId, EventKind)>,
}

impl Model {
    fn create(&mut self, record: &AgentRecord, port: Option<HostPort>) -> Result<(), Conflict> {
        let owned = self.agents.values().filter(|(other, ..)| other.user == record.user).count();
        let taken =
            |test: &dyn Fn(&AgentRecord, Option<HostPort>) -> bool| self.agents.values().any(|(r, p, _)| test(r, *p));
        if self.agents.contains_key(&record.id) {
            return Err(Conflict::Exists);
        } else if taken(&|other, _| other.slug == record.slug) {
            return Err(Conflict::Slug);
        } else if owned >= MAX_AGENTS as usize {
            return Err(Conflict::Quota);
        } else if port.is_some() && taken(&|_, other| other == port) {
            return Err(Conflict::Port);
        }
        self.agents.insert(record.id, (record.clone(), port, vec![entry(1)]));
        self.log.push((record.id, record.user, EventKind::Created { entry: entry(1) }));
        Ok(())
    }

    fn update(&mut self, next: &AgentRecord, log: Option<&LogEntry>) -> Result<(), Conflict> {
        let (record, _, events) = self.agents.get_mut(&next.id).ok_or(Conflict::NotFound)?;
        let newest = events.last().map_or(0, |entry| entry.seq);
        if next.state.revision <= record.state.revision || log.is_some_and(|entry| entry.seq <= newest) {
            return Err(Conflict::Stale);
        }
        *record = next.clone();
        if let Some(log) = log {
            events.push(log.clone());
            self.log.push((next.id, next.user, EventKind::Changed { entry: log.clone() }));
            events.retain(|entry| entry.seq + EVENTS > log.seq);
        }
        Ok(())
    }

    fn swap(&mut self, id: AgentId, from: Option<HostPort>, to: HostPort) -> Result<(), Conflict> {
        let held: BTreeSet<_> = self.agents.values().map(|(_, port, _)| *port).collect();
        match self.agents.get_mut(&id) {
            Some((_, port, _)) if *port == from && (from == Some(to) || !held.contains(&Some(to))) => {
                *port = Some(to);
                Ok(())
            }
            _ => Err(Conflict::Port),
        }
    }

    fn remove_user(&mut self, id: UserId) -> Result<(), Conflict> {
        if !self.users.contains_key(&id) {
            return Err(Conflict::NotFound);
        }
        if self.agents.values().any(|(record, ..)| record.user == id) {
            return Err(Conflict::HasAgents);
        }
        self.users.remove(&id);
        self.keys.retain(|_, key| key.user != id);
        self.claims.retain(|(owner, _), _| *owner != id);
        Ok(())
    }

    fn put_key(&mut self, key: &KeyRecord) -> Result<(), Conflict> {
        if !self.users.contains_key(&key.user) {
            return Err(Conflict::NotFound);
        }
        if self.keys.values().any(|other| other.hash == key.hash && other.id != key.id) {
            return Err(Conflict::Exists);
        }
        self.keys.insert(key.id, key.clone());
        Ok(())
    }

    fn claim(&mut self, owner: UserId, key: &str, record: &IdempotencyRecord, now: Timestamp) -> Result<(), Conflict> {
        let place = (owner, key.to_owned());
        if self.claims.get(&place).is_some_and(|held| held.expires_at > now) {
            return Err(Conflict::IdempotencyKey);
        }
        self.claims.insert(place, record.clone());
        Ok(())
    }
}

struct World {
    disk: MemoryDisk,
    store: Store,
    model: Model,
    now: i64,
}

impl World {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let store = Self::run_id(&disk);
        Self { disk, store, model: Model::default(), now: 0 }
    }

    fn run_id(disk: &MemoryDisk) -> Store {
        Store::in_memory(disk.clone(), StoreOptions { events_per_agent: EVENTS, ..options() }).unwrap()
    }

    fn reboot(&mut self, crash: Crash) {
        self.disk = self.disk.after(crash);
        self.store = Self::run_id(&self.disk);
    }

    /// Commits, and holds the outcome against the model's.
    fn commit(&mut self, batch: Batch, change: impl FnOnce(&mut Model) -> Result<(), Conflict>) {
        let mut next = self.model.clone();
        let expected = change(&mut next);
        match self.store.commit_inline(batch) {
            Ok(()) => {
                assert_eq!(expected, Ok(()));
                self.model = next;
            }
            Err(StoreError::Rejected(conflict)) => assert_eq!(expected, Err(conflict)),
            Err(StoreError::Unavailable(_)) => {}
            Err(StoreError::Unknown(_)) if self.holds(&next) => self.model = next,
            Err(StoreError::Unknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn claim(&self) -> IdempotencyRecord {
        let state = IdempotencyState::InFlight { agent: None, started_at: at(self.now) };
        IdempotencyRecord { fingerprint: [3; 32], state, expires_at: at(self.now + 20) }
    }

    /// The store's contents as the model has them, without what has expired.
    fn read(&self) -> Result<Model, StoreError> {
        let engine = &self.store.0.engine;
        let snapshot = engine.read(read::snapshot)?;
        let mut model = Model::default();
        for StoredAgent { record, port } in snapshot.agents {
            let events = engine.read(|txn| read::events(txn, record.id, 0, 100))?;
            model.agents.insert(record.id, (record, port, events));
        }
        model.users = snapshot.users.into_iter().map(|user| (user.id, user)).collect();
        model.keys = snapshot.keys.into_iter().map(|key| (key.id, key)).collect();
        let EventPage::Lines(lines) = engine.read(|txn| read::event_log(txn, 0, usize::MAX))? else {
            panic!("nothing was pruned")
        };
        assert!(lines.iter().zip(1..).all(|(event, offset)| event.offset == offset), "{lines:?}");
        model.log = lines.into_iter().map(|event| (event.agent, event.user, event.kind)).collect();
        for owner in 1..3 {
            for key in 1..4 {
                let name = format!("k{key}");
                if let Some(record) = engine.read(|txn| read::idempotency(txn, user_id(owner), &name))? {
                    model.claims.insert((user_id(owner), name), record);
                }
            }
        }
        Ok(model)
    }

    fn holds(&self, model: &Model) -> bool {
        let now = at(self.now);
        let live = |mut model: Model| {
            model.claims.retain(|_, record| record.expires_at > now);
            model
        };
        live(self.read().unwrap()) == live(model.clone())
    }

    fn check(&self) {
        assert!(self.holds(&self.model), "the store has {:#?}, not {:#?}", self.read(), self.model);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create { .. } | Step::Update { .. } | Step::Swap { .. } | Step::Remove(_) => self.take_agent(step),
            Step::PutUser(_) | Step::RemoveUser(_) | Step::PutKey { .. } | Step::RemoveKey { .. } => {
                self.take_user(step);
            }
            Step::Claim { owner, key } => {
                let (name, claim, now) = (format!("k{key}"), self.claim(), at(self.now));
                let batch = Batch::put_idempotency(user_id(owner), &name, &claim);
                self.commit(batch, |model| model.claim(user_id(owner), &name, &claim, now));
            }
            Step::Free { owner, key } => {
                let name = format!("k{key}");
                self.commit(Batch::remove_idempotency(user_id(owner), &name), |model| {
                    model.claims.remove(&(user_id(owner), name.clone()));
                    Ok(())
                });
            }
            Step::Later(seconds) => self.now += seconds,
            Step::Fault(fault) => self.disk.fail_commit(1, fault),
            Step::Reboot(crash) => self.reboot(crash),
            Step::CutPower { syncs, seed } => {
                self.disk.cut_power(syncs);
                let before = self.model.clone();
                let owner = user(1);
                let outcome = self.store.commit_inline(Batch::put_user(&owner));
                assert!(outcome.is_err(), "the power was cut");
                self.reboot(Crash::Torn { seed });
                let mut after = before.clone();
                after.users.insert(owner.id, owner);
                self.model = if self.holds(&after) { after } else { before };
            }
        }
    }

    fn take_agent(&mut self, step: Step) {
        let now = at(self.now);
        match step {
            Step::Create { agent: n, owner, slug, port: p, idempotency } => {
                let slug = Slug::parse(&format!("s{slug}")).unwrap();
                let record = AgentRecord { user: user_id(owner), slug, ..agent(n) };
                let mut batch = Batch::create_agent(&record, port(p), &entry(1), Some(MAX_AGENTS));
                let claim = self.claim();
                let name = idempotency.map(|key| format!("k{key}"));
                if let Some(name) = &name {
                    batch = batch.with_idempotency(user_id(owner), name, &claim);
                }
                self.commit(batch, |model| {
                    model.create(&record, port(p))?;
                    name.map_or(Ok(()), |name| model.claim(user_id(owner), &name, &claim, now))
                });
            }
            Step::Update { agent: n, revision, log } => {
                let record =
                    self.model.agents.get(&agent_id(n)).map_or_else(|| agent(n), |(record, ..)| record.clone());
                let record = revised(&record, revision);
                let log = log.then(|| entry(revision));
                self.commit(Batch::update_agent(&record, log.as_ref()), |model| model.update(&record, log.as_ref()));
            }
            Step::Swap { agent, from, to } => {
                let (id, from, to) = (agent_id(agent), port(from), port(to).unwrap());
                self.commit(Batch::swap_port(id, from, to), |model| model.swap(id, from, to));
            }
            Step::Remove(n) => self.commit(Batch::remove_agent(agent_id(n), now), |model| {
                let (record, ..) = model.agents.remove(&agent_id(n)).ok_or(Conflict::NotFound)?;
                model.log.push((record.id, record.user, EventKind::Removed));
                Ok(())
            }),
            _ => unreachable!("not a step of an agent"),
        }
    }

    fn take_user(&mut self, step: Step) {
        match step {
            Step::PutUser(n) => self.commit(Batch::put_user(&user(n)), |model| {
                model.users.insert(user_id(n), user(n));
                Ok(())
            }),
            Step::RemoveUser(n) => {
                self.commit(Batch::remove_user(user_id(n)), |model| model.remove_user(user_id(n)));
            }
            // A key's owner never changes, so it is part of its id here.
            Step::PutKey { key: n, owner, hash } => {
                let record = KeyRecord { id: key_id(n * 10 + owner), hash: [hash; 32], ..key(n, owner) };
                self.commit(Batch::put_key(&record), |model| model.put_key(&record));
            }
            Step::RemoveKey { key: n, owner } => {
                let id = key_id(n * 10 + owner);
                self.commit(Batch::remove_keys(user_id(owner), vec![id]), |model| {
                    model.keys.remove(&id).map(drop).ok_or(Conflict::NotFound)
                });
            }
            _ => unreachable!("not a step of a user"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn the_store_holds_what_was_acknowledged_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
    }
}
