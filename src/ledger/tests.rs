use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::{Plan, later};

const FREE: Limits = Plan::Free.limits();
const ENTERPRISE: Limits = Plan::Enterprise.limits();

fn agent(n: u8) -> AgentId {
    AgentId::from_bytes([n; 16])
}

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 16])
}

fn slug(text: &str) -> Slug {
    Slug::parse(text).unwrap()
}

fn exact(text: &str) -> SlugRequest {
    SlugRequest::Exact(slug(text))
}

fn port(number: u16) -> HostPort {
    HostPort::try_from(number).unwrap()
}

fn at(secs: u64) -> Timestamp {
    later(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_secs(secs))
}

fn with_ports(count: u8) -> Ledger {
    Ledger::new(PortRange::from(port(40_000), count.into()))
}

#[test]
fn only_ports_of_its_range_are_given_out_and_what_was_given_before_is_kept() {
    let mut ledger = Ledger::new(PortRange::from(port(40_100), 2));
    ledger.restore(agent(1), user(1), slug("a1"), Some(port(40_000))).unwrap();
    let mut claim = |n| ledger.claim(agent(n), user(1), &ENTERPRISE, exact(&format!("a{n}")), at(0));
    assert_eq!(claim(1).map(|allocation| allocation.port), Ok(Some(port(40_000))));
    assert_eq!(
        [2, 3].map(|n| claim(n).map(|allocation| allocation.port)),
        [Ok(Some(port(40_100))), Ok(Some(port(40_101)))]
    );
    assert_eq!(claim(4), Err(Refusal::NoFreePort));
    ledger.release(agent(3));
    assert_eq!(ledger.swap_port(agent(1), at(0)), Ok(port(40_101)), "moved by a stranger, it moves into the range");
}

#[test]
fn a_run_of_ports_that_strangers_have_costs_few_attempts_wherever_it_is() {
    const STRANGERS: usize = 2_000;
    for first in [0, 1_500, 4_000, 8_001] {
        let mut ledger = Ledger::default();
        let taken = |port: HostPort| (first..first + STRANGERS).contains(&port.index());
        let mut port = ledger.claim(agent(1), user(1), &FREE, exact("a1"), at(0)).unwrap().port.unwrap();
        let mut collisions = 0;
        while taken(port) {
            port = ledger.swap_port(agent(1), at(0)).unwrap();
            collisions += 1;
        }
        assert!(collisions <= 1, "{collisions} from {first} on");
    }
}

#[test]
fn the_plan_bounds_how_many_agents_a_user_has_and_release_gives_room_again() {
    let mut ledger = Ledger::default();
    for n in 0..3 {
        ledger.claim(agent(n), user(1), &FREE, exact(&format!("a{n}")), at(0)).unwrap();
    }
    let full = Refusal::Quota { limit: 3, used: 3 };
    assert_eq!(ledger.claim(agent(3), user(1), &FREE, exact("a3"), at(0)), Err(full));
    assert!(ledger.claim(agent(4), user(2), &FREE, exact("a4"), at(0)).is_ok(), "another user's quota is their own");
    assert!(ledger.claim(agent(3), user(1), &ENTERPRISE, exact("a3"), at(0)).is_ok(), "a larger plan gives more");
    assert_eq!(ledger.used(user(1)), 4);

    let full = Refusal::Quota { limit: 3, used: 3 };
    ledger.release(agent(0));
    assert_eq!(ledger.claim(agent(5), user(1), &FREE, exact("a0"), at(0)), Err(full), "four minus one is still three");
    ledger.release(agent(1));
    ledger.release(agent(1));
    assert_eq!(ledger.used(user(1)), 2, "released twice, counted once");
    assert!(ledger.claim(agent(5), user(1), &FREE, exact("a0"), at(0)).is_ok());
}

#[test]
fn a_chosen_slug_is_had_or_refused_and_a_suggested_one_gives_way() {
    let mut ledger = Ledger::default();
    ledger.claim(agent(1), user(1), &ENTERPRISE, exact("bob"), at(0)).unwrap();
    assert_eq!(ledger.claim(agent(2), user(2), &ENTERPRISE, exact("bob"), at(0)), Err(Refusal::SlugTaken));

    let suggested = || SlugRequest::Suggested(slug("bob"));
    let allocation = ledger.claim(agent(2), user(2), &ENTERPRISE, suggested(), at(0)).unwrap();
    assert_eq!(allocation.slug, slug("bob-0202"), "the suffix comes from the agent, so that it is the same each time");
    assert_eq!(ledger.allocation(agent(2)), Some(&allocation));

    // Somebody holds all that the agent could be called.
    for (n, taken) in ["bob-0303", "bob-03030303", "bob-0303030303030303"].into_iter().enumerate() {
        ledger.claim(agent(10 + n as u8), user(1), &ENTERPRISE, exact(taken), at(0)).unwrap();
    }
    assert_eq!(ledger.claim(agent(3), user(2), &ENTERPRISE, suggested(), at(0)), Err(Refusal::SlugTaken));
    ledger.release(agent(11));
    let allocation = ledger.claim(agent(3), user(2), &ENTERPRISE, suggested(), at(0)).unwrap();
    assert_eq!(allocation.slug, slug("bob-03030303"));
}

#[test]
fn a_claim_made_again_gives_the_same_seat() {
    let mut ledger = Ledger::default();
    let allocation = ledger.claim(agent(1), user(1), &FREE, exact("bob"), at(0)).unwrap();
    assert_eq!(ledger.claim(agent(1), user(1), &FREE, exact("alice"), at(0)), Ok(allocation));
    assert_eq!(ledger.used(user(1)), 1);
}

#[test]
fn every_port_is_given_out_once_and_a_freed_one_comes_last() {
    let mut ledger = with_ports(3);
    let claim = |ledger: &mut Ledger, n: u8| {
        ledger
            .claim(agent(n), user(1), &ENTERPRISE, exact(&format!("a{n}")), at(0))
            .map(|allocation| allocation.port.unwrap().get())
    };
    assert_eq!(claim(&mut ledger, 1), Ok(40_000));
    ledger.release(agent(1));
    assert_eq!(claim(&mut ledger, 2), Ok(40_001));
    assert_eq!(claim(&mut ledger, 3), Ok(40_002));
    assert_eq!(claim(&mut ledger, 4), Ok(40_000));
    assert_eq!(claim(&mut ledger, 5), Err(Refusal::NoFreePort));
    assert_eq!(ledger.used(user(1)), 3);
    assert!(ledger.allocation(agent(5)).is_none());
}

#[test]
fn there_are_as_many_agents_as_ports() {
    let mut ledger = Ledger::default();
    for n in 0..=10_000_u16 {
        let id = AgentId::new();
        ledger.claim(id, user(1), &ENTERPRISE, exact(&format!("a{n}")), at(0)).unwrap();
    }
    let refused = ledger.claim(agent(1), user(1), &ENTERPRISE, exact("one-more"), at(0));
    assert_eq!(refused, Err(Refusal::NoFreePort));
    assert_eq!(ledger.used(user(1)), 10_001);
}

#[test]
fn without_ports_there_are_as_many_agents_as_users_may_have() {
    let mut ledger = Ledger::new(None);
    for n in 0..20_000 {
        let allocation = ledger.claim(AgentId::new(), user(1), &ENTERPRISE, exact(&format!("a{n}")), at(0)).unwrap();
        assert_eq!(allocation.port, None);
    }
    let old = agent(1);
    ledger.restore(old, user(2), slug("old"), Some(port(40_000))).unwrap();
    assert_eq!(
        ledger.allocation(old).unwrap().port,
        Some(port(40_000)),
        "what it had elsewhere it has when it is back"
    );
    assert_eq!(ledger.swap_port(old, at(0)), Err(Refusal::NoFreePort));
    ledger.release(old);
    assert_eq!(ledger.allocation(old), None);
}

#[test]
fn an_agent_that_came_without_a_port_gets_one() {
    let mut ledger = with_ports(1);
    ledger.restore(agent(1), user(1), slug("bob"), None).unwrap();
    assert_eq!(ledger.swap_port(agent(1), at(0)), Ok(port(40_000)));
    assert!(ledger.unswap_port(agent(1), None));
    assert_eq!(ledger.allocation(agent(1)).unwrap().port, None);
    assert_eq!(ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(0)).unwrap().port, Some(port(40_000)));
}

#[test]
fn a_port_with_a_stranger_on_it_is_left_alone_for_a_while() {
    let mut ledger = with_ports(2);
    let old = ledger.claim(agent(1), user(1), &FREE, exact("bob"), at(0)).unwrap().port.unwrap();
    let new = ledger.swap_port(agent(1), at(10)).unwrap();
    assert_ne!(old, new);
    assert_eq!(ledger.allocation(agent(1)).unwrap().port, Some(new));
    assert_eq!(ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(609)), Err(Refusal::NoFreePort));
    assert_eq!(ledger.swap_port(agent(1), at(609)), Err(Refusal::NoFreePort));
    assert_eq!(ledger.allocation(agent(1)).unwrap().port, Some(new), "a refused swap changes nothing");
    assert_eq!(ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(610)).unwrap().port, Some(old));
    assert_eq!(ledger.swap_port(agent(9), at(0)), Err(Refusal::NotAllocated));
}

#[test]
fn a_clock_set_back_makes_no_quarantine_longer() {
    let mut ledger = with_ports(2);
    let old = ledger.claim(agent(1), user(1), &FREE, exact("bob"), at(0)).unwrap().port.unwrap();
    ledger.swap_port(agent(1), at(7200)).unwrap();
    assert_eq!(ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(0)), Err(Refusal::NoFreePort));
    assert_eq!(ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(600)).unwrap().port, Some(old));
}

#[test]
fn a_swap_that_could_not_be_committed_is_taken_back() {
    let mut ledger = with_ports(2);
    let old = ledger.claim(agent(1), user(1), &FREE, exact("bob"), at(0)).unwrap().port.unwrap();
    let new = ledger.swap_port(agent(1), at(0)).unwrap();
    assert!(ledger.unswap_port(agent(1), Some(old)));
    assert!(ledger.unswap_port(agent(1), Some(old)), "twice is as good as once");
    assert_eq!(ledger.allocation(agent(1)).unwrap().port, Some(old));
    assert_eq!(
        ledger.claim(agent(2), user(1), &FREE, exact("eve"), at(0)).unwrap().port,
        Some(new),
        "the new one is free"
    );
    assert!(!ledger.unswap_port(agent(1), Some(new)), "not another agent's port");
    assert!(!ledger.unswap_port(agent(9), Some(old)), "not without a seat");
    assert_eq!(ledger.allocation(agent(1)).unwrap().port, Some(old));
}

#[test]
fn claims_that_contradict_each_other_are_not_taken_up() {
    let mut ledger = Ledger::default();
    ledger.restore(agent(1), user(1), slug("bob"), Some(port(40_000))).unwrap();
    for (n, name, number, clash) in [
        (1, "eve", 40_001, Clash::Agent),
        (2, "bob", 40_001, Clash::Slug(agent(1))),
        (2, "eve", 40_000, Clash::Port(port(40_000))),
    ] {
        assert_eq!(ledger.restore(agent(n), user(1), slug(name), Some(port(number))), Err(clash));
    }
    assert_eq!(ledger.used(user(1)), 1);
    assert!(
        ledger.restore(agent(2), user(1), slug("eve"), Some(port(40_001))).is_ok(),
        "nothing was left of the refused ones"
    );
    let allocation = ledger.claim(agent(3), user(1), &FREE, exact("new"), at(0)).unwrap();
    assert_eq!(allocation.port, Some(port(40_002)), "restored ports are passed over");
    let full = Refusal::Quota { limit: 3, used: 3 };
    assert_eq!(ledger.claim(agent(4), user(1), &FREE, exact("more"), at(0)), Err(full), "restored agents count");
}

/// What anyone can do to the ledger, on few agents, users, names and ports, so that all of it collides.
#[derive(Debug, Clone)]
enum Act {
    Claim { agent: u8, user: u8, limit: Option<u32>, exact: bool, name: u8 },
    Release { agent: u8 },
    Swap { agent: u8 },
    Unswap { agent: u8, port: u8 },
    Pass { secs: u64 },
}

const PORTS: u8 = 6;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..9_u8, 0..3_u8, prop::option::of(0..4_u32), any::<bool>(), 0..4_u8)
            .prop_map(|(agent, user, limit, exact, name)| Act::Claim { agent, user, limit, exact, name }),
        2 => (0..9_u8).prop_map(|agent| Act::Release { agent }),
        3 => (0..9_u8).prop_map(|agent| Act::Swap { agent }),
        1 => (0..9_u8, 0..PORTS).prop_map(|(agent, port)| Act::Unswap { agent, port }),
        2 => (0..400_u64).prop_map(|secs| Act::Pass { secs }),
    ]
}

/// What the ledger must agree with, kept the slow and plain way.
#[derive(Debug, Default)]
struct Model {
    agents: Vec<(AgentId, UserId, Allocation)>,
    strangers: HashMap<HostPort, Timestamp>,
    now: u64,
}

impl Model {
    fn used(&self, user: UserId) -> u32 {
        self.agents.iter().filter(|(_, owner, _)| *owner == user).count() as u32
    }

    fn allocation(&self, agent: AgentId) -> Option<&Allocation> {
        self.agents.iter().find(|(id, ..)| *id == agent).map(|(.., allocation)| allocation)
    }

    fn may_be_given(&self, port: HostPort) -> bool {
        let quarantined = self.strangers.get(&port).is_some_and(|&since| elapsed_secs(since, self.now) < 600);
        !quarantined && self.agents.iter().all(|(.., allocation)| allocation.port != Some(port))
    }

    fn any_port_left(&self) -> bool {
        HostPort::all().take(PORTS.into()).any(|port| self.may_be_given(port))
    }

    fn slug_taken(&self, slug: &Slug) -> bool {
        self.agents.iter().any(|(.., allocation)| allocation.slug == *slug)
    }
}

fn elapsed_secs(since: Timestamp, now: u64) -> i64 {
    at(now).duration_since(since).as_secs()
}

fn apply(ledger: &mut Ledger, model: &mut Model, act: Act) -> Result<(), TestCaseError> {
    let now = at(model.now);
    match act {
        Act::Claim { agent: a, user: u, limit, exact, name } => {
            let (a, u) = (agent(a), user(u));
            let wanted = slug(&format!("n{name}"));
            let wish = if exact { SlugRequest::Exact(wanted.clone()) } else { SlugRequest::Suggested(wanted.clone()) };
            let limits = Limits { max_agents: limit, ..ENTERPRISE };
            let before = (model.allocation(a).cloned(), model.used(u));
            match (ledger.claim(a, u, &limits, wish, now), before) {
                (Ok(allocation), (Some(old), _)) => prop_assert_eq!(allocation, old),
                (Ok(allocation), (None, used)) => {
                    prop_assert!(limit.is_none_or(|limit| used < limit));
                    prop_assert!(model.may_be_given(allocation.port.unwrap()));
                    prop_assert!(!model.slug_taken(&allocation.slug));
                    prop_assert!(allocation.slug == wanted || !exact && model.slug_taken(&wanted));
                    model.agents.push((a, u, allocation));
                }
                (Err(Refusal::Quota { limit: l, used: n }), (None, used)) => {
                    prop_assert_eq!((Some(l), n), (limit, used));
                    prop_assert!(n >= l);
                }
                (Err(Refusal::SlugTaken), (None, _)) => prop_assert!(exact && model.slug_taken(&wanted)),
                (Err(Refusal::NoFreePort), (None, _)) => prop_assert!(!model.any_port_left()),
                (refusal, before) => prop_assert!(false, "{refusal:?} from {before:?}"),
            }
        }
        Act::Release { agent: a } => {
            ledger.release(agent(a));
            model.agents.retain(|(id, ..)| *id != agent(a));
        }
        Act::Swap { agent: a } => match (ledger.swap_port(agent(a), now), model.allocation(agent(a)).cloned()) {
            (Ok(new), Some(old)) => {
                prop_assert!(model.may_be_given(new));
                model.strangers.insert(old.port.unwrap(), now);
                set_port(model, agent(a), new);
            }
            (Err(Refusal::NotAllocated), None) => {}
            (Err(Refusal::NoFreePort), Some(_)) => prop_assert!(!model.any_port_left()),
            (answer, allocation) => prop_assert!(false, "{answer:?} with {allocation:?}"),
        },
        Act::Unswap { agent: a, port: p } => {
            let back_to = port(40_000 + u16::from(p));
            let theirs =
                model.agents.iter().any(|(id, _, allocation)| *id != agent(a) && allocation.port == Some(back_to));
            let done = ledger.unswap_port(agent(a), Some(back_to));
            prop_assert_eq!(done, model.allocation(agent(a)).is_some() && !theirs);
            if done {
                model.strangers.remove(&back_to);
                set_port(model, agent(a), back_to);
            }
        }
        Act::Pass { secs } => model.now += secs,
    }
    Ok(())
}

fn set_port(model: &mut Model, agent: AgentId, port: HostPort) {
    for (id, _, allocation) in &mut model.agents {
        if *id == agent {
            allocation.port = Some(port);
        }
    }
}

proptest! {
    #[test]
    fn no_two_agents_ever_share_a_seat(acts in prop::collection::vec(act(), 1..120)) {
        let mut ledger = with_ports(PORTS);
        let mut model = Model::default();
        for act in acts {
            apply(&mut ledger, &mut model, act)?;
            for n in 0..9 {
                prop_assert_eq!(ledger.allocation(agent(n)), model.allocation(agent(n)));
            }
            for n in 0..3 {
                prop_assert_eq!(ledger.used(user(n)), model.used(user(n)));
            }
            let ports: HashSet<_> = model.agents.iter().map(|(.., allocation)| allocation.port).collect();
            let slugs: HashSet<_> = model.agents.iter().map(|(.., allocation)| &allocation.slug).collect();
            prop_assert_eq!((ports.len(), slugs.len()), (model.agents.len(), model.agents.len()));
        }
    }
}

#[test]
fn beside_a_stranger_the_search_goes_on_by_the_golden_section_of_the_range() {
    let mut ledger = Ledger::new(PortRange::from(port(40_530), 100));
    let mut given: Vec<u16> = Vec::new();
    ledger.claim(agent(1), user(1), &ENTERPRISE, exact("a1"), at(0)).unwrap();
    for _ in 0..4 {
        given.push(ledger.swap_port(agent(1), at(0)).unwrap().get());
    }
    // Each is 61 further than the one after the last, round the range of a hundred.
    assert_eq!(given, [40_592, 40_554, 40_616, 40_578]);
}

#[test]
fn installations_begin_at_different_ports_and_give_out_all_of_them() {
    let range = PortRange::from(port(40_000), 4).unwrap();
    for seed in 0..8 {
        let mut ledger = Ledger::new(Some(range)).beginning_at(seed);
        let mut given: Vec<u16> = (0..4)
            .map(|n| {
                let wish = SlugRequest::Suggested(slug("a"));
                ledger.claim(agent(n), user(1), &ENTERPRISE, wish, Timestamp::UNIX_EPOCH).unwrap().port.unwrap().get()
            })
            .collect();
        assert_eq!(u64::from(given[0]), 40_000 + seed % 4);
        given.sort_unstable();
        assert_eq!(given, [40_000, 40_001, 40_002, 40_003]);
    }
}
