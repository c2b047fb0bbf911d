//! The image: there, or pulled, with progress, a deadline and a few attempts.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use super::engine::{Engine, Failure, read, there};
use super::options::DockerOptions;
use crate::runtime::{Progress, RuntimeError, RuntimeResult};

/// How often a pull is tried that fails for a reason which may pass, and how long it waits before the second attempt;
/// the wait doubles.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// A pull that shows no progress for so long has lost its registry.
const SILENCE: Duration = Duration::from_secs(90);

/// The image is there afterwards.
pub(super) async fn ensure(
    engine: &Engine,
    options: &DockerOptions,
    image: &str,
    progress: &Progress,
) -> RuntimeResult<()> {
    let docker = engine.docker().await?;
    if there(read(docker.inspect_image(image)).await)?.is_some() {
        return Ok(());
    }
    progress(format!("pulling image {image}"));
    let pulled = tokio::time::timeout(options.pull_deadline, pull_with_retries(docker, image, progress)).await;
    match pulled {
        Ok(Ok(())) => {
            progress(format!("image {image} is there"));
            Ok(())
        }
        Ok(Err(Failure::Away(why))) => Err(RuntimeError::Unavailable(why)),
        Ok(Err(Failure::Refused(_, why) | Failure::Lost(why))) => Err(absent(image, &why)),
        Err(_) => Err(absent(image, &format!("no end after {} s", options.pull_deadline.as_secs()))),
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

/// A registry that says no says it again.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Away(_) => false,
        Failure::Lost(_) => true,
        Failure::Refused(400..=499, _) => false,
        Failure::Refused(_, message) => {
            !["not found", "unknown", "denied", "unauthorized", "no such host", "invalid reference"]
                .iter()
                .any(|verdict| message.contains(verdict))
        }
    }
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
    fn a_verdict_is_not_asked_for_again() {
        let refused = |message: &str| Failure::Refused(500, message.into());
        assert!(!may_pass(&refused("manifest unknown")));
        assert!(!may_pass(&refused("pull access denied")));
        assert!(!may_pass(&refused("dial tcp: lookup ghcr.io: no such host")));
        assert!(may_pass(&refused("net/http: TLS handshake timeout")));
        assert!(may_pass(&Failure::Lost("reset".into())));
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
