//! What came of it: figures, and what has to hold. Pure: everything that was seen goes in, verdicts come out.

use std::time::Duration;

use serde::Serialize;

use crate::cli::output::plain;
use crate::domain::Timestamp;
use crate::runtime::fault::Fault;

/// The whole of it, as `--report` writes it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Repeats the plan.
    pub(super) seed: u64,
    pub(super) runtime: String,
    pub(super) started_at: Timestamp,
    pub(super) seconds: u64,
    pub(super) agents: usize,
    pub(super) faults: Vec<Figures>,
    pub(super) messages: Messages,
    pub(super) invariants: Vec<Invariant>,
}

/// How one fault went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// RUNNING again, so long after it was done.
    Recovered(Duration),
    /// It was taken back, and the service had not taken it for an incident.
    Unnoticed,
    /// Somebody stopped the agent before it had recovered.
    Abandoned,
    /// Not RUNNING again in time.
    Lost,
    /// Nothing was done: the agent was not up, or still busy with another fault.
    Skipped,
    /// It could not be done, for this reason.
    Impossible(String),
}

impl Outcome {
    pub(super) fn told(&self) -> String {
        match self {
            Self::Recovered(took) => format!("well again after {} ms", took.as_millis()),
            Self::Unnoticed => "taken back before anybody noticed".into(),
            Self::Abandoned => "stopped by somebody".into(),
            Self::Lost => "NOT well again in time".into(),
            Self::Skipped => "skipped: it is not up, or busy with another fault".into(),
            Self::Impossible(reason) => format!("could not be done: {}", plain(reason)),
        }
    }
}

/// All faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    fault: &'static str,
    injected: usize,
    recovered: usize,
    unnoticed: usize,
    abandoned: usize,
    lost: usize,
    skipped: usize,
    impossible: usize,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    max_ms: Option<u64>,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Messages {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// The service said that it was not delivered.
    pub(super) refused: u64,
    /// The service said that nobody knows.
    pub(super) unknown: u64,
    /// Neither an answer nor an honest refusal, or another message's answer.
    pub(super) wrong: u64,
}

/// Something that has to hold, and whether it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invariant {
    name: &'static str,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What was seen at the end.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Agents that are not RUNNING, with their status.
    pub(super) unsettled: Vec<String>,
    /// Agents that have another number of instances than one.
    pub(super) instances: Vec<String>,
    /// Ports that several agents have.
    pub(super) shared_ports: Vec<String>,
    /// Messages that a model heard more than once.
    pub(super) heard_twice: Vec<String>,
}

/// The figures of each fault that was asked for.
pub(super) fn figures(asked: &[Fault], outcomes: &[(Fault, Outcome)]) -> Vec<Figures> {
    let of = |fault: Fault| {
        let of_fault = || outcomes.iter().filter(|(done, _)| *done == fault).map(|(_, outcome)| outcome);
        let count = |wanted: fn(&Outcome) -> bool| of_fault().filter(|outcome| wanted(outcome)).count();
        let mut took: Vec<Duration> = of_fault()
            .filter_map(|outcome| if let Outcome::Recovered(took) = outcome { Some(*took) } else { None })
            .collect();
        took.sort_unstable();
        let (skipped, impossible) = (count(|o| *o == Outcome::Skipped), count(|o| matches!(o, Outcome::Impossible(_))));
        Figures {
            fault: fault.as_str(),
            injected: of_fault().count() - skipped - impossible,
            recovered: took.len(),
            unnoticed: count(|o| *o == Outcome::Unnoticed),
            abandoned: count(|o| *o == Outcome::Abandoned),
            lost: count(|o| *o == Outcome::Lost),
            skipped,
            impossible,
            p50_ms: quantile(&took, 50),
            p95_ms: quantile(&took, 95),
            max_ms: quantile(&took, 100),
        }
    };
    asked.iter().map(|fault| of(*fault)).collect()
}

/// The smallest value that so many percent do not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).and_then(|took| u64::try_from(took.as_millis()).ok())
}

/// What had to hold.
pub(super) fn judge(seen: &Seen, figures: &[Figures], messages: &Messages) -> Vec<Invariant> {
    let none = |name, found: &[String]| Invariant {
        name,
        holds: found.is_empty(),
        detail: (!found.is_empty()).then(|| plain(&found.join(", "))),
    };
    let total = |part: fn(&Figures) -> usize| figures.iter().map(part).sum::<usize>();
    let (lost, impossible) = (total(|figures| figures.lost), total(|figures| figures.impossible));
    let failed = [(lost, "not well again in time"), (impossible, "could not be done")];
    let failed: Vec<String> =
        failed.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let Messages { sent, answered, refused, unknown, wrong } = *messages;
    let mut unaccounted = Vec::new();
    if answered + refused + unknown + wrong != sent {
        unaccounted.push(format!("{sent} were sent, {} came to an end", answered + refused + unknown + wrong));
    }
    if wrong > 0 {
        unaccounted.push(format!("{wrong} got neither their answer nor an honest refusal"));
    }
    vec![
        none("every fault is done and recovered from", &failed),
        none("every agent settles RUNNING", &seen.unsettled),
        none("each agent has one instance", &seen.instances),
        none("no port belongs to two agents", &seen.shared_ports),
        none("every message is answered, or honestly refused", &unaccounted),
        none("no message is delivered twice", &seen.heard_twice),
    ]
}

impl Report {
    pub(super) fn holds(&self) -> bool {
        self.invariants.iter().all(|invariant| invariant.holds)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Messages { sent, answered, refused, unknown, wrong } = self.messages;
        let mut lines = vec![
            String::new(),
            format!("{} agents on {}, {} s, seed {}", self.agents, plain(&self.runtime), self.seconds, self.seed),
            "FAULT   DONE  RECOVERED  SKIPPED    P50 ms    P95 ms    MAX ms".to_owned(),
        ];
        let ms = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        for of in &self.faults {
            let Figures { fault, injected, recovered, skipped, p50_ms, p95_ms, max_ms, .. } = of;
            let (p50, p95, max) = (ms(*p50_ms), ms(*p95_ms), ms(*max_ms));
            lines.push(format!("{fault:6}{injected:>6}{recovered:>11}{skipped:>9}{p50:>10}{p95:>10}{max:>10}"));
        }
        lines.push(format!(
            "messages: {sent} sent, {answered} answered, {refused} refused, {unknown} unknown, {wrong} wrong"
        ));
        for Invariant { name, holds, detail } in &self.invariants {
            let detail = detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
            lines.push(format!("{}  {name}{detail}", if *holds { "holds   " } else { "VIOLATED" }));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovered(millis: u64) -> Outcome {
        Outcome::Recovered(Duration::from_millis(millis))
    }

    #[test]
    fn figures_are_those_of_each_fault() {
        let mut outcomes: Vec<_> = (1..=20).map(|n| (Fault::Kill, recovered(n * 10))).collect();
        outcomes.extend([(Fault::Kill, Outcome::Skipped), (Fault::Kill, Outcome::Lost), (Fault::Pause, recovered(7))]);
        outcomes.push((Fault::Pause, Outcome::Impossible("no".into())));
        let [kill, pause, stop] = &figures(&[Fault::Kill, Fault::Pause, Fault::Stop], &outcomes)[..] else {
            panic!("one for each that was asked for")
        };
        assert_eq!((kill.injected, kill.recovered, kill.lost, kill.skipped), (21, 20, 1, 1));
        assert_eq!((kill.p50_ms, kill.p95_ms, kill.max_ms), (Some(100), Some(190), Some(200)));
        assert_eq!((pause.injected, pause.impossible, pause.p50_ms, pause.max_ms), (1, 1, Some(7), Some(7)));
        assert_eq!((stop.injected, stop.p50_ms), (0, None));
    }

    #[test]
    fn each_thing_that_can_be_wrong_violates_its_invariant_alone() {
        let (fine, well) = (Messages { sent: 3, answered: 1, refused: 1, unknown: 1, wrong: 0 }, Seen::default());
        let none = figures(&[Fault::Kill], &[(Fault::Kill, recovered(1)), (Fault::Kill, Outcome::Unnoticed)]);
        assert!(judge(&well, &none, &fine).iter().all(|invariant| invariant.holds));
        let some = || vec!["it".to_owned()];
        let lost = figures(&[Fault::Kill], &[(Fault::Kill, Outcome::Lost)]);
        let impossible = figures(&[Fault::Kill], &[(Fault::Kill, Outcome::Impossible("x".into()))]);
        for (seen, figures, messages, violated) in [
            (Seen::default(), &lost, fine, 0),
            (Seen::default(), &impossible, fine, 0),
            (Seen { unsettled: some(), ..Seen::default() }, &none, fine, 1),
            (Seen { instances: some(), ..Seen::default() }, &none, fine, 2),
            (Seen { shared_ports: some(), ..Seen::default() }, &none, fine, 3),
            (Seen::default(), &none, Messages { sent: 4, ..fine }, 4),
            (Seen::default(), &none, Messages { sent: 4, wrong: 1, ..fine }, 4),
            (Seen { heard_twice: some(), ..Seen::default() }, &none, fine, 5),
        ] {
            let judged = judge(&seen, figures, &messages);
            let wrong: Vec<usize> = (0..judged.len()).filter(|at| !judged[*at].holds).collect();
            assert_eq!(wrong, [violated]);
            assert!(judged[violated].detail.is_some());
        }
    }
}
