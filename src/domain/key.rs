//! API keys of the service and what they may do.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cell::Cell;
use super::secret::Secret;

/// A bearer key of a user: `zo_`, the number of its cell where there are cells, and 256 random bits in hex. Shown once; only its
/// hash is stored.
///
/// A plain SHA-256 is enough: there is nothing to guess in 256 random bits, so a slow hash would protect nothing.
#[derive(Debug, Clone)]
pub struct ApiKey(Secret<String>);

impl ApiKey {
    /// What every key begins with, so that scanners of leaked secrets know it.
    pub const PREFIX: &str = "zo_";

    /// A new key, from the system's source of randomness.
    pub fn generate() -> Self {
        Self::generate_in(None)
    }

    /// A new key of this cell.
    pub fn generate_in(cell: Option<Cell>) -> Self {
        let random: [u8; 32] = rand::random();
        let hex = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(Secret::new(format!("{}{hex}", Cell::prefix(cell, Self::PREFIX))))
    }

    /// A key for all cells, which an operator made: `zo_all_` and 64 hex digits. No other text becomes a key: this one is 256 bits long.
    ///
    /// # Errors
    /// A sentence that says what it must be.
    pub fn of_all_cells(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(Self::PREFIX).and_then(|rest| rest.strip_prefix(Cell::ALL)?.strip_prefix('_'));
        match rest {
            Some(random) if Cell::is_random(random) => Ok(Self(Secret::from(text))),
            _ => Err("must be zo_all_ and 64 hex digits in small letters".into()),
        }
    }

    /// The key itself, to be shown once. The caller must not log or store it.
    pub const fn expose(&self) -> &String {
        self.0.expose()
    }

    /// What the store keeps of the key, and looks it up by.
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(self.0.expose())
    }

    /// The same for what a caller presents.
    pub fn hash_of(presented: &str) -> [u8; 32] {
        Sha256::digest(presented.as_bytes()).into()
    }
}

/// One thing that a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Scope {
    /// See agents and what they do, without the secrets of their channels.
    #[serde(rename = "agents:read")]
    AgentsRead,
    /// Make, change, start, stop and delete agents; see the secrets of their channels.
    #[serde(rename = "agents:write")]
    AgentsWrite,
    /// Talk to agents.
    #[serde(rename = "messages:send")]
    MessagesSend,
    /// All of it for everybody's agents, and users, keys, audit and the runtime.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: &'static [Self] = &[Self::AgentsRead, Self::AgentsWrite, Self::MessagesSend, Self::Admin];

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentsRead => "agents:read",
            Self::AgentsWrite => "agents:write",
            Self::MessagesSend => "messages:send",
            Self::Admin => "admin",
        }
    }

    /// A scope by its name.
    ///
    /// # Errors
    /// A sentence that lists the scopes.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| "must be one of agents:read, agents:write, messages:send, admin".into())
    }
}

/// A set of scopes. In place, since each request has a copy of its caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes([Option<Scope>; Scope::ALL.len()]);

impl Scopes {
    /// Everything a user may do with agents of their own.
    pub fn user() -> Self {
        [Scope::AgentsRead, Scope::AgentsWrite, Scope::MessagesSend].into_iter().collect()
    }

    /// Every scope there is: an administrator's.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether this one is among them.
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&Some(scope))
    }

    /// Whether everything in `other` is in here too.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|scope| self.contains(scope))
    }

    /// Each once, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().flatten().copied()
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut kept = [None; Scope::ALL.len()];
        for scope in scopes {
            // There is room for each of them once.
            if let Some(place) = kept.iter_mut().find(|kept| kept.is_none_or(|kept| kept == scope)) {
                *place = Some(scope);
            }
        }
        Self(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_kept_once_each_in_the_order_in_which_they_were_given() {
        let given =
            [Scope::Admin, Scope::AgentsRead, Scope::Admin, Scope::MessagesSend, Scope::AgentsWrite, Scope::AgentsRead];
        let scopes: Scopes = given.into_iter().collect();
        let once = [Scope::Admin, Scope::AgentsRead, Scope::MessagesSend, Scope::AgentsWrite];
        assert_eq!(scopes.iter().collect::<Vec<_>>(), once);
        assert!(Scope::ALL.iter().all(|scope| scopes.contains(*scope)) && scopes.covers(&Scopes::all()));
        let few: Scopes = [Scope::AgentsRead].into_iter().collect();
        assert!(!few.contains(Scope::Admin) && !few.covers(&scopes) && scopes.covers(&few));
        // As it was written by earlier versions, which kept a list.
        let written = serde_json::to_string(&few).unwrap();
        assert_eq!(written, r#"["agents:read"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(r#"["agents:read","agents:read"]"#).unwrap(), few);
        assert_eq!(Scopes::from(Vec::new()).iter().count(), 0);
    }
}
