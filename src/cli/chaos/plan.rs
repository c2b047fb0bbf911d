//! What is done to whom, and when: decided by the seed alone, before anything is done.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::runtime::fault::Fault;

/// What a plan is made from.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) duration: Duration,
    /// Faults a second; 0 is none at all.
    pub(super) rate: f64,
    /// At least one.
    pub(super) faults: Vec<Fault>,
    /// How many agents there are to choose from.
    pub(super) agents: usize,
}

/// One fault to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    /// Since the beginning.
    pub(super) at: Duration,
    /// Its number among the agents.
    pub(super) agent: usize,
    pub(super) fault: Fault,
}

/// The plan, in order. One fault in each stretch of `1 / rate`, at a random moment of it: neither a drum beat, to which
/// timers could fall into step, nor a pile of faults that leaves the rest of the time idle.
pub(super) fn schedule(script: &Script) -> impl Iterator<Item = Planned> + use<> {
    let Script { seed, duration, rate, faults, agents } = script.clone();
    let mut random = StdRng::seed_from_u64(seed);
    let nothing = agents == 0 || faults.is_empty() || rate <= 0.0;
    let planned = move |stretch: u32| {
        let at = (f64::from(stretch) + random.random::<f64>()) / rate;
        let agent = random.random_range(0..agents);
        let fault = faults[random.random_range(0..faults.len())];
        Planned { at: Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX), agent, fault }
    };
    let stretches = if nothing { 0 } else { u32::MAX };
    (0..stretches).map(planned).take_while(move |planned| planned.at < duration)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn script(seed: u64) -> Script {
        Script {
            seed,
            duration: Duration::from_secs(100),
            rate: 2.0,
            faults: vec![Fault::Kill, Fault::Pause],
            agents: 3,
        }
    }

    #[test]
    fn the_seed_decides_all_of_it() {
        let plan = |seed| schedule(&script(seed)).collect::<Vec<_>>();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn there_is_one_fault_in_each_stretch_and_everybody_gets_some() {
        let plan: Vec<Planned> = schedule(&script(7)).collect();
        assert_eq!(plan.len(), 200);
        for (stretch, planned) in (0_u32..).zip(&plan) {
            let begin = Duration::from_millis(500) * stretch;
            assert!((begin..begin + Duration::from_millis(500)).contains(&planned.at), "{planned:?}");
        }
        let met: HashSet<_> = plan.iter().map(|planned| (planned.agent, planned.fault)).collect();
        assert_eq!(met.len(), 6, "every agent, every fault");
    }

    #[test]
    fn without_agents_faults_or_time_nothing_is_planned() {
        for script in [
            Script { agents: 0, ..script(1) },
            Script { faults: vec![], ..script(1) },
            Script { duration: Duration::ZERO, ..script(1) },
            Script { rate: 0.0, ..script(1) },
            Script { rate: f64::MIN_POSITIVE, ..script(1) },
        ] {
            assert_eq!(schedule(&script).count(), 0, "{script:?}");
        }
    }
}
