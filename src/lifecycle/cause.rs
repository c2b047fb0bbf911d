//! Why an agent is in its status: a code for programs, a sentence for people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::Exit;

/// The reason of a transition. The detail never holds a secret: it is shown to the agent's owner and logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cause {
    /// What happened, for programs.
    pub code: Code,
    /// What is known of this case, for people; [`Cause::message`] puts it behind the code's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Arc<str>>,
    /// The first cause, where the code tells only the final result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Code>,
    /// The exit status, where a run that ended is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A model that gave no answer to the last message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedModel {
    /// The kind of failure; another one is news, the same again is not.
    pub class: Arc<str>,
    /// A sentence with the remedy, without secrets.
    pub why: Arc<str>,
}

impl Cause {
    /// A cause without a detail.
    pub const fn new(code: Code) -> Self {
        Self { code, detail: None, root: None, exit_code: None }
    }

    /// A cause with a detail.
    pub fn because(code: Code, detail: impl Into<Arc<str>>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(code) }
    }

    /// With the exit status of the run that ended.
    pub fn with_exit_code(self, exit_code: Option<i32>) -> Self {
        Self { exit_code, ..self }
    }

    /// The end of a run by itself.
    pub fn exited(exit: &Exit) -> Self {
        let cause = match (exit.oom, exit.code, &exit.reason) {
            (_, Some(code), _) if exit.asked => Self::because(Code::EndedOutside, said_by(code)),
            (_, None, _) if exit.asked => Self::new(Code::EndedOutside),
            (true, _, _) => Self::new(Code::OomKilled),
            (false, _, Some(reason)) => Self::because(Code::Exited, format!("the engine ended it: {reason}")),
            (false, Some(code), None) => Self::because(Code::Exited, said_by(code)),
            (false, None, None) => Self::new(Code::Exited),
        };
        cause.with_exit_code(exit.code)
    }

    /// The final result of this; keeps the reason and the facts.
    pub fn come_to(&self, code: Code) -> Self {
        Self {
            root: Some(self.root.unwrap_or(self.code)),
            exit_code: self.exit_code,
            ..Self::because(code, self.message())
        }
    }

    /// The whole sentence: what the code means, and the detail if there is one.
    pub fn message(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.code.meaning()),
            None => self.code.meaning().to_owned(),
        }
    }
}

/// What an exit code says, where it has a meaning that all programs share.
pub const fn meaning_of_exit(code: i32) -> Option<&'static str> {
    Some(match code {
        126 => "its program, or one that it started, was found and cannot be run",
        127 => "its program, or one that it started, was not found",
        132 => "its program has instructions that this processor does not know",
        134 => "its program gave up on an error of its own",
        137 => "it was killed by a person, or by the kernel for want of memory",
        139 => "its program crashed on memory that is not its own",
        143 => "something asked it to end",
        _ => return None,
    })
}

fn said_by(code: i32) -> String {
    // Shells and engines tell a signal as 128 and its number, of which there are 64. Programs have codes up to 255, too.
    let number = match code {
        129..=192 => format!("signal {} (exit code {code})", code - 128),
        _ => format!("exit code {code}"),
    };
    meaning_of_exit(code).map_or_else(|| number.clone(), |meaning| format!("{number}: {meaning}"))
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $meaning:literal;)*) => {
        /// What happened; kebab-case in the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = concat!("`", $text, "`: ", $meaning, ".")] $(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of this name; `None` for one that this version does not have.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            /// In words, as it stands in sentences.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

codes! {
    Created = "created", "the agent was created";
    StartRequested = "start-requested", "a start was asked for";
    StopRequested = "stop-requested", "a stop was asked for";
    RestartRequested = "restart-requested", "a restart was asked for";
    DeleteRequested = "delete-requested", "the deletion was asked for";
    SpecChanged = "spec-changed", "the configuration was changed";
    Deploying = "deploying", "the deployment is under way";
    InstanceCreated = "instance-created", "the instance exists";
    EngineBusy = "engine-busy", "the engine has yet to get the instance to run";
    InstanceStarted = "instance-started", "the instance was started";
    InstanceHealthy = "instance-healthy", "the gateway answers";
    Paired = "paired", "paired with the gateway";
    TokenValid = "token-valid", "the gateway takes the token";
    Stopped = "stopped", "the instance has stopped";
    Importing = "importing", "its data is being brought in";
    Recovered = "recovered", "the record was rebuilt from what the runtime had";
    ServiceRestarted = "service-restarted", "the service was restarted";
    RetryDue = "retry-due", "the time to try again has come";
    Exited = "exited", "the instance ended by itself";
    OomKilled = "oom-killed", "the instance was out of memory and was killed";
    EndedOutside = "ended-outside", "the instance was stopped or killed from outside";
    InstanceGone = "instance-gone", "the instance was removed from outside";
    RestartedOutside = "restarted-outside", "the instance was restarted from outside";
    HealthMissed = "health-missed", "the gateway did not answer a health check";
    HealthBack = "health-back", "the gateway answers again";
    EndpointMoved = "endpoint-moved", "the gateway is reached by another address";
    HealthLost = "health-lost", "the gateway stopped answering";
    HealthTimeout = "health-timeout", "the gateway did not answer in time after the start";
    ModelFailed = "model-failed", "the model gave no answer";
    ModelBack = "model-back", "the model answers again";
    TokenRefused = "token-refused", "the gateway refused the token";
    PairingTimeout = "pairing-timeout", "no pairing code appeared in time";
    PairingRefused = "pairing-refused", "the gateway refused the pairing code";
    PairingLocked = "pairing-locked", "the gateway accepts no pairing for now";
    PairingDisabled = "pairing-disabled", "the gateway does not ask for pairing";
    PortTaken = "port-taken", "another program uses the port";
    NoFreePort = "no-free-port", "no port is free";
    StartFailed = "start-failed", "the instance could not be started";
    Unusable = "unusable", "the gateway is healthy, but could answer no message";
    UpgradeRequested = "upgrade-requested", "an upgrade was asked for and is rehearsed";
    UpgradeRefused = "upgrade-refused", "the rehearsal of the upgrade failed and nothing was changed";
    UpgradeStarted = "upgrade-started", "another version is being put in its place";
    Upgraded = "upgraded", "the upgrade is done";
    UpgradeFailed = "upgrade-failed", "the upgrade failed and is taken back";
    RolledBack = "rolled-back", "it runs again what it ran before the upgrade";
    CrashLoop = "crash-loop", "the agent failed too often";
    CannotRun = "cannot-run", "the agent cannot run as it is configured";
    NoCapacity = "no-capacity", "the machine has no room";
    RuntimeUnavailable = "runtime-unavailable", "the container engine does not answer";
    RuntimeRefuses = "runtime-refuses", "the container engine refuses what the service itself needs";
    StopTimeout = "stop-timeout", "the instance could not be stopped in time";
    DeleteTimeout = "delete-timeout", "the instance could not be removed in time";
    SecretsUnreadable = "secrets-unreadable", "the agent's secrets cannot be opened with the keys at hand";
    SecretsMissing = "secrets-missing", "secrets that only their owner has were lost with the store";
    Internal = "internal", "the service failed inside";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_what_is_known_of_it() {
        let exit = |asked, oom, code| Exit { asked, oom, code, ..Exit::default() };
        for (exit, code) in [
            (exit(true, false, Some(137)), Code::EndedOutside),
            (exit(true, false, None), Code::EndedOutside),
            (exit(true, true, Some(137)), Code::EndedOutside),
            (exit(false, true, Some(137)), Code::OomKilled),
            (exit(false, true, None), Code::OomKilled),
            (exit(false, false, Some(1)), Code::Exited),
            (exit(false, false, None), Code::Exited),
        ] {
            let cause = Cause::exited(&exit);
            assert_eq!((cause.code, cause.exit_code), (code, exit.code), "{exit:?}");
            assert_eq!(cause.detail.is_some(), exit.code.is_some() && code != Code::OomKilled, "{exit:?}");
        }
        let evicted = Exit { reason: Some("Evicted".into()), ..exit(false, false, Some(137)) };
        let cause = Cause::exited(&evicted);
        assert!(cause.code == Code::Exited && cause.message().contains("Evicted"), "{cause:?}");
    }
}
