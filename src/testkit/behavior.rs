//! How a fake gateway behaves: for good ([`GatewayBehavior`], as its version does) and for now ([`GatewayFault`], as its luck has it).

use std::time::Duration;

/// The form of a gateway's pairing codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeForm {
    /// `622406`
    Digits,
    /// `ABCD-1234`
    Grouped,
    /// 32 letters and digits
    Long,
}

/// What differs between gateways for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayBehavior {
    /// The form of its pairing codes.
    pub code: CodeForm,
    /// Whether a token that was given is known after a restart. Hashes that were staged always are.
    pub persists_tokens: bool,
    /// A gateway that requires no pairing prints no code and lets everyone in.
    pub requires_pairing: bool,
    /// Before the bearer token's 64 hex digits.
    pub token_prefix: &'static str,
    /// Wrong codes that lead to a lockout.
    pub failures_to_lockout: u32,
    /// How long a lockout lasts: no code is taken.
    pub lockout: Duration,
    /// From the start of the instance to the first healthy answer.
    pub boots_in: Duration,
    /// From the start of the instance to the line with the code.
    pub prints_code_after: Duration,
    /// How long an answer of the model takes.
    pub answers_in: Duration,
    /// How long the gateway takes to end when it is asked to; `None` for one that does not listen.
    pub ends_in: Option<Duration>,
}

impl GatewayBehavior {
    /// ZeroClaw 0.1: six digits, tokens kept in its config file.
    pub const fn zeroclaw() -> Self {
        Self {
            code: CodeForm::Digits,
            persists_tokens: true,
            requires_pairing: true,
            token_prefix: "zc_",
            failures_to_lockout: 5,
            lockout: Duration::from_secs(300),
            boots_in: Duration::from_millis(20),
            prints_code_after: Duration::from_millis(10),
            answers_in: Duration::from_millis(5),
            ends_in: Some(Duration::from_millis(10)),
        }
    }

    /// The other generation: grouped codes, tokens that a restart forgets, a lockout after three failures.
    pub const fn forgetful() -> Self {
        Self {
            code: CodeForm::Grouped,
            persists_tokens: false,
            token_prefix: "zcl_live_",
            failures_to_lockout: 3,
            ..Self::zeroclaw()
        }
    }

    /// ZeroClaw 0.8.7: long codes.
    pub const fn zeroclaw_0_8() -> Self {
        Self { code: CodeForm::Long, ..Self::zeroclaw() }
    }

    /// Everything at once, without a timer: for measuring the control plane and nothing else.
    pub const fn instant() -> Self {
        Self {
            boots_in: Duration::ZERO,
            prints_code_after: Duration::ZERO,
            answers_in: Duration::ZERO,
            ends_in: Some(Duration::ZERO),
            ..Self::zeroclaw()
        }
    }

    setters! {
        with_code(code: CodeForm);
        with_persists_tokens(persists_tokens: bool);
        with_requires_pairing(requires_pairing: bool);
        with_token_prefix(token_prefix: &'static str);
        with_failures_to_lockout(failures_to_lockout: u32);
        with_lockout(lockout: Duration);
        with_boots_in(boots_in: Duration);
        with_prints_code_after(prints_code_after: Duration);
        with_answers_in(answers_in: Duration);
        with_ends_in(ends_in: impl Into<Option<Duration>> => ends_in.into());
    }
}

impl Default for GatewayBehavior {
    fn default() -> Self {
        Self::zeroclaw()
    }
}

/// How a gateway is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GatewayFault {
    /// As it should be.
    #[default]
    Well,
    /// Every answer takes this much longer.
    Slow(Duration),
    /// Takes connections and never answers.
    Hung,
    /// Answers `/webhook` with this status: 408 and an empty body as for a slow model, 500 and ZeroClaw's own words.
    Fails(u16),
    /// `/health` says that it is not well.
    Unwell,
    /// Answers with bytes that are no answer.
    Garbage,
    /// Refuses every token it gave, and every code: 401 and 403.
    Forgetful,
    /// Reads the message, acts on it and closes the connection.
    HangsUp,
    /// Never prints a code and never says that it is paired.
    Mute,
    /// Healthy, takes its token, and says that it lacks a model: every message is answered with 503.
    Unusable,
}
