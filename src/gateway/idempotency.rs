//! `X-Idempotency-Key`: the same request twice is answered once, and the second time with the first answer.
//!
//! Only a good answer is kept: after a failure the next try is a real one. Two at once do not run twice either; the second
//! waits for the first, and if that one fails, takes its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::config::Config;
use super::reply::Refusal;

/// Longest key, in bytes.
const KEY: usize = 256;

/// SHA-256 of endpoint and key.
type Name = [u8; 32];

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        if self.replayed {
            ([("x-idempotent-replay", "true")], Json(self.body)).into_response()
        } else {
            Json(self.body).into_response()
        }
    }
}

pub(super) struct Idempotency {
    ttl: Duration,
    max_keys: usize,
    answers: Mutex<HashMap<Name, Kept>>,
}

struct Kept {
    /// SHA-256 of the body: a key belongs to one request.
    body: [u8; 32],
    since: Instant,
    answer: Arc<OnceCell<Value>>,
}

/// An answer, and whether it is that of an earlier request.
pub(super) struct Answered {
    pub(super) body: Value,
    pub(super) replayed: bool,
}

impl Idempotency {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            ttl: Duration::from_secs(config.gateway.idempotency_ttl_secs),
            max_keys: config.gateway.idempotency_max_keys.max(1),
            answers: Mutex::default(),
        }
    }

    /// Answers by `work`, unless the headers have a key whose answer is known.
    ///
    /// # Errors
    /// Those of `work`, and [`Refusal::KeyReused`] for a key that came with another body.
    pub(super) async fn answer(
        &self,
        endpoint: &str,
        headers: &HeaderMap,
        body: &[u8],
        work: impl Future<Output = Result<Value, Refusal>> + Send + 'static,
    ) -> Result<Answered, Refusal> {
        let Some(key) = headers.get("x-idempotency-key").filter(|key| !key.is_empty()) else {
            return Ok(Answered { body: work.await?, replayed: false });
        };
        if key.len() > KEY {
            return Err(Refusal::BadBody("X-Idempotency-Key must have at most 256 bytes"));
        }
        let name = Sha256::new().chain_update(endpoint).chain_update([0]).chain_update(key).finalize().into();
        let cell = self.slot(name, Sha256::digest(body).into(), Instant::now())?;
        // In a task of its own: a client that hangs up, which is what a key is for, must not make the retry run the agent
        // and its tools again.
        let work = tokio::spawn(async move {
            let mut replayed = true;
            let answer = cell
                .get_or_try_init(|| {
                    replayed = false;
                    work
                })
                .await?;
            Ok(Answered { body: answer.clone(), replayed })
        });
        work.await.unwrap_or(Err(Refusal::Failed("The answer was interrupted")))
    }

    fn slot(&self, name: Name, body: [u8; 32], now: Instant) -> Result<Arc<OnceCell<Value>>, Refusal> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, kept| now.duration_since(kept.since) < self.ttl);
        if let Some(kept) = answers.get(&name) {
            return if kept.body == body { Ok(kept.answer.clone()) } else { Err(Refusal::KeyReused) };
        }
        if answers.len() >= self.max_keys {
            let oldest = answers.iter().min_by_key(|(_, kept)| kept.since).map(|(name, _)| *name);
            oldest.map(|name| answers.remove(&name));
        }
        let answer = Arc::new(OnceCell::new());
        answers.insert(name, Kept { body, since: now, answer: answer.clone() });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(key: &str) -> HeaderMap {
        [("x-idempotency-key".parse().unwrap(), key.parse().unwrap())].into_iter().collect()
    }

    fn idempotency(change: impl FnOnce(&mut Config)) -> Idempotency {
        let mut config = Config::default();
        change(&mut config);
        Idempotency::new(&config)
    }

    async fn answer(
        to: &Idempotency,
        key: &str,
        body: &str,
        value: Result<i32, Refusal>,
    ) -> Result<(Value, bool), Refusal> {
        let work = async move { value.map(Value::from) };
        let answered = to.answer("/e", &headers(key), body.as_bytes(), work).await?;
        Ok((answered.body, answered.replayed))
    }

    #[tokio::test]
    async fn a_good_answer_is_repeated_and_a_failure_is_not() {
        let idempotency = idempotency(|_| {});
        assert_eq!(answer(&idempotency, "k", "b", Err(Refusal::Busy)).await, Err(Refusal::Busy));
        assert_eq!(answer(&idempotency, "k", "b", Ok(1)).await, Ok((1.into(), false)));
        assert_eq!(answer(&idempotency, "k", "b", Ok(2)).await, Ok((1.into(), true)));
        assert_eq!(answer(&idempotency, "k", "other", Ok(3)).await, Err(Refusal::KeyReused));
        assert_eq!(answer(&idempotency, "", "b", Ok(4)).await, Ok((4.into(), false)));
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_make_the_retry_run_again() {
        let idempotency = idempotency(|_| {});
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let headers = headers("k");
        let work = async move {
            released.await.map_err(|_| Refusal::Busy)?;
            Ok(1.into())
        };
        let hung_up = idempotency.answer("/e", &headers, b"b", work);
        assert!(tokio::time::timeout(Duration::from_millis(20), hung_up).await.is_err());
        let retry = idempotency.answer("/e", &headers, b"b", async { panic!("must not run") });
        release.send(()).unwrap();
        let retry = retry.await.unwrap();
        assert_eq!((retry.body, retry.replayed), (1.into(), true));
    }

    #[tokio::test]
    async fn two_at_once_run_once() {
        let idempotency = idempotency(|_| {});
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let headers = headers("k");
        let slow = idempotency.answer("/e", &headers, b"b", async move {
            released.await.map_err(|_| Refusal::Busy)?;
            Ok(1.into())
        });
        let second = idempotency.answer("/e", &headers, b"b", async { panic!("must not run") });
        let release = async { release.send(()).map_err(|()| Refusal::Busy) };
        let (first, second, _) = tokio::join!(slow, second, release);
        assert_eq!((first.unwrap().body, second.unwrap().replayed), (1.into(), true));
    }

    #[tokio::test]
    async fn answers_expire_and_their_number_is_bounded() {
        let short = idempotency(|config| config.gateway.idempotency_ttl_secs = 0);
        assert_eq!(answer(&short, "k", "b", Ok(1)).await, Ok((1.into(), false)));
        assert_eq!(answer(&short, "k", "b", Ok(2)).await, Ok((2.into(), false)));
        let few = idempotency(|config| config.gateway.idempotency_max_keys = 2);
        for key in ["a", "b", "c"] {
            assert!(answer(&few, key, "b", Ok(1)).await.is_ok());
        }
        assert_eq!(few.answers.lock().unwrap().len(), 2);
    }
}
