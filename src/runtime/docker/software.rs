//! Which ZeroClaw an image holds: by its labels and its tag, and where these leave a doubt by asking the program.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, LogsOptionsBuilder, StartContainerOptions};
use futures_util::TryStreamExt;

use super::answers::Image;
use super::engine::{CHANGE, Engine, change};
use super::{DockerRuntime, container, image};
use crate::domain::{ImageRef, Profile, Software};
use crate::runtime::{ImageChoice, Progress, RuntimeError, RuntimeResult};
use crate::zeroclaw::software::{Clue, ImageClues};

/// The label by which images tell the version of what is in them, and the one by which ours tells its profile.
const VERSION_LABEL: &str = "org.opencontainers.image.version";
const PROFILE_LABEL: &str = "zeroone.profile";

/// How long a program may take to tell its version, and how often it is looked at.
const VERSION: Duration = Duration::from_secs(10);
const VERSION_POLL: Duration = Duration::from_millis(20);

/// What is known of images, by their ids. An id stands for the same content for ever.
#[derive(Default)]
pub(super) struct Clues(Mutex<HashMap<String, Clue>>);

impl DockerRuntime {
    pub(super) async fn software_of(&self, choice: ImageChoice<'_>, progress: &Progress) -> RuntimeResult<Software> {
        let default = self.options.image.as_str();
        match choice {
            ImageChoice::Default => self.named(default, progress).await,
            ImageChoice::Present => {
                let inspected = self.engine.image(default).await?.ok_or(RuntimeError::NotFound)?;
                self.describe(default, &inspected).await
            }
            ImageChoice::Named(name) => self.named(name, progress).await,
            ImageChoice::Kept { key, known } => {
                let known = match known.and_then(|known| known.image.clone()) {
                    Some(image) => Some(image),
                    None => self.find(key).await?.and_then(|found| found.image),
                };
                let Some(known) = known else { return self.named(default, progress).await };
                match self.engine.image(&known.id).await? {
                    Some(inspected) => self.describe(&known.name, &inspected).await,
                    // It was removed from the engine: what its name means now is all that there is.
                    None => self.named(&known.name, progress).await,
                }
            }
        }
    }

    async fn named(&self, name: &str, progress: &Progress) -> RuntimeResult<Software> {
        self.images.ensure(&self.engine, &self.options, name, progress).await?;
        match self.engine.image(name).await? {
            Some(inspected) => self.describe(name, &inspected).await,
            None => Err(image::absent(name, "it was removed a moment ago")),
        }
    }

    async fn describe(&self, name: &str, inspected: &Image) -> RuntimeResult<Software> {
        let missing = || RuntimeError::Failed("the engine did not tell an image's id".into());
        let id = inspected.id.clone().ok_or_else(missing)?;
        let known = self.clues.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let clue = match known {
            Some(clue) => clue,
            None => {
                let clue = self.find_out(name, &id, inspected).await?;
                self.clues.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), clue.clone());
                clue
            }
        };
        let profile = self.options.profile.unwrap_or(clue.profile);
        Ok(Software { profile, version: clue.version, image: Some(ImageRef { name: name.to_owned(), id }) })
    }

    async fn find_out(&self, name: &str, id: &str, inspected: &Image) -> RuntimeResult<Clue> {
        let labels = inspected.config.as_ref().map(|config| &config.labels);
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
        let clues =
            ImageClues { reference: name, profile_label: label(PROFILE_LABEL), version_label: label(VERSION_LABEL) };
        if let Some(clue) = clues.certain() {
            return Ok(clue);
        }
        if let Some(clue) = Clue::of_output(&self.ask_version(id).await?) {
            return Ok(clue);
        }
        Ok(clues.probable().unwrap_or_else(|| {
            tracing::warn!(
                image = name,
                "the image does not tell its version, so it counts as the newest; docker.profile"
            );
            Clue { profile: Profile::V08, version: None }
        }))
    }

    /// What the image's program says to `--version`, in a container of its own without network or data; nothing where it
    /// does not answer in time.
    async fn ask_version(&self, image: &str) -> RuntimeResult<String> {
        let docker = self.engine.docker().await?;
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            user: Some(container::USER.into()),
            cmd: Some(vec!["--version".into()]),
            labels: Some(container::installation_label(self.options.installation)),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                cap_drop: Some(vec!["ALL".into()]),
                security_opt: Some(vec!["no-new-privileges".into()]),
                readonly_rootfs: Some(true),
                memory: Some(256 * 1024 * 1024),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made =
            change(CHANGE, "creating a container", docker.create_container(None::<CreateContainerOptions>, body))
                .await?
                .id;
        let output = tokio::time::timeout(VERSION, version_output(&self.engine, &made)).await;
        if let Err(failure) = self.engine.remove_container("removing a container", &made).await {
            tracing::warn!(container = made, ?failure, "a container that told its version could not be removed");
        }
        // A program that cannot be asked is known by its labels.
        Ok(output.ok().and_then(Result::ok).unwrap_or_default())
    }
}

async fn version_output(engine: &Engine, container: &str) -> RuntimeResult<String> {
    let docker = engine.docker().await?;
    change(CHANGE, "starting a container", docker.start_container(container, None::<StartContainerOptions>)).await?;
    loop {
        let state = engine.inspect(container).await?.and_then(|shown| shown.state).map(|state| state.status);
        if !matches!(state.as_deref(), Some("running" | "created")) {
            break;
        }
        tokio::time::sleep(VERSION_POLL).await;
    }
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("20").build();
    let lines: Vec<LogOutput> =
        docker.logs(container, Some(options)).try_collect().await.map_err(|error| {
            RuntimeError::Unavailable(format!("the engine did not tell a program's output: {error}"))
        })?;
    Ok(lines.iter().map(ToString::to_string).collect())
}
