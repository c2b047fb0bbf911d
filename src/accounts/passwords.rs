//! The slow hash of passwords: Argon2id, on threads of its own, a few at a time.
//!
//! A hash takes 19 MiB and tens of milliseconds of a core, by intention. So there is a bound on those at work, and one on
//! those that wait: beyond it the service says that it is busy, which costs nothing. Their threads give way to all others:
//! else whoever guesses passwords would slow down everybody's requests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::domain::{Password, PasswordHash, Secret};

/// At work at once.
const AT_WORK: usize = 2;
/// At work and waiting.
const MAX_WAITING: usize = 32;
/// Of 19: a tenth of the weight of a thread that serves requests.
#[cfg(feature = "server")]
const NICENESS: i32 = 10;
/// How long one may wait for its turn: all those before it have had theirs by then.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Too many sign-ins at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

/// Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Pool>);

struct Pool {
    waiting: Semaphore,
    at_work: Arc<Semaphore>,
    /// What is compared where there is nothing to compare with, so that an unknown address takes as long as a known one.
    nobodys: OnceLock<PasswordHash>,
}

impl Default for Passwords {
    fn default() -> Self {
        let (waiting, at_work) = (Semaphore::new(MAX_WAITING), Arc::new(Semaphore::new(AT_WORK)));
        Self(Arc::new(Pool { waiting, at_work, nobodys: OnceLock::new() }))
    }
}

impl Passwords {
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Busy> {
        self.work(move |_| hash(password.expose())).await?.ok_or(Busy)
    }

    /// Whether this is the password. Takes as long where there is none to compare with.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn verify(&self, presented: Secret<String>, kept: Option<PasswordHash>) -> Result<bool, Busy> {
        self.work(move |pool| {
            // A longer one was never accepted, and would cost more.
            let fits = presented.expose().len() <= Password::MAX_BYTES;
            let text = if fits { presented.expose().as_str() } else { "" };
            let known = kept.is_some() && fits;
            // Made at the first check of all, whoever it is for.
            let nobodys = || hash("nobody's password").unwrap_or(PasswordHash::from_phc(String::new()));
            let nobodys = pool.nobodys.get_or_init(nobodys);
            let kept = kept.as_ref().unwrap_or(nobodys);
            verify(text, kept) && known
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce(&Pool) -> T + Send + 'static) -> Result<T, Busy> {
        let _waiting = self.0.waiting.try_acquire().map_err(|_| Busy)?;
        let turn = timeout(TURN_WITHIN, self.0.at_work.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let pool = Arc::clone(&self.0);
        let (done, answer) = oneshot::channel();
        // The turn goes along: a caller who leaves does not end the work.
        let thread = std::thread::Builder::new().name("passwords".into()).spawn(move || {
            give_way();
            let _ = done.send(work(&pool));
            drop(turn);
        });
        // No thread to be had is one more way of having too much to do.
        thread.map_err(|_| Busy)?;
        answer.await.map_err(|_| Busy)
    }
}

/// Lets this thread have what the others leave. For good: only a privileged one could take it back.
fn give_way() {
    #[cfg(feature = "server")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread for passwords keeps its priority");
    }
}

/// With the costs that OWASP's cheat sheet has for Argon2id: 19 MiB, two passes, one lane; they are the crate's own.
fn hash(text: &str) -> Option<PasswordHash> {
    let hash = Argon2::default().hash_password(text.as_bytes());
    hash.map(|hash| PasswordHash::from_phc(hash.to_string())).ok()
}

fn verify(text: &str, kept: &PasswordHash) -> bool {
    let Ok(kept) = Phc::new(kept.as_phc()) else { return false };
    Argon2::default().verify_password(text.as_bytes(), &kept).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_accepted_and_nothing_where_there_is_none() {
        let passwords = Passwords::default();
        let wanted = || Password::parse(Secret::from("correct horse battery")).unwrap();
        let kept = passwords.hash(wanted()).await.unwrap();
        assert!(kept.as_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", kept.as_phc());
        assert_ne!(kept, passwords.hash(wanted()).await.unwrap(), "each has a salt of its own");
        let check = async |text: &str, kept: Option<PasswordHash>| passwords.verify(Secret::from(text), kept).await;
        assert_eq!(check("correct horse battery", Some(kept.clone())).await, Ok(true));
        for wrong in ["", "correct horse batterz", &"x".repeat(100_000)] {
            assert_eq!(check(wrong, Some(kept.clone())).await, Ok(false));
        }
        assert_eq!(check("nobody's password", None).await, Ok(false));
        assert_eq!(format!("{kept:?}"), "[password hash]");
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_at_once() {
        let passwords = Passwords::default();
        let all = passwords.0.at_work.acquire_many(AT_WORK as u32).await.unwrap();
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify(Secret::from("x"), None).await })
            })
            .collect();
        while passwords.0.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.verify(Secret::from("x"), None).await, Err(Busy));
        drop(all);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Ok(false));
        }
    }
}
