//! Identifiers: UUIDv7, so that they sort by creation and are unique without asking anyone.
//!
//! Those of a [`Cell`] are UUIDv8: the same, with the cell's number in place of the last 16 bits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cell::Cell;

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

            /// The same with this cell's number in it.
            #[must_use]
            pub fn in_cell(self, cell: Option<Cell>) -> Self {
                Self(cell.map_or(self.0, |cell| numbered(self.0, cell)))
            }

            /// The cell whose number is in it.
            pub fn cell(&self) -> Option<Cell> {
                number_in(self.0)
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

/// What RFC 9562 leaves to whoever makes it.
const CUSTOM: u8 = 0x80;

fn numbered(id: Uuid, cell: Cell) -> Uuid {
    let mut bytes = *id.as_bytes();
    bytes[6] = (bytes[6] & 0x0f) | CUSTOM;
    bytes[14..].copy_from_slice(&cell.number().to_be_bytes());
    Uuid::from_bytes(bytes)
}

fn number_in(id: Uuid) -> Option<Cell> {
    let bytes = id.as_bytes();
    (bytes[6] & 0xf0 == CUSTOM).then(|| Cell::new(u16::from_be_bytes([bytes[14], bytes[15]]))).flatten()
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
