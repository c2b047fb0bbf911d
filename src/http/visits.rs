//! People who use an agent's own page, at the agent's host name.
//!
//! ```text
//! POST …/dashboard ─► code, for minutes ─► the page pairs with it: POST /pair ─► token of ours, for hours
//! ```
//! The page asks for a pairing code and sends the token that it gets with every call. Both are ours: the gateway never sees
//! them, and the page, which may be what somebody made an agent write, gets no key of the user's. A visit is worth what the key
//! or the session is worth by which it was opened, for this one agent, and ends with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::accounts::Caller;
use crate::domain::{AgentId, Secret, Timestamp, Token, later};
use crate::proxy::VISIT_PREFIX;

/// What ZeroClaw's pages take in their field, without letters that look like digits.
const CODE_LENGTH: usize = 6;
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Long enough to type it.
const CODE_FOR: Duration = Duration::from_secs(5 * 60);
/// Codes of six characters of 32 that may be tried before one is void: a guess has a chance of one in a hundred million.
const MAX_TRIES: u32 = 10;
const VISIT_FOR: Duration = Duration::from_secs(12 * 60 * 60);
/// Visits to one agent; the oldest gives way.
const MAX_VISITS: usize = 16;

#[derive(Default)]
pub struct Visits(Mutex<HashMap<AgentId, OfAgent>>);

#[derive(Default)]
struct OfAgent {
    code: Option<Code>,
    visits: Vec<Visit>,
}

struct Code {
    text: Secret<String>,
    caller: Caller,
    until: Timestamp,
    tries: u32,
}

struct Visit {
    token: [u8; 32],
    caller: Caller,
    until: Timestamp,
}

impl Visits {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, OfAgent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A code that lets somebody in as this caller, once, and until when. One that was made before is void.
    pub fn invite(&self, agent: AgentId, caller: Caller, now: Timestamp) -> (Secret<String>, Timestamp) {
        let random: [u8; CODE_LENGTH] = rand::random();
        let text: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
        let until = later(now, CODE_FOR);
        let mut agents = self.lock();
        // Agents that are gone leave nothing behind.
        agents.retain(|_, of| {
            of.prune(now);
            of.code.is_some() || !of.visits.is_empty()
        });
        let code = Code { text: Secret::new(text.clone()), caller, until, tries: 0 };
        agents.entry(agent).or_default().code = Some(code);
        (Secret::new(text), until)
    }

    /// The token of a new visit, and as whom it is let in, for who presents the code that is open.
    pub fn enter(&self, agent: AgentId, presented: &str, now: Timestamp) -> Option<(Token, Caller)> {
        let mut agents = self.lock();
        let of = agents.get_mut(&agent)?;
        of.prune(now);
        let code = of.code.as_mut()?;
        let presented = presented.trim().to_ascii_uppercase();
        if !bool::from(code.text.expose().as_bytes().ct_eq(presented.as_bytes())) {
            code.tries += 1;
            if code.tries >= MAX_TRIES {
                of.code = None;
            }
            return None;
        }
        let code = of.code.take()?;
        let token = Token::generate(VISIT_PREFIX);
        if of.visits.len() >= MAX_VISITS {
            of.visits.remove(0);
        }
        let caller = code.caller.clone();
        of.visits.push(Visit { token: token.hash(), caller: code.caller, until: later(now, VISIT_FOR) });
        Some((token, caller))
    }

    /// As whom this token's holder is let in.
    pub fn visitor(&self, agent: AgentId, presented: &str, now: Timestamp) -> Option<Caller> {
        if !presented.starts_with(VISIT_PREFIX) {
            return None;
        }
        let hash = Token::hash_of(presented);
        let agents = self.lock();
        let visit = agents.get(&agent)?.visits.iter().find(|visit| visit.token == hash)?;
        (visit.until > now && visit.caller.works_at(now)).then(|| visit.caller.clone())
    }
}

impl OfAgent {
    fn prune(&mut self, now: Timestamp) {
        self.code.take_if(|code| code.until <= now || !code.caller.works_at(now));
        self.visits.retain(|visit| visit.until > now && visit.caller.works_at(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Scopes, UserId};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn caller() -> Caller {
        Caller::new(UserId::new(), Scopes::user())
    }

    #[test]
    fn a_code_lets_in_once_and_for_minutes() {
        let (visits, agent, other) = (Visits::default(), AgentId::new(), AgentId::new());
        let (code, until) = visits.invite(agent, caller(), at(0));
        assert_eq!((code.expose().len(), until), (6, at(300)));
        assert!(visits.enter(other, code.expose(), at(1)).is_none(), "it is another agent's");
        let (token, _) = visits.enter(agent, &code.expose().to_lowercase(), at(1)).unwrap();
        assert!(visits.enter(agent, code.expose(), at(1)).is_none(), "it was used");
        assert!(visits.visitor(agent, token.expose(), at(2)).is_some());
        assert!(visits.visitor(other, token.expose(), at(2)).is_none());
        assert!(visits.visitor(agent, token.expose(), at(12 * 3600 + 2)).is_none(), "it is over");
        let (late, _) = visits.invite(agent, caller(), at(0));
        assert!(visits.enter(agent, late.expose(), at(300)).is_none());
    }

    #[test]
    fn guesses_void_the_code() {
        let (visits, agent) = (Visits::default(), AgentId::new());
        let (code, _) = visits.invite(agent, caller(), at(0));
        for _ in 0..MAX_TRIES {
            assert!(visits.enter(agent, "000000", at(1)).is_none());
        }
        assert!(visits.enter(agent, code.expose(), at(1)).is_none());
    }

    #[test]
    fn visits_are_bounded_and_leave_nothing_behind() {
        let (visits, agent) = (Visits::default(), AgentId::new());
        let enter = || {
            let (code, _) = visits.invite(agent, caller(), at(0));
            visits.enter(agent, code.expose(), at(0)).unwrap().0
        };
        let first = enter();
        let rest: Vec<_> = (0..MAX_VISITS).map(|_| enter()).collect();
        assert!(visits.visitor(agent, first.expose(), at(1)).is_none(), "the oldest gave way");
        assert!(rest.iter().all(|token| visits.visitor(agent, token.expose(), at(1)).is_some()));
        visits.invite(AgentId::new(), caller(), at(13 * 3600));
        assert_eq!(visits.lock().len(), 1);
    }
}
