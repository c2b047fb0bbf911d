//! What becomes of ZeroClaw's keys and variables here: one table for all its schemas, 0.1 to 0.8.
//!
//! A key that [`Config`](super::config::Config) reads is honoured and needs no row. Of the others each is harmless (what
//! it sets does not exist here), changes who is asked, or is about safety. The last two must never be passed over without
//! a word: they stop the start, or the part that they are about is off and the doctor says so.

use toml::{Table, Value};

/// What a key that is not honoured is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It sets something that this gateway does not have and nobody misses.
    Harmless,
    /// Other models, providers or ways to them.
    Provider,
    /// What the agent may do, who may reach it, or what is kept.
    Safety,
}

/// What happens when such a key asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consequence {
    Nothing,
    /// The part is off; start and doctor say so.
    Off,
    /// The gateway does not start.
    Stop,
}

struct Row {
    /// A key or a table; `*` stands for one name.
    path: &'static str,
    meaning: Meaning,
    consequence: Consequence,
    /// What is off, or what to do.
    remedy: &'static str,
}

const fn harmless(path: &'static str) -> Row {
    Row { path, meaning: Meaning::Harmless, consequence: Consequence::Nothing, remedy: "" }
}

const fn off(path: &'static str, meaning: Meaning, remedy: &'static str) -> Row {
    Row { path, meaning, consequence: Consequence::Off, remedy }
}

const fn stop(path: &'static str, meaning: Meaning, remedy: &'static str) -> Row {
    Row { path, meaning, consequence: Consequence::Stop, remedy }
}

use Meaning::{Provider, Safety};

/// Longer paths win over shorter ones.
const TABLE: &[Row] = &[
    // Who is asked.
    off("model_routes", Provider, "every message goes to default_model"),
    off("embedding_routes", Provider, "memory searches by words, and asks no other model"),
    off("query_classification", Provider, "every message goes to default_model"),
    off("model_providers", Provider, "only the profile that default_provider names is used"),
    off("providers", Provider, "only the provider of the agent is used"),
    off("provider", Provider, "write default_provider, api_url and default_model"),
    off("reliability.api_keys", Provider, "only api_key is used; keys are not rotated"),
    off("runtime.reasoning_enabled", Provider, "the model decides whether it reasons"),
    off("runtime.reasoning_effort", Provider, "the model decides how long it reasons"),
    off("agent.model", Provider, "default_model is asked"),
    off("agent.temperature", Provider, "default_temperature is used"),
    off("agents", Provider, "no other agent is asked: there is no tool to delegate"),
    off("swarms", Provider, "no other agent is asked"),
    off("delegate", Provider, "no other agent is asked"),
    off("memory.embedding_provider", Provider, "memory searches by words, and asks no other model"),
    harmless("memory.embedding_model"),
    harmless("memory.embedding_dimensions"),
    stop("proxy", Provider, "set HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment instead, and remove [proxy]"),
    off("storage", Provider, "the memory stays in the workspace"),
    off("memory.qdrant", Provider, "the memory stays in the workspace"),
    off("memory.postgres", Provider, "the memory stays in the workspace"),
    off("multimodal", Provider, "only text is put to the model"),
    off("transcription", Provider, "voice is not read"),
    off("tts", Provider, "nothing is spoken"),
    off("composio", Provider, "the tool does not exist here"),
    off("mcp", Provider, "tools of other servers do not exist here"),
    off("mcp_servers", Provider, "tools of other servers do not exist here"),
    off("web_search", Provider, "the tool does not exist here"),
    off("browser", Provider, "the tool does not exist here"),
    off("web_fetch", Provider, "use [http_request] with allowed_domains"),
    off("a2a", Provider, "other agents cannot reach this one by A2A"),
    // What the agent may do.
    harmless("autonomy.workspace_only"),
    harmless("autonomy.allowed_commands"),
    harmless("autonomy.allowed_roots"),
    harmless("autonomy.require_approval_for_medium_risk"),
    harmless("autonomy.block_high_risk_commands"),
    harmless("autonomy.auto_approve"),
    harmless("autonomy.shell_env_passthrough"),
    harmless("autonomy.shell_timeout_secs"),
    harmless("autonomy.max_memory_mb"),
    harmless("autonomy.max_cpu_time_seconds"),
    harmless("autonomy.max_subprocesses"),
    harmless("autonomy.memory_monitoring"),
    harmless("autonomy.max_delegation_depth"),
    harmless("autonomy.sandbox"),
    off("autonomy", Safety, "this rule is not known here; give excluded_tools what the agent must not use"),
    harmless("security.sandbox"),
    harmless("security.resources"),
    off("security.audit", Safety, "no audit log is written; GET /api/events tells what happens"),
    harmless("security.canary_tokens"),
    stop(
        "security.estop",
        Safety,
        "there is no emergency stop here; remove [security.estop], and stop the process instead",
    ),
    stop(
        "security.otp",
        Safety,
        "one-time passwords are not asked for here; remove [security.otp], and name the tools in [autonomy] excluded_tools",
    ),
    stop("security.syscall_anomaly", Safety, "system calls are not watched here; remove the table"),
    off("security", Safety, "this rule is not known here"),
    off("skills", Safety, "skills do not exist here"),
    off("hooks", Safety, "hooks do not run here"),
    off("heartbeat", Safety, "HEARTBEAT.md is not read; make jobs of its tasks (POST /api/cron)"),
    off("plugins", Safety, "plugins do not run here"),
    stop(
        "gateway.tls",
        Safety,
        "this gateway speaks plain HTTP; put a TLS proxy in front of it and remove [gateway.tls]",
    ),
    off("gateway.auth_token", Safety, "this token is not accepted; pair, or put its SHA-256 into paired_tokens"),
    off("gateway.node_control", Safety, "nodes cannot be controlled here"),
    harmless("gateway.pairing_code"),
    harmless("gateway.pairing_dashboard"),
    harmless("gateway.path_prefix"),
    harmless("gateway.check_updates"),
    harmless("gateway.allow_self_upgrade"),
    harmless("gateway.long_running_request_timeout_secs"),
    harmless("gateway.web_dist_dir"),
    harmless("gateway.enabled"),
    off("data_retention", Safety, "nothing is removed by its age; DELETE /api/memory and /api/sessions remove it"),
    off("memory.conversation_retention_days", Safety, "old messages make room for new ones by number, not by age"),
    off("memory.purge_after_days", Safety, "nothing is removed by its age"),
    off("tunnel", Safety, "no tunnel is opened; run it beside the gateway"),
    off("channels_config.*", Safety, "this gateway does not speak that channel; nobody is heard there"),
    harmless("channels_config.cli"),
    harmless("channels_config.message_timeout_secs"),
    harmless("channels_config.ack_reactions"),
    harmless("channels_config.show_tool_calls"),
    harmless("channels_config.session_persistence"),
    harmless("channels_config.session_backend"),
    harmless("channels_config.session_ttl_hours"),
    // What does not exist here and changes nothing for anybody.
    harmless("workspace_dir"),
    harmless("config_path"),
    harmless("active_workspace"),
    harmless("observability"),
    harmless("runtime"),
    harmless("autonomy.max_actions_per_day"),
    harmless("reliability"),
    harmless("scheduler"),
    harmless("cron"),
    harmless("agent"),
    harmless("memory"),
    harmless("secrets"),
    harmless("cost"),
    harmless("pacing"),
    harmless("backup"),
    harmless("browser_delegate"),
    harmless("http_request"),
    harmless("hardware"),
    harmless("peripherals"),
    off("identity", Safety, "the agent is who IDENTITY.md, USER.md and SOUL.md say"),
    harmless("goal_loop"),
    harmless("locale"),
    harmless("node_transport"),
    harmless("nodes"),
    harmless("notion"),
    harmless("jira"),
    harmless("google_workspace"),
    harmless("microsoft365"),
    harmless("linkedin"),
    harmless("knowledge"),
    harmless("onboard_state"),
    harmless("project_intel"),
    harmless("security_ops"),
    harmless("sop"),
    harmless("verifiable_intent"),
    harmless("wasm"),
    harmless("workspace"),
    harmless("conversational_ai"),
    harmless("cloud_ops"),
    harmless("claude_code"),
    harmless("codex_cli"),
    harmless("gemini_cli"),
    harmless("opencode_cli"),
    harmless("text_browser"),
    harmless("web_browser"),
    harmless("image_gen"),
    harmless("link_enricher"),
    harmless("media_pipeline"),
    harmless("research"),
    harmless("economic"),
    harmless("coordination"),
    harmless("extra_headers"),
    harmless("provider_timeout_secs"),
    harmless("tui"),
    harmless("version"),
];

/// What to tell of a key that is set and not honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) meaning: Meaning,
    pub(super) consequence: Consequence,
    pub(super) message: String,
    /// Whether the table knows the key at all.
    pub(super) known: bool,
}

/// Judges the keys that nothing read. A key that is set to what this gateway does anyway is harmless.
pub(super) fn judge(unread: &[String], document: &Table) -> Vec<Finding> {
    unread.iter().flat_map(|key| parts(key, document)).map(|key| judge_one(&key, document)).collect()
}

/// The key, or where the table has rows for keys below it, those keys.
fn parts(key: &str, document: &Table) -> Vec<String> {
    let prefix = format!("{key}.");
    let below = look_up(document, key).and_then(Value::as_table);
    match below.filter(|below| !below.is_empty() && TABLE.iter().any(|row| row.path.starts_with(&prefix))) {
        Some(below) => below.keys().flat_map(|name| parts(&format!("{key}.{name}"), document)).collect(),
        None => vec![key.to_owned()],
    }
}

fn judge_one(key: &str, document: &Table) -> Finding {
    let finding = |meaning, consequence, message: String, known| Finding {
        key: key.to_owned(),
        meaning,
        consequence,
        message,
        known,
    };
    let Some(row) = row(key) else {
        return finding(Meaning::Harmless, Consequence::Nothing, format!("{key} is not a key that is known"), false);
    };
    if row.consequence == Consequence::Nothing || asks_for_nothing(key, look_up(document, key)) {
        return finding(Meaning::Harmless, Consequence::Nothing, format!("{key} changes nothing here"), true);
    }
    finding(row.meaning, row.consequence, format!("{key} is not honoured: {}", row.remedy), true)
}

/// The row of the longest path that a key is at or below.
fn row(key: &str) -> Option<&'static Row> {
    let key: Vec<&str> = key.split('.').collect();
    let covers = |row: &&Row| {
        let path: Vec<&str> = row.path.split('.').collect();
        path.len() <= key.len() && path.iter().zip(&key).all(|(a, b)| *a == "*" || a == b)
    };
    TABLE.iter().filter(covers).max_by_key(|row| (row.path.split('.').count(), !row.path.contains('*')))
}

/// Whether a value asks for what is so anyway: it is off, empty, zero, or the name of nothing.
fn asks_for_nothing(key: &str, value: Option<&Value>) -> bool {
    match value {
        None => true,
        Some(Value::Boolean(on)) => !on,
        Some(Value::Integer(number)) => *number == 0,
        Some(Value::Float(number)) => *number == 0.0,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::String(text)) => {
            matches!(text.trim(), "" | "none" | "noop" | "off" | "auto" | "default" | "openclaw")
        }
        Some(Value::Table(table)) => match table.get("enabled").or_else(|| table.get("enable")) {
            Some(enabled) => enabled.as_bool() == Some(false),
            // Tables that are on or off say so; one without the switch is off where ZeroClaw's default is.
            None if has_switch(key) => true,
            None => table.iter().all(|(below, value)| asks_for_nothing(&format!("{key}.{below}"), Some(value))),
        },
        Some(Value::Datetime(_)) => false,
    }
}

/// Tables that do nothing in ZeroClaw unless `enabled = true` stands in them.
fn has_switch(key: &str) -> bool {
    const SWITCHED: [&str; 15] = [
        "proxy",
        "composio",
        "web_search",
        "browser",
        "heartbeat",
        "query_classification",
        "mcp",
        "transcription",
        "tts",
        "data_retention",
        "security.estop",
        "security.otp",
        "gateway.tls",
        "gateway.node_control",
        "security.audit",
    ];
    SWITCHED.contains(&key)
}

fn look_up<'a>(document: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = document.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// ZeroClaw's variables that are read here.
const VARIABLES: [&str; 14] = [
    "ZEROCLAW_API_KEY",
    "ZEROCLAW_PROVIDER",
    "ZEROCLAW_MODEL_PROVIDER",
    "ZEROCLAW_PROVIDER_URL",
    "ZEROCLAW_API_URL",
    "ZEROCLAW_MODEL",
    "ZEROCLAW_TEMPERATURE",
    "ZEROCLAW_GATEWAY_PORT",
    "ZEROCLAW_GATEWAY_HOST",
    "ZEROCLAW_ALLOW_PUBLIC_BIND",
    "ZEROCLAW_REQUIRE_PAIRING",
    "ZEROCLAW_GATEWAY_TIMEOUT_SECS",
    "ZEROCLAW_WORKSPACE",
    "ZEROCLAW_CONFIG_DIR",
];
/// Those that set something which does not exist here.
const HARMLESS_VARIABLES: [&str; 13] = [
    "ZEROCLAW_OPEN_SKILLS",
    "ZEROCLAW_SKILLS",
    "ZEROCLAW_REASONING",
    "ZEROCLAW_WEB_SEARCH",
    "ZEROCLAW_WEB_FETCH",
    "ZEROCLAW_CODEX",
    "ZEROCLAW_BROWSER",
    "ZEROCLAW_BUILD",
    "ZEROCLAW_VERSION",
    "ZEROCLAW_LOG",
    "ZEROCLAW_LOCALE",
    "ZEROCLAW_ONBOARD",
    "ZEROCLAW_INTERACTIVE",
];

/// Variables of ZeroClaw's that are set and read by nothing, with what to do.
pub(super) fn judge_variables<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let unread = names.filter(|name| {
        name.starts_with("ZEROCLAW_")
            && !VARIABLES.contains(name)
            && !is_service_link(name)
            && super::config_env::path_of(name).is_none()
            && !HARMLESS_VARIABLES.iter().any(|known| name.starts_with(known))
    });
    let mut told: Vec<String> = unread
        .map(|name| match name {
            name if name.starts_with("ZEROCLAW_PROXY") || name.ends_with("_PROXY") => {
                format!("{name} is not read; set HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
            }
            name if name.starts_with("ZEROCLAW_STORAGE") => {
                format!("{name} is not read: the memory stays in the workspace")
            }
            "ZEROCLAW_DATA_DIR" => {
                "ZEROCLAW_DATA_DIR is not read; set ZEROCLAW_CONFIG_DIR and ZEROCLAW_WORKSPACE".to_owned()
            }
            name => format!("{name} is not read by this gateway; use its key in config.toml"),
        })
        .collect();
    told.sort();
    told
}

/// What Kubernetes sets for every Service of a namespace: nothing that somebody wrote.
pub(super) fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| name.contains(&format!("{protocol}_")) || name.ends_with(protocol))
        || (name.ends_with("_PORT") && name != "ZEROCLAW_GATEWAY_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(key: &str, document: &str) -> Finding {
        judge_one(key, &document.parse::<Table>().unwrap())
    }

    #[test]
    fn what_changes_who_is_asked_or_what_is_allowed_is_never_passed_over() {
        for (key, document, consequence) in [
            ("model_routes", "[[model_routes]]\nhint = \"fast\"\nprovider = \"groq\"\n", Consequence::Off),
            ("proxy", "[proxy]\nenabled = true\nhttp_proxy = \"http://p\"\n", Consequence::Stop),
            ("security.otp", "[security.otp]\nenabled = true\n", Consequence::Stop),
            ("gateway.tls", "[gateway.tls]\nenabled = true\n", Consequence::Stop),
            ("autonomy.new_rule", "[autonomy]\nnew_rule = true\n", Consequence::Off),
            ("channels_config.matrix", "[channels_config.matrix]\nhomeserver = \"h\"\n", Consequence::Off),
            ("reliability.api_keys", "[reliability]\napi_keys = [\"k\"]\n", Consequence::Off),
        ] {
            assert_eq!(judged(key, document).consequence, consequence, "{key}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_harmless() {
        for (key, document) in [
            ("proxy", "[proxy]\nenabled = false\nno_proxy = [\"localhost\"]\n"),
            ("proxy", "[proxy]\nscope = \"zeroclaw\"\n"),
            ("model_routes", "model_routes = []\n"),
            ("security.otp", "[security.otp]\nenabled = false\ngated_actions = [\"shell\"]\n"),
            ("memory.embedding_provider", "[memory]\nembedding_provider = \"none\"\n"),
            ("autonomy.workspace_only", "[autonomy]\nworkspace_only = true\n"),
            ("observability", "[observability]\nbackend = \"prometheus\"\n"),
        ] {
            let finding = judged(key, document);
            assert!(finding.consequence == Consequence::Nothing && finding.known, "{key}");
        }
        assert!(!judged("gatewy", "gatewy = 1").known);
    }

    #[test]
    fn a_table_that_nothing_reads_is_judged_by_its_parts() {
        let document =
            "[security.otp]\nenabled = true\n[security.sandbox]\nbackend = \"none\"\n".parse::<Table>().unwrap();
        let found: Vec<(String, Consequence)> =
            judge(&["security".to_owned()], &document).into_iter().map(|f| (f.key, f.consequence)).collect();
        let otp = ("security.otp".to_owned(), Consequence::Stop);
        assert_eq!(found, [otp, ("security.sandbox".to_owned(), Consequence::Nothing)]);
    }

    #[test]
    fn no_message_holds_a_value() {
        let finding = judged("reliability.api_keys", "[reliability]\napi_keys = [\"planted\"]\n");
        assert!(finding.message.contains("reliability.api_keys") && !finding.message.contains("planted"));
    }

    #[test]
    fn variables_that_nothing_reads_are_named_and_service_links_are_not() {
        let names = [
            "ZEROCLAW_MODEL",
            "ZEROCLAW_GATEWAY_PORT_42617_TCP_ADDR",
            "ZEROCLAW_GATEWAY_SERVICE_HOST",
            "ZEROCLAW_PORT",
            "ZEROCLAW_gateway__port",
            "ZEROCLAW_SKILLS_PROMPT_MODE",
            "ZEROCLAW_MODLE",
            "ZEROCLAW_HTTPS_PROXY",
            "ZEROCLAW_DATA_DIR",
            "PATH",
        ];
        let told = judge_variables(names.into_iter());
        let named: Vec<&str> = told.iter().filter_map(|words| words.split(' ').next()).collect();
        assert_eq!(named, ["ZEROCLAW_DATA_DIR", "ZEROCLAW_HTTPS_PROXY", "ZEROCLAW_MODLE"]);
        assert!(told[1].contains("set HTTPS_PROXY"), "{told:?}");
    }

    #[test]
    fn every_row_has_a_remedy_where_it_has_a_consequence_and_none_stands_twice() {
        let mut paths: Vec<&str> = TABLE.iter().map(|row| row.path).collect();
        assert!(TABLE.iter().all(|row| (row.consequence == Consequence::Nothing) == row.remedy.is_empty()));
        assert!(
            TABLE.iter().all(|row| (row.meaning == Meaning::Harmless) == (row.consequence == Consequence::Nothing))
        );
        paths.sort_unstable();
        let before = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), before);
    }
}
