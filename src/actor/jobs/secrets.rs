//! An agent's secrets, opened for the job that needs them.

use crate::actor::Services;
use crate::domain::{Credentials, Secret};
use crate::lifecycle::{Cause, Code, Failure, FailureKind};
use crate::store::AgentRecord;
use crate::vault::Binding;

/// The agent's secrets in clear text.
pub fn open_credentials(services: &Services, record: &AgentRecord) -> Result<Credentials, Failure> {
    let open = |field, sealed| {
        services.vault.open(&Binding::agent(record.id, field), sealed).map_err(|error| Failure {
            kind: FailureKind::Permanent,
            cause: Cause::because(Code::SecretsUnreadable, error.to_string()),
        })
    };
    let api_key = record.api_key.as_ref().map(|sealed| open(API_KEY_FIELD, sealed)).transpose()?;
    let channels = record.channels.as_ref().map(|sealed| open(CHANNELS_FIELD, sealed)).transpose()?;
    let unreadable = || Failure {
        kind: FailureKind::Permanent,
        cause: Cause::because(Code::SecretsUnreadable, "they are not what was sealed"),
    };
    Ok(Credentials {
        api_key: api_key.map(|bytes| text(&bytes).ok_or_else(unreadable)).transpose()?,
        channels: channels
            .map(|bytes| serde_json::from_slice(bytes.expose()).map_err(|_| unreadable()))
            .transpose()?
            .unwrap_or_default(),
    })
}

/// Secrets that the agent had before; none where they cannot be read.
pub fn open_retired(services: &Services, record: &AgentRecord) -> Vec<Secret<String>> {
    let opened = record.retired.as_ref().and_then(|sealed| {
        let bytes = services.vault.open(&Binding::agent(record.id, RETIRED_FIELD), sealed).ok()?;
        serde_json::from_slice::<Vec<String>>(bytes.expose()).ok()
    });
    opened.unwrap_or_default().into_iter().map(Secret::new).collect()
}

/// The names that an agent's secrets are sealed under.
pub const API_KEY_FIELD: &str = "api_key";
pub const CHANNELS_FIELD: &str = "channels";
pub const TOKEN_FIELD: &str = "token";
pub const RETIRED_FIELD: &str = "retired";

/// The held token in clear text; `None` where there is none, or none that can be read: the agent then pairs anew.
pub fn open_token(services: &Services, record: &AgentRecord) -> Option<Secret<String>> {
    let sealed = record.token.as_ref()?;
    services.vault.open(&Binding::agent(record.id, TOKEN_FIELD), sealed).ok().and_then(|bytes| text(&bytes))
}

fn text(bytes: &Secret<Vec<u8>>) -> Option<Secret<String>> {
    std::str::from_utf8(bytes.expose()).ok().map(Secret::from)
}
