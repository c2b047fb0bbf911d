//! Strangers at an agent's host name, who try tokens.
//!
//! ZeroClaw shuts an address out for minutes after ten wrong tokens, also with a right one, and to it everything here has one
//! address: ours. So few guesses go on, and the control plane and the agent's owner are never shut out with the guesser. A token
//! that was taken once is known, and does not wait for others' guesses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{AgentId, ApiKey};

/// Guesses in a minute that go on: half of what ZeroClaw takes, because the control plane may have a token refused, too.
const GUESSES: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// Tokens of one agent that are known to work: devices that somebody has paired by hand.
const KNOWN: usize = 32;

#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<HashMap<AgentId, Guesses>>>);

struct Guesses {
    since: Instant,
    /// Refused, or not answered yet.
    open: u32,
    known: VecDeque<[u8; 32]>,
}

/// A request with a token that may be wrong.
pub struct Guess {
    strangers: Strangers,
    agent: AgentId,
    token: [u8; 32],
    /// It was right before, so it was not counted.
    known: bool,
    since: Instant,
}

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Guesses>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request with this token, unless it is known.
    ///
    /// # Errors
    /// Too many guesses: how long to wait.
    pub fn guess(&self, agent: AgentId, token: &str) -> Result<Guess, Duration> {
        let (now, token) = (Instant::now(), ApiKey::hash_of(token));
        let mut agents = self.lock();
        agents.retain(|_, it| now - it.since < MINUTE || !it.known.is_empty());
        let guesses = agents.entry(agent).or_insert_with(|| Guesses::since(now));
        let known = guesses.known.contains(&token);
        let guess = |since| Guess { strangers: self.clone(), agent, token, known, since };
        if known {
            return Ok(guess(guesses.since));
        }
        if now - guesses.since >= MINUTE {
            (guesses.since, guesses.open) = (now, 0);
        }
        if guesses.open >= GUESSES {
            return Err(MINUTE - (now - guesses.since));
        }
        guesses.open += 1;
        Ok(guess(guesses.since))
    }

    /// Takes back the count of a guess that was none after all, and changes what is known of its agent.
    fn with(&self, guess: &Guess, change: impl FnOnce(&mut Guesses)) {
        if let Some(guesses) = self.lock().get_mut(&guess.agent) {
            if guesses.since == guess.since {
                guesses.open = guesses.open.saturating_sub(1);
            }
            change(guesses);
        }
    }
}

impl Guesses {
    fn since(since: Instant) -> Self {
        Self { since, open: 0, known: VecDeque::new() }
    }
}

impl Guess {
    /// The gateway has taken the token.
    pub fn right(self) {
        if self.known {
            return;
        }
        self.strangers.with(&self, |guesses| {
            if guesses.known.len() >= KNOWN {
                guesses.known.pop_front();
            }
            guesses.known.push_back(self.token);
        });
    }

    /// The gateway has refused the token: one that it took before is unknown again, or it would be refused again and again
    /// without being counted.
    pub fn wrong(self) {
        if let Some(guesses) = self.strangers.lock().get_mut(&self.agent) {
            guesses.known.retain(|known| *known != self.token);
        }
    }

    /// It never came to the gateway.
    pub fn void(self) {
        if !self.known {
            self.strangers.with(&self, |_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_guesses_go_on_in_a_minute_and_known_tokens_always() {
        let (strangers, ada, bob) = (Strangers::default(), AgentId::new(), AgentId::new());
        strangers.guess(ada, "right").unwrap().right();
        strangers.guess(ada, "held").unwrap().void();
        let open: Vec<_> = (0..GUESSES).map(|n| strangers.guess(ada, &format!("wrong {n}")).unwrap()).collect();
        assert_eq!(strangers.guess(ada, "another").err(), Some(MINUTE));
        strangers.guess(ada, "right").unwrap().right();
        assert!(strangers.guess(bob, "wrong").is_ok(), "each agent has its own");
        drop(open);
        tokio::time::advance(MINUTE).await;
        assert!(strangers.guess(ada, "another").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_works_no_longer_is_counted_as_any_other() {
        let (strangers, ada) = (Strangers::default(), AgentId::new());
        strangers.guess(ada, "phone").unwrap().right();
        strangers.guess(ada, "phone").unwrap().wrong();
        for _ in 0..GUESSES {
            strangers.guess(ada, "phone").unwrap().wrong();
        }
        assert_eq!(strangers.guess(ada, "phone").err(), Some(MINUTE));
    }
}
