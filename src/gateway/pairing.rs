//! Who may talk to the agent: a one-time code is exchanged for a bearer token, and only the token's hash is kept.
//!
//! Pure but for randomness and a lock: time is an argument and nothing is written here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::OsRng;
use rand::{Rng as _, TryRngCore as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::config::{CodeFormat, Config};
use super::limits::ClientKey;
use crate::domain::Secret;

/// Codes of `ABCD-1234` form leave out what is easily misread: I, O, 0 and 1.
const CODE_LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
const CODE_DIGITS: &[u8] = b"23456789";
/// How long a code waits that somebody asked for.
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// 256 bits.
const TOKEN_BYTES: usize = 32;

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

pub(super) struct Pairing {
    required: bool,
    format: CodeFormat,
    max_failures: u32,
    lockout: Duration,
    max_clients: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    code: Option<Code>,
    tokens: Vec<TokenHash>,
    failures: HashMap<ClientKey, Failures>,
}

/// A code that waits for its client. The one that is printed at the start waits for ever.
struct Code {
    text: Secret<String>,
    until: Option<Instant>,
}

struct Failures {
    count: u32,
    last: Instant,
}

/// How a try at pairing ended.
#[derive(Debug)]
pub(super) enum Attempt {
    Paired(Secret<String>),
    Refused,
    /// With the time until the client is listened to again.
    LockedOut(Duration),
}

impl Pairing {
    /// A new code is made only where nobody is paired yet: a restart must not open the door again.
    pub(super) fn new(config: &Config) -> Self {
        let tokens: Vec<TokenHash> =
            config.gateway.paired_tokens.iter().map(|stored| parse_stored(stored.expose())).collect();
        let required = config.gateway.require_pairing;
        let format = config.pairing.code_format;
        let code = (required && tokens.is_empty()).then(|| Code { text: new_code(format), until: None });
        Self {
            required,
            format,
            max_failures: config.pairing.max_failures.max(1),
            lockout: Duration::from_secs(config.pairing.lockout_secs),
            max_clients: config.gateway.rate_limit_max_keys.max(1),
            inner: Mutex::new(Inner { code, tokens, failures: HashMap::new() }),
        }
    }

    pub(super) const fn required(&self) -> bool {
        self.required
    }

    pub(super) fn is_paired(&self) -> bool {
        !self.inner().tokens.is_empty()
    }

    /// The code that is still waiting for its client.
    pub(super) fn code(&self) -> Option<Secret<String>> {
        self.inner().code.as_ref().map(|code| code.text.clone())
    }

    /// Makes a code that pairs one more client, and takes the place of any that still waits; not where pairing is off.
    pub(super) fn renew(&self, now: Instant) -> Option<Secret<String>> {
        let text = self.required.then(|| new_code(self.format))?;
        self.inner().code = Some(Code { text: text.clone(), until: Some(now + CODE_LIFETIME) });
        Some(text)
    }

    /// The hashes that belong into `paired_tokens`.
    pub(super) fn stored_tokens(&self) -> Vec<String> {
        self.inner().tokens.iter().map(|hash| hex(hash)).collect()
    }

    /// Whether a client with this token may come in. Everyone may where pairing is off.
    pub(super) fn accepts(&self, token: &str) -> bool {
        if !self.required {
            return true;
        }
        let hash: TokenHash = Sha256::digest(token).into();
        // Not `any`: every stored token is compared, so that the time says nothing about which one matched.
        self.inner().tokens.iter().fold(false, |found, stored| found | bool::from(stored.ct_eq(&hash)))
    }

    /// Takes a code. The right one works once; every other try counts, also a missing or used code.
    pub(super) fn attempt(&self, code: &str, client: ClientKey, now: Instant) -> Attempt {
        let mut inner = self.inner();
        if let Some(failures) = inner.failures.get(&client) {
            let since = now.duration_since(failures.last);
            if since >= self.lockout {
                inner.failures.remove(&client);
            } else if failures.count >= self.max_failures {
                return Attempt::LockedOut(self.lockout - since);
            }
        }
        if inner.code.as_ref().and_then(|code| code.until).is_some_and(|until| now >= until) {
            inner.code = None;
        }
        let right = inner
            .code
            .as_ref()
            .is_some_and(|expected| expected.text.expose().as_bytes().ct_eq(code.trim().as_bytes()).into());
        if !right {
            self.note_failure(&mut inner, client, now);
            return Attempt::Refused;
        }
        let token = new_token();
        inner.code = None;
        inner.failures.remove(&client);
        inner.tokens.push(Sha256::digest(token.expose()).into());
        Attempt::Paired(token)
    }

    fn note_failure(&self, inner: &mut Inner, client: ClientKey, now: Instant) {
        if inner.failures.len() >= self.max_clients && !inner.failures.contains_key(&client) {
            let oldest = inner.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(client, _)| *client);
            oldest.map(|client| inner.failures.remove(&client));
        }
        let failures = inner.failures.entry(client).or_insert(Failures { count: 0, last: now });
        failures.count += 1;
        failures.last = now;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stored token is its hash in hex; anything else is a token in clear text from an old file.
fn parse_stored(stored: &str) -> TokenHash {
    unhex(stored).unwrap_or_else(|| Sha256::digest(stored).into())
}

fn new_code(format: CodeFormat) -> Secret<String> {
    let mut random = OsRng.unwrap_err();
    let mut pick = |from: &[u8], count: usize| -> String {
        (0..count).map(|_| char::from(from[random.random_range(0..from.len())])).collect()
    };
    Secret::new(match format {
        CodeFormat::Numeric6 => pick(b"0123456789", 6),
        CodeFormat::Alnum8 => format!("{}-{}", pick(CODE_LETTERS, 4), pick(CODE_DIGITS, 4)),
    })
}

fn new_token() -> Secret<String> {
    let bytes: [u8; TOKEN_BYTES] = OsRng.unwrap_err().random();
    Secret::new(format!("zc_{}", hex(&bytes)))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<TokenHash> {
    let mut bytes = TokenHash::default();
    if text.len() != bytes.len() * 2 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn client(last: u8) -> ClientKey {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn pairing() -> (Pairing, String) {
        let pairing = Pairing::new(&Config::default());
        let code = pairing.code().unwrap().expose().clone();
        (pairing, code)
    }

    #[test]
    fn a_code_works_once_and_its_token_from_then_on() {
        let (pairing, code) = pairing();
        let now = Instant::now();
        assert!(!pairing.accepts("anything") && !pairing.is_paired());
        let Attempt::Paired(token) = pairing.attempt(&format!(" {code} "), client(1), now) else { panic!() };
        assert!(token.expose().starts_with("zc_") && token.expose().len() == 67);
        assert!(pairing.accepts(token.expose()) && pairing.is_paired() && pairing.code().is_none());
        assert!(matches!(pairing.attempt(&code, client(1), now), Attempt::Refused));
    }

    #[test]
    fn a_new_code_pairs_one_more_client_and_expires() {
        let (pairing, first) = pairing();
        let now = Instant::now();
        let Attempt::Paired(phone) = pairing.attempt(&first, client(1), now) else { panic!() };
        let second = pairing.renew(now).unwrap();
        let third = pairing.renew(now).unwrap();
        assert!(matches!(pairing.attempt(second.expose(), client(1), now), Attempt::Refused), "it was replaced");
        let Attempt::Paired(laptop) = pairing.attempt(third.expose(), client(1), now) else { panic!() };
        assert!(pairing.accepts(phone.expose()) && pairing.accepts(laptop.expose()));
        let late = pairing.renew(now).unwrap();
        assert!(matches!(pairing.attempt(late.expose(), client(1), now + CODE_LIFETIME), Attempt::Refused));
        let mut open = Config::default();
        open.gateway.require_pairing = false;
        assert!(Pairing::new(&open).renew(now).is_none());
    }

    #[test]
    fn stored_hashes_and_old_clear_tokens_are_known_after_a_restart() {
        let mut config = Config::default();
        config.gateway.paired_tokens = vec![hex(&Sha256::digest("zc_one")).into(), "zc_two".to_owned().into()];
        let pairing = Pairing::new(&config);
        assert!(pairing.accepts("zc_one") && pairing.accepts("zc_two") && !pairing.accepts("zc_three"));
        assert!(pairing.code().is_none());
        assert!(pairing.stored_tokens().iter().all(|stored| stored.len() == 64));
    }

    #[test]
    fn failures_lock_out_their_client_alone_until_the_time_is_over() {
        let (pairing, code) = pairing();
        let start = Instant::now();
        for _ in 0..3 {
            assert!(matches!(pairing.attempt("nope", client(1), start), Attempt::Refused));
        }
        let Attempt::LockedOut(wait) = pairing.attempt(&code, client(1), start + Duration::from_secs(1)) else {
            panic!("the right code must be refused too")
        };
        assert_eq!(wait, Duration::from_secs(299));
        assert!(matches!(pairing.attempt("nope", client(2), start), Attempt::Refused));
        assert!(matches!(pairing.attempt(&code, client(1), start + Duration::from_secs(300)), Attempt::Paired(_)));
    }

    #[test]
    fn both_code_forms_look_as_documented() {
        for _ in 0..50 {
            let numeric = new_code(CodeFormat::Numeric6).expose().clone();
            assert!(numeric.len() == 6 && numeric.bytes().all(|b| b.is_ascii_digit()), "{numeric}");
            let alnum = new_code(CodeFormat::Alnum8).expose().clone();
            let (letters, digits) = alnum.split_once('-').unwrap();
            assert!(letters.len() == 4 && letters.bytes().all(|b| b.is_ascii_uppercase()), "{alnum}");
            assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{alnum}");
        }
    }

    #[test]
    fn with_pairing_off_everyone_may_come_in_and_nobody_can_pair() {
        let mut config = Config::default();
        config.gateway.require_pairing = false;
        let pairing = Pairing::new(&config);
        assert!(pairing.accepts("") && pairing.code().is_none());
        assert!(matches!(pairing.attempt("", client(1), Instant::now()), Attempt::Refused));
    }
}
