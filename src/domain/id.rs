//! Identifiers: UUIDv7, so that they sort by creation and are unique without asking anyone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier, later than all that this process made before it.
            #[expect(clippy::new_without_default, reason = "each call makes another one")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// One that was stored before. Anything is taken; only [`new`](Self::new) gives those that sort by creation.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// For storing it.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| "must be a UUID such as 019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a".to_owned())
            }
        }
    };
}

identifier!(
    /// One agent, for its whole life.
    AgentId
);
identifier!(
    /// One sign-in of a person, until it ends.
    SessionId
);
identifier!(
    /// Something that lets a person in once: an invitation, or a link.
    TicketId
);
identifier!(
    /// One user: the owner of agents and API keys.
    UserId
);
identifier!(
    /// One API key; not secret, unlike the key itself.
    KeyId
);
identifier!(
    /// One data folder. Instances carry it, so that two installations on one engine leave each other alone.
    InstallationId
);

impl InstallationId {
    /// A number that differs from installation to installation.
    pub fn seed(&self) -> u64 {
        let (_, random) = self.0.as_u64_pair();
        random
    }
}

impl AgentId {
    /// A number that differs from agent to agent, for jitter: agents that die together must not restart together.
    pub fn seed(&self) -> u64 {
        let (_, random) = self.0.as_u64_pair();
        random
    }
}
