//! File descriptors: as many as the system allows, and some kept back for the service's own work.
//!
//! A connection takes a descriptor. Without a reserve, connections alone could use up all of them, and the service could
//! neither write its store nor restart an agent.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the store, the engine and agents' processes, whatever else there is.
const RESERVE: usize = 256;

/// Raises the soft limit to the hard one, and gives what is in force; `None` where there is no limit.
pub(super) fn raise() -> Option<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = if current == maximum {
        current
    } else {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of open files cannot be raised");
                current
            }
        }
    };
    current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many of `wanted` connections may be open at once under this limit of open files.
pub(super) fn connections(wanted: usize, limit: Option<usize>) -> usize {
    let Some(limit) = limit else { return wanted };
    let reserve = RESERVE.max(limit / 4).min(limit / 2);
    let most = (limit - reserve).max(1);
    if wanted > most {
        tracing::warn!(limit, wanted, most, "fewer connections than configured: raise the limit of open files");
    }
    wanted.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_service() {
        for (wanted, limit, allowed) in [
            (4096, None, 4096),
            (4096, Some(1024), 768),
            (4096, Some(65_536), 4096),
            (100_000, Some(65_536), 49_152),
            (4096, Some(64), 32),
            (4096, Some(1), 1),
        ] {
            assert_eq!(connections(wanted, limit), allowed, "{wanted} of {limit:?}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
