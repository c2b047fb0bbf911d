//! The nouns of the service, each parsed once at the edge and valid from then on.
//!
//! Nothing here knows of a clock, a disk, a network or an actor. Constructors named `parse` take what a caller sent and
//! answer with the value or with a [`FieldError`] that names the field and the remedy, and that never repeats the input:
//! what was sent in the wrong place may be a secret.

mod cell;
mod channels;
mod credentials;
mod field;
mod file;
mod id;
mod identity;
mod issuer;
mod key;
mod model_check;
mod origin;
mod password;
mod patch;
mod plan;
mod port;
mod provider;
mod run;
mod secret;
mod session_name;
mod slug;
mod software;
mod spec;
mod spec_patch;
mod status;
mod time;
mod token;
mod user;

pub use cell::Cell;
pub use channels::{ChannelKind, Channels, Discord, Slack, Telegram};
pub use credentials::Credentials;
pub use field::{FieldError, Problems, is_misleading, label};
pub use file::StagedFile;
pub use id::{AgentId, InstallationId, KeyId, SessionId, TicketId, UserId};
pub use identity::Identity;
pub use issuer::Issuer;
pub use key::{ApiKey, Scope, Scopes};
pub use model_check::{ModelQuestion, ModelRefusal};
pub use origin::Origin;
pub use password::{Password, PasswordHash};
pub use patch::Patch;
pub use plan::{Limits, Plan};
pub use port::{HostPort, PortRange};
pub use provider::{MemoryBackend, Provider};
pub use run::{Exit, RunId};
pub use secret::{Secret, Wipe};
pub use session_name::SessionName;
pub use slug::Slug;
pub use software::{ImageRef, Profile, Software, Upgrade, UpgradeStage};
pub use spec::{AgentSpec, DEFAULT_TEMPERATURE};
pub use spec_patch::{AppliedPatch, SpecPatch};
pub use status::Status;
pub(crate) use time::{elapsed, later};
pub use token::Token;
pub use user::UserStatus;

/// A point in time, UTC, nanosecond precision; RFC 3339 when shown.
pub type Timestamp = jiff::Timestamp;
