//! Messages to agents in trouble, each with a text of its own, so that every answer can be told from every other.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::report::Messages;
use super::team::Member;
use crate::cli::client::Client;
use crate::cli::outcome::Failure;
use crate::cli::stand_in::COUNTED;

/// Messages under way at once. What comes faster waits: a service that holds messages is not to be flooded.
const UNDER_WAY: usize = 256;
/// Longer than the service holds a message, and then waits for its answer, as it is configured by default.
const PATIENCE: Duration = Duration::from_secs(180);

/// How a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    Unknown,
    Wrong,
}

/// Sends messages at this rate until `done`, and waits for what is under way. `echoed`: the agents' model repeats what it
/// is told, so that answers can be checked.
pub(super) async fn send(
    client: Client,
    agents: Vec<Member>,
    per_second: f64,
    seed: u64,
    echoed: bool,
    done: CancellationToken,
) -> Messages {
    let mut messages = Messages::default();
    if agents.is_empty() || per_second <= 0.0 {
        return messages;
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / per_second));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (places, mut under_way) = (Arc::new(Semaphore::new(UNDER_WAY)), JoinSet::new());
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => break,
            Some(fate) = under_way.join_next() => messages.count(fate.unwrap_or(Fate::Wrong)),
            _ = ticks.tick() => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let agent = agents[random.random_range(0..agents.len())].id;
                let text = format!("{COUNTED}{seed:x}-{}", messages.sent);
                messages.sent += 1;
                let client = client.clone();
                under_way.spawn(async move {
                    let _place = place;
                    let path = format!("/api/agents/{agent}/message");
                    let answer = client.ask(&path, &json!({ "message": text }), PATIENCE).await;
                    fate(answer, &text, echoed)
                });
            }
        }
    }
    while let Some(fate) = under_way.join_next().await {
        messages.count(fate.unwrap_or(Fate::Wrong));
    }
    messages
}

fn fate(answer: Result<(u16, Value), Failure>, text: &str, echoed: bool) -> Fate {
    match answer {
        Ok((200, body)) => {
            let its_own = body["response"].as_str().is_some_and(|said| said.contains(&format!("\"{text}\"")));
            if its_own || !echoed { Fate::Answered } else { Fate::Wrong }
        }
        Ok((409 | 429 | 503, _)) => Fate::Refused,
        Ok((502, body)) if body["code"] == "delivery-unknown" => Fate::Unknown,
        // In time the gateway did not say anything: it may have the message.
        Ok((504, _)) => Fate::Unknown,
        Ok(_) => Fate::Wrong,
        // Nobody listened; or the service went away, or was silent, in the middle of it.
        Err(Failure::Unreachable(_)) => Fate::Refused,
        Err(_) => Fate::Unknown,
    }
}

impl Messages {
    const fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Answered => self.answered += 1,
            Fate::Refused => self.refused += 1,
            Fate::Unknown => self.unknown += 1,
            Fate::Wrong => self.wrong += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_its_own_or_an_honest_refusal_is_right() {
        let said = |text: &str| json!({ "response": format!("you said \"{text}\"") });
        for (answer, echoed, expected) in [
            (Ok((200, said("chaos-1-1"))), true, Fate::Answered),
            (Ok((200, said("chaos-1-12"))), true, Fate::Wrong),
            (Ok((200, json!({ "response": "hello" }))), false, Fate::Answered),
            (Ok((200, Value::Null)), true, Fate::Wrong),
            (Ok((503, Value::Null)), true, Fate::Refused),
            (Ok((409, Value::Null)), true, Fate::Refused),
            (Ok((429, Value::Null)), true, Fate::Refused),
            (Ok((502, json!({ "code": "delivery-unknown" }))), true, Fate::Unknown),
            (Ok((502, json!({ "code": "gateway-error" }))), true, Fate::Wrong),
            (Ok((504, Value::Null)), true, Fate::Unknown),
            (Ok((500, Value::Null)), true, Fate::Wrong),
            (Ok((404, Value::Null)), true, Fate::Wrong),
            (Err(Failure::Unreachable(String::new())), true, Fate::Refused),
            (Err(Failure::said("cut off")), true, Fate::Unknown),
        ] {
            let told = format!("{answer:?}");
            assert_eq!(fate(answer, "chaos-1-1", echoed), expected, "{told}");
        }
    }
}
