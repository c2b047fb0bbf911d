//! An upgrade tried beforehand: the new image on a copy of the agent's data, in an instance and a network of its own.
//!
//! No channel is connected; the agent itself runs on and notices nothing. What is shown: the image starts with the
//! configuration that it would get, takes the agent's token, finds the memory, and answers a message where the agent has what
//! its model needs. A model that fails the present version too is no fault of the new one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::migration::{MEMORY, migrate};
use super::snapshot::snapshot;
use super::{JobInput, instance_spec, key_of, launch, open_credentials, open_token, pairing, probe, runtime_failure};
use crate::actor::Services;
use crate::domain::{
    AgentId, Credentials, Exit, HostPort, PortRange, Secret, Slug, Software, StagedFile, Upgrade, UpgradeStage,
};
use crate::lifecycle::{AgentState, Failure};
use crate::runtime::{DataPolicy, InstanceKey, InstanceSpec, InstanceState, LogQuery, Run, RuntimeError};
use crate::store::AgentRecord;
use crate::view::AgentView;
use crate::zeroclaw::client::{GatewayError, ModelFailure, SentMark, WebhookAnswer, WebhookCall};
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::migration::{Carry, belongs, carry, folders, is_whole, layout, untold};
use crate::zeroclaw::workspace::CONFIG_PATH;

/// How long it may take, its memory told included.
const REHEARSAL: Duration = Duration::from_secs(240);
/// What it is asked, and how long the answer may take.
const PROBE: &str = r#"{"message":"Reply with OK."}"#;
const ANSWER: Duration = Duration::from_secs(60);
/// How often it is looked whether the instance has ended by itself.
const LOOK: Duration = Duration::from_millis(200);
/// Ports that are tried; strangers may hold some.
const PORTS: usize = 8;
/// Lines of output that are shown of an image that did not start.
const LAST_LINES: usize = 3;
const LINE_SHOWN: usize = 200;

/// What is to be tried.
pub struct Rehearsal {
    pub view: Arc<AgentView>,
    pub upgrade: Arc<Upgrade>,
    /// The instance that it is tried in; one of that name that is left from before is removed.
    pub instance: AgentId,
}

/// All that the agent's gateway remembers; `None` while it does not run.
pub async fn remembered(services: &Services, view: &AgentView) -> Option<Result<Vec<MemoryEntry>, GatewayError>> {
    let access = view.access.as_ref()?;
    Some(services.gateway.memory(access.endpoint, &access.token, MEMORY).await)
}

impl Rehearsal {
    pub fn key(&self) -> InstanceKey {
        let hex = self.instance.to_string().replace('-', "");
        let slug = Slug::suggest(&format!("rehearsal {}", &hex[hex.len().saturating_sub(12)..]));
        InstanceKey { agent: self.instance, slug }
    }

    /// Tries it, and removes what it made. An error is a sentence for people, without secrets.
    pub async fn run(&self, services: &Services, entries: Option<&[MemoryEntry]>) -> Result<(), String> {
        let credentials = Credentials {
            api_key: open_credentials(services, &self.view.record).map_err(|failure| failure.cause.message())?.api_key,
            ..Credentials::default()
        };
        let late = |_| Err("it did not become usable in time".to_owned());
        let tried = timeout(REHEARSAL, self.attempts(services, &credentials, entries)).await.unwrap_or_else(late);
        if let Err(error) = services.runtime.remove(&self.key(), DataPolicy::Remove).await {
            tracing::warn!(instance = %self.instance, %error, "the instance of a rehearsal could not be removed yet");
        }
        tried
    }

    async fn attempts(
        &self,
        services: &Services,
        credentials: &Credentials,
        entries: Option<&[MemoryEntry]>,
    ) -> Result<(), String> {
        for port in self.ports(services) {
            match self.perform(services, credentials, port, entries).await {
                Ok(()) => return Ok(()),
                Err(Trouble::PortTaken) => {}
                Err(Trouble::Says(why)) => return Err(redacted(&why, credentials)),
            }
        }
        Err("no port is free for it".to_owned())
    }

    fn ports(&self, services: &Services) -> Vec<Option<HostPort>> {
        if !services.runtime.caps().host_ports {
            return vec![None];
        }
        let taken = services.views.ids().into_iter().filter_map(|id| services.views.get(id)?.port).collect();
        candidates(services.settings.ports, &taken, self.instance.seed()).into_iter().map(Some).collect()
    }

    async fn perform(
        &self,
        services: &Services,
        credentials: &Credentials,
        port: Option<HostPort>,
        entries: Option<&[MemoryEntry]>,
    ) -> Result<(), Trouble> {
        let (key, backend) = (self.key(), self.view.record.spec.memory_backend);
        let mut files = self.copy(services).await?;
        let copied = files.len();
        let is_told = carry(self.upgrade.from.profile, self.upgrade.to.profile, backend) == Carry::Tell;
        files.extend(entries.filter(|_| is_told).map(untold));
        let (mut input, run) = self.launch(services, credentials, port, &self.upgrade.to, &files).await?;
        input.record.untold = is_told;
        let unanswered = tokio::select! {
            proven = prove(services, &input, credentials, entries) => proven?,
            exit = ended(services, &key, &run) => {
                return Err(Trouble::Says(self.end(services, &key, &run, &exit).await));
            }
        };
        let Some(why) = unanswered else { return Ok(()) };
        // Is it the new version, or the model? The agent itself is not asked: it would remember the question.
        let (input, _) = self.launch(services, credentials, port, &self.upgrade.from, &files[..copied]).await?;
        if prove(services, &input, credentials, None).await?.is_none() {
            return Err(Trouble::Says(format!("a message that the present version answers failed: {why}")));
        }
        tracing::info!(agent = %self.view.record.id, why, "no message is answered, by the present version neither");
        Ok(())
    }

    /// Starts a version on these files, in place of what was in the instance before.
    async fn launch(
        &self,
        services: &Services,
        credentials: &Credentials,
        port: Option<HostPort>,
        software: &Software,
        files: &[StagedFile],
    ) -> Result<(JobInput, Run), Trouble> {
        let (runtime, key) = (&services.runtime, self.key());
        runtime.remove(&key, DataPolicy::Remove).await?;
        let mut input = self.input(services, port, software);
        let spec = apart(instance_spec(services, &input, credentials, Some(software)));
        runtime.ensure_created(&spec).await?;
        runtime.write_data(&key, files).await?;
        if *software == self.upgrade.to {
            let forward = Upgrade { stage: UpgradeStage::Forward, ..Upgrade::clone(&self.upgrade) };
            migrate(services, &key, &forward, self.view.record.spec.memory_backend).await?;
        }
        let run = launch::started(services, &key).await?;
        input.run = Some(run.clone());
        Ok((input, run))
    }

    /// The data that the new version would find: memory, the agent's files, key file; no configuration.
    async fn copy(&self, services: &Services) -> Result<Vec<StagedFile>, Trouble> {
        let profile = self.upgrade.from.profile;
        let key = key_of(&self.view.record);
        let wanted = |path: &str| belongs(profile, path);
        let mut files = snapshot(services, &key, layout(profile).roots, &wanted).await?;
        // Written once and for all.
        let others = snapshot(services, &key, &[folders(profile)[0]], &|path| path.ends_with("/.secret_key")).await?;
        files.extend(others);
        debug_assert!(!files.iter().any(|file| file.path == CONFIG_PATH));
        Ok(files)
    }

    fn input(&self, services: &Services, port: Option<HostPort>, software: &Software) -> JobInput {
        let original = &self.view.record;
        JobInput {
            record: copied(original, self.key(), software),
            port,
            limits: services.accounts.limits_of(original.user),
            stage: true,
            token: open_token(services, original),
            run: None,
        }
    }

    /// How an instance ended that should run, with its last words.
    async fn end(&self, services: &Services, key: &InstanceKey, run: &Run, exit: &Exit) -> String {
        let lines = match services.runtime.logs(key, last_output(run)).await {
            Ok(lines) => lines.try_collect::<Vec<_>>().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        told(exit, lines.iter().map(|line| line.text.as_str()))
    }
}

/// Ports to try, from the end of the range: new agents get ports from its beginning. Rehearsals at the same time begin at
/// different places, if there is room.
fn candidates(range: PortRange, taken: &HashSet<HostPort>, seed: u64) -> Vec<HostPort> {
    let mut free: Vec<HostPort> =
        HostPort::all().filter(|port| range.contains(*port) && !taken.contains(port)).collect();
    free.reverse();
    let first = usize::try_from(seed % 64).unwrap_or_default().min(free.len().saturating_sub(PORTS));
    free.into_iter().skip(first).take(PORTS).collect()
}

/// The agent as another instance of it: with none of its secrets, and never started.
fn copied(original: &AgentRecord, key: InstanceKey, software: &Software) -> AgentRecord {
    AgentRecord {
        id: key.agent,
        slug: key.slug,
        api_key: None,
        channels: None,
        channel_kinds: Vec::new(),
        token: None,
        retired: None,
        software: Some(Arc::new(software.clone())),
        upgrade: None,
        state: AgentState::new(),
        ..original.clone()
    }
}

/// Where it meets nobody: in a network of its own, without a public name, and nothing to make a record from.
fn apart(spec: InstanceSpec) -> InstanceSpec {
    InstanceSpec { own_network: true, origin: None, host_name: None, ..spec }
}

/// How an instance ended, and what it said at the end.
fn told<'a>(exit: &Exit, lines: impl Iterator<Item = &'a str>) -> String {
    let code = exit.code.map_or_else(String::new, |code| format!(" with exit code {code}"));
    let texts = lines.map(|line| line.trim().chars().take(LINE_SHOWN).collect::<String>());
    let said = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" / ");
    if said.is_empty() { format!("it ended{code}") } else { format!("it ended{code}, and its last output was: {said}") }
}

fn last_output(run: &Run) -> LogQuery {
    LogQuery { run_id: Some(run.run_id.clone()), tail: Some(LAST_LINES), ..LogQuery::default() }
}

/// Why a rehearsal went no further.
enum Trouble {
    PortTaken,
    Says(String),
}

impl From<RuntimeError> for Trouble {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::PortTaken(_) => Self::PortTaken,
            error => runtime_failure(&error).into(),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Says(failure.cause.message())
    }
}

/// Healthy, paired, usable, and it remembers. Gives why it answered no message, where the agent has what its model needs.
async fn prove(
    services: &Services,
    input: &JobInput,
    credentials: &Credentials,
    entries: Option<&[MemoryEntry]>,
) -> Result<Option<String>, Trouble> {
    let going_on = CancellationToken::new();
    probe(services, input, &going_on).await?;
    let token = pairing::pair(services, input, &going_on).await?.token;
    let (Some(token), Some(run)) = (token, &input.run) else { return Ok(None) };
    if let Some(entries) = entries {
        remembers(services, run.endpoint, &token, entries).await?;
    }
    let can_ask = !input.record.spec.provider.needs_key() || credentials.api_key.is_some();
    Ok(if can_ask { answers(services, run.endpoint, &token).await.err() } else { None })
}

/// It knows what the agent knew.
async fn remembers(
    services: &Services,
    at: SocketAddr,
    token: &Secret<String>,
    entries: &[MemoryEntry],
) -> Result<(), Trouble> {
    let known = services.gateway.memory(at, token, MEMORY).await;
    let known = known.map_err(|error| Trouble::Says(format!("what it remembers cannot be read: {error}")))?;
    let (before, after) = (entries.len(), known.len());
    if is_whole(before as u64, after as u64) {
        return Ok(());
    }
    Err(Trouble::Says(format!("of {before} entries of memory it finds {after}")))
}

/// Sends a message as short as one can be, and says why there was no answer.
async fn answers(services: &Services, at: SocketAddr, token: &Secret<String>) -> Result<(), String> {
    let call = WebhookCall {
        body: PROBE.into(),
        request_id: None,
        traceparent: None,
        session: None,
        sent: SentMark::default(),
    };
    let answer = services.gateway.webhook(at, token, call, services.settings.limits.answer.min(ANSWER)).await;
    judged(&answer.map_err(|error| error.to_string())?)
}

/// Why this is no answer of a model.
fn judged(answer: &WebhookAnswer) -> Result<(), String> {
    match ModelFailure::read(answer) {
        Some(failure) => Err(failure.message),
        None if answer.status == 200 => Ok(()),
        None => Err(format!("its gateway answered {}", answer.status)),
    }
}

/// Resolves when the run is over.
async fn ended(services: &Services, key: &InstanceKey, run: &Run) -> Exit {
    loop {
        sleep(LOOK).await;
        let Ok(Some(seen)) = services.runtime.observe(key).await else { continue };
        match seen.state {
            InstanceState::Exited(exit) => return exit,
            InstanceState::Running(other) if other.run_id != run.run_id => return seen.died.unwrap_or_default(),
            InstanceState::Created
            | InstanceState::Starting(_)
            | InstanceState::Running(_)
            | InstanceState::Paused(_)
            | InstanceState::Ending(_)
            | InstanceState::Unreachable(_) => {}
        }
    }
}

/// What an image says may hold what it was given.
fn redacted(text: &str, credentials: &Credentials) -> String {
    credentials.secrets().fold(text.to_owned(), |text, secret| text.replace(secret.expose().as_str(), "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentSpec, ChannelKind, Limits, Origin, Plan, Profile, Provider, RunId, Timestamp, UserId};
    use crate::vault::{Binding, MasterKey, MasterKeySource, Vault};

    fn port(number: u16) -> HostPort {
        HostPort::try_from(number).unwrap()
    }

    #[test]
    fn ports_are_tried_from_the_end_of_the_range_and_none_that_an_agent_has() {
        let hundred = PortRange::from(port(40_000), 100).unwrap();
        let numbers = |range, taken: &[u16], seed| -> Vec<u16> {
            let taken = taken.iter().copied().map(port).collect();
            candidates(range, &taken, seed).into_iter().map(HostPort::get).collect()
        };
        let from = |first: u16| (0..8).map(|nth| first - nth).collect::<Vec<_>>();
        assert_eq!(numbers(hundred, &[], 0), from(40_099));
        assert_eq!(numbers(hundred, &[], 5), from(40_094), "rehearsals at the same time begin at different places");
        assert_eq!(numbers(hundred, &[], 63), from(40_036));
        assert_eq!(numbers(hundred, &[], 64 * 1000 + 5), from(40_094), "and none far from the end");
        let around = [40_099, 40_097, 40_091];
        let free = [40_098, 40_096, 40_095, 40_094, 40_093, 40_092, 40_090, 40_089];
        assert_eq!(numbers(hundred, &around, 64), free);
        let ten = PortRange::from(port(40_000), 10).unwrap();
        assert_eq!(numbers(ten, &[], 63), from(40_007), "where there is little room, the lowest");
        assert_eq!(numbers(PortRange::from(port(40_000), 2).unwrap(), &[40_001], 1), [40_000]);
    }

    #[test]
    fn copy_that_is_tried_has_none_of_the_agents_secrets() {
        let key = MasterKeySource::Value(Secret::new("5".repeat(64)));
        let vault = Vault::new(&MasterKey::load(key).unwrap());
        let spec = Arc::new(AgentSpec::new("Ada", Provider::Openai, "gpt"));
        let ada = AgentId::new();
        let (from, to) = (Software::new(Profile::V01), Software::new(Profile::V08));
        let stage = UpgradeStage::Forward;
        let since = Timestamp::UNIX_EPOCH;
        let upgrade = Upgrade { from: from.clone(), to: to.clone(), stage, since, remembered: None, why: None };
        let sealed = |field| Some(vault.seal(&Binding::agent(ada, field), b"secret"));
        let original = AgentRecord {
            api_key: sealed("api_key"),
            channels: sealed("channels"),
            channel_kinds: vec![ChannelKind::Telegram],
            token: sealed("token"),
            retired: sealed("retired"),
            software: Some(Arc::new(from)),
            upgrade: Some(Arc::new(upgrade)),
            state: AgentState { generation: 7, ..AgentState::new() },
            ..AgentRecord::new(ada, UserId::new(), Slug::parse("ada").unwrap(), since, Arc::clone(&spec))
        };
        let key = InstanceKey { agent: AgentId::new(), slug: Slug::parse("rehearsal-1").unwrap() };
        let copy = copied(&original, key.clone(), &to);
        // What a new agent of the same owner and wishes would be, but for what it is made from.
        let new = AgentRecord::new(key.agent, original.user, key.slug, since, spec);
        assert_eq!(copy, AgentRecord { software: Some(Arc::new(to)), ..new });
    }

    #[test]
    fn instance_that_is_tried_meets_nobody() {
        let key = InstanceKey { agent: AgentId::new(), slug: Slug::parse("rehearsal-1").unwrap() };
        let spec = Arc::new(AgentSpec::new("Ada", Provider::Openai, "gpt"));
        let (user, created_at, channels) = (UserId::new(), Timestamp::UNIX_EPOCH, Vec::new());
        let limits: Limits = Plan::Free.limits();
        let wanted = InstanceSpec::new(key, vec!["gateway".into()], limits)
            .with_port(port(40_000))
            .with_host_name("ada.example.org")
            .with_origin(Arc::new(Origin { user, created_at, spec, channels }));
        let tried = apart(wanted.clone());
        assert!(tried.own_network);
        assert_eq!((tried.host_name, tried.origin.is_none()), (None, true));
        assert_eq!((tried.key, tried.command, tried.port), (wanted.key, wanted.command, wanted.port));
    }

    #[test]
    fn of_an_image_that_ended_the_last_lines_of_that_run_are_shown() {
        let run = Run::new(RunId("b2".into()), Timestamp::UNIX_EPOCH, ([127, 0, 0, 1], 40_000).into());
        let query = last_output(&run);
        assert_eq!((query.run_id, query.tail, query.follow), (Some(run.run_id), Some(3), false));
    }

    #[test]
    fn end_is_told_with_the_exit_code_and_the_last_words() {
        let exit = Exit::with_code(3);
        assert_eq!(told(&Exit::default(), std::iter::empty()), "it ended");
        assert_eq!(told(&exit, ["", "  "].into_iter()), "it ended with exit code 3");
        let lines = ["  Error: no config ", "", "bye"];
        let wanted = "it ended with exit code 3, and its last output was: Error: no config / bye";
        assert_eq!(told(&exit, lines.into_iter()), wanted);
        let long = "x".repeat(500);
        assert!(told(&exit, std::iter::once(long.as_str())).ends_with(&format!(": {}", "x".repeat(LINE_SHOWN))));
    }

    #[test]
    fn only_a_message_that_was_answered_counts() {
        let answer = |status, body: &'static str| judged(&WebhookAnswer::new(status, body));
        assert_eq!(answer(200, r#"{"response":"OK"}"#), Ok(()));
        for status in [202, 401, 429, 503] {
            assert_eq!(answer(status, "{}"), Err(format!("its gateway answered {status}")));
        }
        let failed = answer(500, r#"{"error":"LLM request failed"}"#).unwrap_err();
        assert!(failed.contains("the model failed"), "{failed}");
    }
}
