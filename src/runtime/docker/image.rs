//! The image: there, or pulled, with progress, a deadline and a few attempts.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::Mutex;

use super::engine::Engine;
use super::failure::Failure;
use super::options::DockerOptions;
use crate::runtime::{Progress, RuntimeError, RuntimeResult};

/// How often a pull is tried that fails for a reason which may pass, and how long it waits before the second attempt;
/// the wait doubles.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// A pull that shows no progress for so long has lost its registry.
const SILENCE: Duration = Duration::from_secs(90);

/// Pulls images, one at a time: agents that are created together wait for one pull.
pub(super) struct Images {
    pulling: Mutex<()>,
}

impl Images {
    pub(super) const fn new() -> Self {
        Self { pulling: Mutex::const_new(()) }
    }

    /// The image is there afterwards.
    pub(super) async fn ensure(
        &self,
        engine: &Engine,
        options: &DockerOptions,
        image: &str,
        progress: &Progress,
    ) -> RuntimeResult<()> {
        if engine.image(image).await?.is_some() {
            return Ok(());
        }
        progress(format!("image {image} is missing, waiting to pull it"));
        let pulled = tokio::time::timeout(options.pull_deadline, async {
            let _one_at_a_time = self.pulling.lock().await;
            // Another one may have pulled it meanwhile.
            if engine.image(image).await?.is_some() {
                return Ok(());
            }
            progress(format!("pulling image {image}"));
            let docker = engine.docker().await?;
            pull_with_retries(docker, image, progress).await.map_err(|failure| not_pulled(image, failure))
        });
        match pulled.await {
            Ok(pulled) => pulled?,
            Err(_) => {
                let deadline = options.pull_deadline.as_secs();
                return Err(RuntimeError::Failed(format!("the image {image} was not pulled within {deadline} s")));
            }
        }
        progress(format!("image {image} is there"));
        Ok(())
    }
}

/// A registry's verdict stays; one that cannot be reached may be there the next time.
fn not_pulled(image: &str, failure: Failure) -> RuntimeError {
    if let Failure::Away(why) = failure {
        return RuntimeError::Unavailable(why);
    }
    let verdict = is_verdict(&failure);
    match failure {
        Failure::Refused(_, why) if verdict => absent(image, &why),
        Failure::Refused(_, why) | Failure::Lost(why) | Failure::Away(why) => RuntimeError::Failed(format!(
            "the image {image} is not on this engine, and its registry cannot be reached now ({why}); it is tried again"
        )),
    }
}

/// What to tell when the image is missing.
pub(super) fn absent(image: &str, why: &str) -> RuntimeError {
    RuntimeError::Invalid(format!(
        "the image {image} is not on this engine and cannot be pulled ({why}): set another one, load it with `docker \
         load`, or build one with scripts/zeroclaw-image"
    ))
}

async fn pull_with_retries(docker: &Docker, image: &str, progress: &Progress) -> Result<(), Failure> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match pull(docker, image, progress).await {
            Err(failure) if may_pass(&failure) => {
                progress(format!("pulling image {image} failed, trying again in {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            ended => return ended,
        }
    }
    pull(docker, image, progress).await
}

/// The last pull is not tried again at once; the agent is, later.
fn may_pass(failure: &Failure) -> bool {
    !matches!(failure, Failure::Away(_)) && !is_verdict(failure)
}

/// Whether the registry, or the engine, said no to this very image: it would say so again.
fn is_verdict(failure: &Failure) -> bool {
    let Failure::Refused(status, message) = failure else { return false };
    let message = message.to_ascii_lowercase();
    let unreachable = [
        "no such host",
        "dial tcp",
        "timeout",
        "temporary failure",
        "server misbehaving",
        "connection refused",
        "connection reset",
        "eof",
        "unreachable",
        "toomanyrequests",
        "too many requests",
        "service unavailable",
        "bad gateway",
        "internal server error",
    ];
    if unreachable.iter().any(|sign| message.contains(sign)) {
        return false;
    }
    let said = [
        "manifest unknown",
        "not found",
        "denied",
        "unauthorized",
        "invalid reference",
        "no matching manifest",
        "repository name",
        "name unknown",
        "not allowed by",
    ];
    said.iter().any(|sign| message.contains(sign)) || matches!(status, 400 | 401 | 403 | 404 | 405)
}

async fn pull(docker: &Docker, image: &str, progress: &Progress) -> Result<(), Failure> {
    let (name, tag) = split(image);
    let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
    let mut steps = std::pin::pin!(docker.create_image(Some(options), None, None::<DockerCredentials>));
    let mut layers = Layers::default();
    loop {
        let step = tokio::time::timeout(SILENCE, steps.next())
            .await
            .map_err(|_| Failure::Lost(format!("no progress for {} s", SILENCE.as_secs())))?;
        let Some(step) = step else { return Ok(()) };
        let step = step?;
        if let Some(error) = step.error_detail {
            return Err(Failure::Refused(500, error.message.unwrap_or_else(|| "no reason given".into())));
        }
        if let Some(percent) = layers.note(&step) {
            progress(format!("pulling image {image} {percent}%"));
        }
    }
}

/// Name and tag for a pull. Without a tag or digest the engine would pull every tag there is.
fn split(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// How far the layers are that a pull has told of.
#[derive(Default)]
struct Layers {
    /// By layer: bytes here, bytes in all.
    bytes: HashMap<String, (i64, i64)>,
    told: i64,
}

impl Layers {
    /// The percentage where it grew. It may stand still while further layers show up, but never goes back.
    fn note(&mut self, step: &CreateImageInfo) -> Option<i64> {
        let detail = step.progress_detail.as_ref()?;
        let (current, total) = (detail.current?, detail.total.filter(|total| *total > 0)?);
        if step.status.as_deref() != Some("Downloading") {
            return None;
        }
        self.bytes.insert(step.id.clone()?, (current, total));
        let (here, all) = self.bytes.values().fold((0, 0), |(a, b), (current, total)| (a + current, b + total));
        let percent = here * 100 / all;
        (percent > self.told).then(|| {
            self.told = percent;
            percent
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_name_and_a_tag() {
        for (image, expected) in [
            ("ghcr.io/zeroclaw-labs/zeroclaw:latest", ("ghcr.io/zeroclaw-labs/zeroclaw", "latest")),
            ("zeroclaw", ("zeroclaw", "latest")),
            ("localhost:5000/zeroclaw", ("localhost:5000/zeroclaw", "latest")),
            ("localhost:5000/zeroclaw:0.1.7", ("localhost:5000/zeroclaw", "0.1.7")),
            ("zeroclaw@sha256:00ff", ("zeroclaw@sha256:00ff", "")),
        ] {
            assert_eq!(split(image), expected);
        }
    }

    #[test]
    fn a_verdict_of_a_registry_is_permanent_and_an_outage_passes() {
        let told = |status, message: &str| not_pulled("x", Failure::refused(status, message));
        for (status, message) in [
            (404, "manifest for x:1 not found: manifest unknown: manifest unknown"),
            (404, "pull access denied for x, repository does not exist or may require 'docker login'"),
            (500, "unauthorized: authentication required"),
            (400, "invalid reference format"),
            (500, "no matching manifest for linux/arm64/v8 in the manifest list entries"),
            (403, "pulling the image is not allowed by the engine or a filter before it"),
        ] {
            assert!(matches!(told(status, message), RuntimeError::Invalid(_)), "{message}");
        }
        for (status, message) in [
            (500, "Get \"https://ghcr.io/v2/\": dial tcp: lookup ghcr.io on 127.0.0.53:53: no such host"),
            (500, "Get \"https://ghcr.io/v2/\": dial tcp 10.0.0.1:443: connect: connection refused"),
            (500, "net/http: TLS handshake timeout"),
            (404, "Head \"https://r/v2/x/manifests/1\": dial tcp: lookup r: Temporary failure in name resolution"),
            (500, "toomanyrequests: You have reached your pull rate limit"),
            (500, "received unexpected HTTP status: 503 Service Unavailable"),
            (500, "whatever nobody listed"),
        ] {
            assert!(matches!(told(status, message), RuntimeError::Failed(_)), "{message}");
            assert!(may_pass(&Failure::refused(status, message)));
        }
        assert!(matches!(not_pulled("x", Failure::Lost("reset".into())), RuntimeError::Failed(_)));
        assert!(matches!(not_pulled("x", Failure::Away("gone".into())), RuntimeError::Unavailable(_)));
    }

    #[test]
    fn progress_grows_by_whole_percents() {
        let step = |id: &str, status: &str, current, total| -> CreateImageInfo {
            serde_json::from_value(serde_json::json!({
                "id": id, "status": status, "progressDetail": {"current": current, "total": total},
            }))
            .unwrap()
        };
        let mut layers = Layers::default();
        assert_eq!(layers.note(&step("a", "Downloading", 50, 100)), Some(50));
        assert_eq!(layers.note(&step("a", "Downloading", 50, 100)), None);
        assert_eq!(layers.note(&step("b", "Downloading", 0, 100)), None, "another layer does not take it back");
        assert_eq!(layers.note(&step("b", "Extracting", 90, 100)), None);
        assert_eq!(layers.note(&step("a", "Downloading", 100, 100)), None);
        assert_eq!(layers.note(&step("b", "Downloading", 100, 100)), Some(100));
    }
}
