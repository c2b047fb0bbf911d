//! What a person can do about a failure: one sentence for each code. Where nothing needs doing there is none.

use crate::lifecycle::{Cause, Code};

/// The remedy for the reason of a status. Where a code tells only the final result, the first cause decides.
pub(super) fn of_cause(cause: &Cause) -> Option<&'static str> {
    let code = cause.root.unwrap_or(cause.code);
    let of_exit = cause.exit_code.filter(|_| code == Code::Exited).and_then(of_exit_code);
    of_exit.or_else(|| of_code(code))
}

/// What an exit code with a meaning of its own asks for.
const fn of_exit_code(code: i32) -> Option<&'static str> {
    match code {
        126 | 127 => Some(
            "name a program that is installed and may be executed (process.command, or the image), then start it; the \
             agent's log has the name that was tried",
        ),
        132 => Some("use a program or an image that was built for this processor, then start it"),
        134 | 139 => Some("read the last lines of its log; it is a fault of its program, so try another version of it"),
        137 => Some(
            "find in the kernel's log (`dmesg`) whether memory was short: then give the agent, or the machine, more",
        ),
        143 => Some(
            "find what ends it, and leave its container or process to zeroone: use `zeroone agent stop` and `start`",
        ),
        _ => None,
    }
}

const fn of_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Exited => Some("read the last lines of its log; correct what they name, then start it"),
        Code::OomKilled => Some("give it more memory by the user's plan or limits, or a smaller load"),
        Code::EndedOutside | Code::InstanceGone | Code::RestartedOutside => {
            Some("leave its container or process to zeroone: use `zeroone agent stop` and `start`")
        }
        Code::HealthTimeout | Code::HealthLost | Code::HealthMissed => {
            Some("read the last lines of its log; if the machine is overloaded, stop other agents or give it more CPU")
        }
        Code::TokenRefused | Code::PairingTimeout | Code::PairingRefused | Code::PairingDisabled => {
            Some("restart it: it gets a new pairing code and a new token")
        }
        Code::PairingLocked => Some("wait: the gateway accepts codes again after a few minutes"),
        Code::PortTaken | Code::NoFreePort => {
            Some("end the programs that hold ports 40000 to 50000, or delete agents that are not needed")
        }
        Code::EngineBusy => Some("wait, or see to what the engine names: room, volumes, the image"),
        Code::StartFailed => Some("follow the message; `zeroone doctor` checks the engine and the machine"),
        Code::Unusable | Code::CannotRun => {
            Some("correct what the message names with `zeroone agent update`, then start it")
        }
        Code::CrashLoop => Some("read the last lines of its log, correct the cause, then start it"),
        Code::NoCapacity => Some("free memory or disk on the machine, or stop other agents"),
        Code::RuntimeUnavailable => {
            Some("start the container engine; nothing is lost, agents continue when it is back")
        }
        Code::RuntimeRefuses => Some(
            "let the engine, or the filter or role before it, allow what the message names; it is tried again by itself",
        ),
        Code::StopTimeout | Code::DeleteTimeout => {
            Some("look at the container engine; it is tried again until it works")
        }
        Code::SecretsUnreadable => Some("start the service with the master key that sealed them, or supply them again"),
        Code::SecretsMissing => {
            Some("supply its API key and channels again with `zeroone agent update`, then start it")
        }
        Code::Internal => Some("the service's log has the cause at WARN or ERROR; please report it"),
        Code::UpgradeRefused | Code::RolledBack => {
            Some("it runs what it ran before; correct what the message names, or choose another image")
        }
        Code::Created
        | Code::Importing
        | Code::UpgradeRequested
        | Code::UpgradeStarted
        | Code::UpgradeFailed
        | Code::Upgraded
        | Code::StartRequested
        | Code::StopRequested
        | Code::RestartRequested
        | Code::DeleteRequested
        | Code::SpecChanged
        | Code::Deploying
        | Code::InstanceCreated
        | Code::InstanceStarted
        | Code::InstanceHealthy
        | Code::Paired
        | Code::TokenValid
        | Code::Stopped
        | Code::Recovered
        | Code::ServiceRestarted
        | Code::RetryDue
        | Code::HealthBack
        | Code::ModelFailed
        | Code::ModelBack
        | Code::EndpointMoved => None,
    }
}

/// The remedy for a model that gave no answer, by the class of the failure.
pub(super) fn of_class(class: &str) -> &'static str {
    match class {
        "invalid_api_key" => "set another key: `zeroone agent update AGENT --api-key-env NAME`",
        "insufficient_quota" => "raise the quota or the credit at the provider, or use another provider or key",
        "not_found" => "check the name of the model and the URL: `zeroone agent update AGENT --model NAME`",
        "rate_limited" => "send fewer messages, wait, or raise the rate limit at the provider",
        "invalid_request" | "unsupported_parameter" => {
            "check the model's settings (temperature, maxTokens) against what the provider allows"
        }
        "content_filter" => "the provider refuses this message; put it in other words",
        "not_configured" => "set provider, model and key with `zeroone agent update AGENT`",
        "dns" | "unreachable" | "tls" | "proxy" | "web_page" | "unreadable_answer" => {
            "check the model's URL and that its server can be reached from where the agent runs; `zeroone doctor` tries it"
        }
        "timeout" => "use a faster model, a shorter message, or a larger server.answer_secs",
        _ => "send the message again; if that fails too, read the agent's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Exit;
    use crate::lifecycle::meaning_of_exit;
    use crate::zeroclaw::client::ModelFailure;

    #[test]
    fn exit_codes_with_a_meaning_have_words_and_a_remedy_of_their_own() {
        let page = include_str!("../../docs/causes.md");
        for code in [126, 127, 132, 134, 137, 139, 143] {
            let cause = Cause::exited(&Exit { code: Some(code), ..Exit::default() });
            let (meaning, remedy) = (meaning_of_exit(code).unwrap(), of_cause(&cause).unwrap());
            assert!(cause.message().ends_with(meaning), "{}", cause.message());
            assert_ne!(Some(remedy), of_code(Code::Exited), "{code}");
            let row = format!("| {code} | {meaning} | {remedy} |");
            assert!(page.lines().any(|line| line == row), "docs/causes.md must have\n{row}");
            assert_eq!(of_cause(&cause.come_to(Code::CrashLoop)), Some(remedy), "also when it happens again and again");
        }
        for code in [0, 1, 2, 42, 130] {
            let cause = Cause::exited(&Exit { code: Some(code), ..Exit::default() });
            assert_eq!(of_cause(&cause), of_code(Code::Exited), "{code}");
        }
    }

    #[test]
    fn the_first_cause_of_a_crash_loop_decides() {
        let starved = Cause::new(Code::OomKilled).come_to(Code::CrashLoop);
        assert_eq!(of_cause(&starved), of_code(Code::OomKilled));
        assert!(of_cause(&Cause::new(Code::CrashLoop)).is_some());
        assert_eq!(of_cause(&Cause::new(Code::StopRequested)), None);
    }

    const CLASSES: [&str; 19] = [
        "invalid_api_key",
        "insufficient_quota",
        "not_found",
        "rate_limited",
        "server_error",
        "invalid_request",
        "unsupported_parameter",
        "content_filter",
        "not_configured",
        "dns",
        "unreachable",
        "tls",
        "proxy",
        "web_page",
        "connection_broken",
        "unreadable_answer",
        "empty_answer",
        "timeout",
        "unknown",
    ];

    /// As `docs/causes.md` has it.
    fn table() -> String {
        let mut table = String::from("| Code | In words | What to do |\n|---|---|---|\n");
        for &code in Code::ALL {
            if let Some(remedy) = of_code(code) {
                table.push_str(&format!("| `{}` | {} | {remedy} |\n", code.as_str(), code.meaning()));
            }
        }
        table
    }

    #[test]
    fn the_table_in_the_documentation_is_what_is_said() {
        let page = include_str!("../../docs/causes.md");
        assert!(page.contains(&table()), "docs/causes.md must have this table:\n{}", table());
        for class in CLASSES {
            let row = format!("| `{class}` | {} |", of_class(class));
            assert!(page.contains(&row), "docs/causes.md must have this row:\n{row}");
        }
    }

    fn failure(status: Option<u16>, code: Option<&str>) -> ModelFailure {
        ModelFailure {
            status,
            code: code.map(str::to_owned),
            message: String::new(),
            retry_after: None,
            retryable: false,
        }
    }

    #[test]
    fn failed_models_have_a_remedy_each() {
        let said = |status, code| of_class(failure(status, code).class());
        assert!(said(Some(401), None).contains("--api-key-env"));
        assert!(said(Some(404), None).contains("--model"));
        assert!(said(Some(429), Some("insufficient_quota")).contains("credit"));
        assert!(said(Some(429), None).contains("wait"));
        assert!(said(None, Some("dns")).contains("doctor"));
        assert!(said(None, Some("made up")).contains("again"));
    }
}
