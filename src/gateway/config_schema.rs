//! Files of ZeroClaw 0.7 and 0.8 (schemas 2 and 3), translated into the first schema, which [`Config`] reads.
//!
//! [`Config`]: super::config::Config
//!
//! Pure, on tables. The new tables win over old keys beside them: ZeroClaw 0.8 writes its own schema number into an old
//! file and leaves the old keys, and then these still mean what they say.
//!
//! ```text
//! [agents.A] model_provider = "F.P" ──► [providers.models.F.P] ──► default_provider, api_url, api_key, default_model
//!            channels = ["telegram.C"] ──► [channels.telegram.C] + [peer_groups.*] ──► [channels_config.telegram]
//!            risk_profile, runtime_profile ──► [autonomy], [agent]
//! ```

use toml::{Table, Value};

use crate::domain::Provider;

/// The newest schema that is understood.
const NEWEST: i64 = 3;
/// The only agent of a file that names none.
const DEFAULT: &str = "default";

/// Rewrites a document to the first schema. `notes` get what the file asks for and cannot have here.
///
/// # Errors
/// What would change who is asked if it were left out, by key and with the remedy.
pub(super) fn translate(document: &mut Table, notes: &mut Vec<String>) -> Result<(), String> {
    let version = document.remove("schema_version");
    match version.as_ref().map(Value::as_integer) {
        None | Some(Some(0..=NEWEST)) => {}
        Some(_) => {
            return Err(format!(
                "schema_version must be 1 to {NEWEST}; write the file in one of these, or use the matching ZeroClaw"
            ));
        }
    }
    let agent = agent(document)?;
    let alias = agent.as_ref().map_or(DEFAULT, |(alias, _)| alias).to_owned();
    let agent = agent.map(|(_, agent)| agent).unwrap_or_default();
    provider(document, &alias, &agent, notes)?;
    named_provider(document)?;
    profiles(document, &agent);
    channels(document, &alias, &agent, notes);
    schedule(document, notes);
    Ok(())
}

/// The one agent of a file of schema 3. Older files have agents of another kind, for a tool that this gateway lacks.
fn agent(document: &mut Table) -> Result<Option<(String, Table)>, String> {
    let Some(Value::Table(agents)) = document.get("agents") else { return Ok(None) };
    let new: Vec<(String, Table)> = agents
        .iter()
        .filter_map(|(alias, agent)| Some((alias.clone(), agent.as_table()?.clone())))
        .filter(|(_, agent)| agent.contains_key("model_provider") || agent.contains_key("risk_profile"))
        .filter(|(_, agent)| agent.get("enabled") != Some(&Value::Boolean(false)))
        .collect();
    let chosen = match new.as_slice() {
        [] => return Ok(None),
        [only] => only.clone(),
        several => several.iter().find(|(alias, _)| alias == DEFAULT).cloned().ok_or_else(|| {
            "there are several [agents.*], and this gateway is one agent; name the one that it is `default`, or remove the others".to_owned()
        })?,
    };
    document.remove("agents");
    Ok(Some(chosen))
}

/// `[providers]` of schemas 2 and 3.
fn provider(document: &mut Table, alias: &str, agent: &Table, notes: &mut Vec<String>) -> Result<(), String> {
    let providers = match document.remove("providers") {
        Some(Value::Table(providers)) => providers,
        Some(_) => return Err("providers must be a table".into()),
        None => Table::new(),
    };
    let models = providers.get("models").and_then(Value::as_table).cloned().unwrap_or_default();
    let wanted = agent.get("model_provider").and_then(Value::as_str);
    let fallback = providers.get("fallback").and_then(Value::as_str);
    let entry = match (wanted, fallback) {
        (Some(wanted), _) => Some(look_up(&models, wanted).ok_or_else(|| {
            format!(
                "agents.{alias}.model_provider names no table of [providers.models]; add the table, or correct the name"
            )
        })?),
        (None, Some(family)) => Some((family.to_owned(), look_up(&models, family).map(|(_, e)| e).unwrap_or_default())),
        (None, None) => only(&models)?,
    };
    let Some((family, entry)) = entry else { return Ok(()) };
    let text =
        |names: &[&str]| names.iter().find_map(|name| entry.get(*name)).and_then(Value::as_str).map(str::to_owned);
    let global = |name: &str| providers.get(name).and_then(Value::as_str).map(str::to_owned);
    let address = text(&["uri", "base_url", "api_url"]).filter(|address| !address.trim().is_empty());
    let (name, address) = whom(&family, address);
    document.insert("default_provider".into(), Value::String(name));
    match address {
        Some(address) => drop(document.insert("api_url".into(), Value::String(address))),
        None => drop(document.remove("api_url")),
    }
    // A key that stands beside these tables is an older provider's, and must not be sent to this one.
    document.remove("api_key");
    for (key, value) in [
        ("api_key", text(&["api_key"]).or_else(|| global("api_key"))),
        ("default_model", text(&["model"]).or_else(|| global("default_model"))),
    ] {
        if let Some(value) = value {
            document.insert(key.into(), Value::String(value));
        }
    }
    if let Some(temperature) = entry.get("temperature") {
        document.insert("default_temperature".into(), temperature.clone());
    }
    for key in ["extra_headers", "max_tokens"].into_iter().filter(|key| entry.contains_key(*key)) {
        notes.push(format!("providers.models.{family}: {key} is not sent by this gateway"));
    }
    Ok(())
}

/// `family.alias` of schema 3, or the one name of schema 2.
fn look_up(models: &Table, name: &str) -> Option<(String, Table)> {
    if let Some(Value::Table(entry)) = models.get(name).filter(|entry| is_entry(entry)) {
        return Some((name.to_owned(), entry.clone()));
    }
    let (family, alias) = name.split_once('.').unwrap_or((name, DEFAULT));
    let aliases = models.get(family)?.as_table()?;
    let entry = aliases.get(alias).or_else(|| (aliases.len() == 1).then(|| aliases.values().next()).flatten())?;
    Some((family.to_owned(), entry.as_table()?.clone()))
}

/// The only model of a file whose agents name none.
fn only(models: &Table) -> Result<Option<(String, Table)>, String> {
    let mut found = Vec::new();
    for (family, below) in models {
        if is_entry(below) {
            found.push((family.clone(), below.as_table().cloned().unwrap_or_default()));
        } else if let Some(aliases) = below.as_table() {
            found.extend(aliases.values().filter_map(Value::as_table).map(|entry| (family.clone(), entry.clone())));
        }
    }
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop()),
        _ => Err(
            "there are several [providers.models.*], and nothing says which one the agent asks; add [agents.default] \
                  with model_provider = \"<family>.<alias>\""
                .into(),
        ),
    }
}

/// A table of settings, not one of aliases.
fn is_entry(value: &Value) -> bool {
    value.as_table().is_some_and(|table| table.values().any(|value| !value.is_table()) || table.is_empty())
}

/// The provider's name in the first schema, and an address of its own where it has one.
fn whom(family: &str, address: Option<String>) -> (String, Option<String>) {
    let Some(address) = address else { return (family.to_owned(), None) };
    match Provider::parse(family) {
        Ok(_) => (family.to_owned(), Some(address)),
        Err(_) if family.starts_with("anthropic") => (format!("anthropic-custom:{address}"), None),
        Err(_) => (format!("custom:{address}"), None),
    }
}

/// `[model_providers.<name>]`: `default_provider` may name one of them.
fn named_provider(document: &mut Table) -> Result<(), String> {
    let Some(name) = document.get("default_provider").and_then(Value::as_str).map(str::to_owned) else { return Ok(()) };
    let profile = document.get("model_providers").and_then(Value::as_table).and_then(|profiles| profiles.get(&name));
    let Some(profile) = profile.and_then(Value::as_table).cloned() else { return Ok(()) };
    let text = |key: &str| profile.get(key).and_then(Value::as_str).map(str::to_owned);
    if text("wire_api").is_some_and(|api| !matches!(api.as_str(), "openai" | "chat_completions" | "chat" | "anthropic"))
    {
        return Err(format!("model_providers.{name}.wire_api must be chat_completions here"));
    }
    let family = text("name").unwrap_or_else(|| name.clone());
    let family = if text("wire_api").as_deref() == Some("anthropic") { "anthropic-custom".to_owned() } else { family };
    let (provider, address) = whom(&family, text("base_url"));
    document.insert("default_provider".into(), Value::String(provider));
    for (key, value) in [("api_url", address), ("api_key", text("api_key")), ("default_model", text("model"))] {
        if let Some(value) = value {
            document.insert(key.into(), Value::String(value));
        }
    }
    if let Some(Value::Table(profiles)) = document.get_mut("model_providers") {
        profiles.remove(&name);
        if profiles.is_empty() {
            document.remove("model_providers");
        }
    }
    Ok(())
}

/// `[risk_profiles.R]` is `[autonomy]`, `[runtime_profiles.R]` is `[agent]`.
fn profiles(document: &mut Table, agent: &Table) {
    for (profiles, key, old) in
        [("risk_profiles", "risk_profile", "autonomy"), ("runtime_profiles", "runtime_profile", "agent")]
    {
        let Some(Value::Table(mut profiles)) = document.remove(profiles) else { continue };
        let name = agent.get(key).and_then(Value::as_str).unwrap_or(DEFAULT);
        if let Some(Value::Table(profile)) = profiles.remove(name) {
            let below = document.entry(old.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                below.extend(profile);
            }
        }
    }
}

/// `[channels]` of schemas 2 and 3.
fn channels(document: &mut Table, alias: &str, agent: &Table, notes: &mut Vec<String>) {
    let groups = document.remove("peer_groups").and_then(|groups| groups.as_table().cloned()).unwrap_or_default();
    let Some(Value::Table(channels)) = document.remove("channels") else { return };
    let bound: Option<Vec<&str>> = agent
        .get("channels")
        .and_then(Value::as_array)
        .map(|channels| channels.iter().filter_map(Value::as_str).collect());
    let of_schema_3 = !agent.is_empty();
    for (kind, below) in channels {
        let Value::Table(below) = below else { continue };
        if below.is_empty() || below.values().any(|value| !value.is_table()) {
            put(document, &kind, Value::Table(below));
            continue;
        }
        let mut taken = false;
        for (name, channel) in below {
            let Value::Table(channel) = channel else { continue };
            let full = format!("{kind}.{name}");
            let listens =
                bound.as_ref().is_some_and(|bound| bound.contains(&full.as_str()) || bound.contains(&kind.as_str()));
            // ZeroClaw's own default: a channel that nobody switched on is off.
            if channel.get("enabled") != Some(&Value::Boolean(true)) {
                continue;
            }
            if of_schema_3 && !listens {
                notes.push(format!(
                    "channels.{full} belongs to no agent and is off; add it to channels of [agents.{alias}]"
                ));
            } else if taken {
                notes.push(format!("channels.{full} is off: this gateway has one channel of each kind"));
            } else {
                taken = true;
                let peers = peers(&groups, &kind, &full, alias);
                put(document, &kind, Value::Table(channel_of_schema_1(&kind, channel, peers)));
            }
        }
    }
}

/// Who may write to a channel, by `[peer_groups]`.
fn peers(groups: &Table, kind: &str, full: &str, alias: &str) -> Vec<Value> {
    let applies = |group: &&Table| {
        let channel = group.get("channel").and_then(Value::as_str);
        let agents = group.get("agents").and_then(Value::as_array);
        channel.is_some_and(|channel| channel == full || channel == kind)
            && agents.is_none_or(|agents| {
                agents.iter().any(|agent| matches!(agent.as_str(), Some(a) if a == alias || a == "*"))
            })
    };
    let groups = groups.values().filter_map(Value::as_table).filter(applies);
    groups.filter_map(|group| group.get("external_peers")?.as_array()).flatten().cloned().collect()
}

fn channel_of_schema_1(kind: &str, mut channel: Table, peers: Vec<Value>) -> Table {
    channel.remove("enabled");
    for (list, single) in [("guild_ids", "guild_id"), ("channel_ids", "channel_id")] {
        match channel.remove(list) {
            Some(Value::Array(ids)) if ids.len() == 1 => {
                drop(ids.into_iter().next().map(|id| channel.insert(single.into(), id)))
            }
            Some(Value::Array(ids)) if ids.is_empty() => {}
            Some(other) => drop(channel.insert(list.into(), other)),
            None => {}
        }
    }
    if !peers.is_empty() {
        let list = if kind == "whatsapp" { "allowed_numbers" } else { "allowed_users" };
        channel.insert(list.into(), Value::Array(peers));
    }
    channel
}

fn put(document: &mut Table, kind: &str, channel: Value) {
    let below = document.entry("channels_config").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(below) = below {
        below.insert(kind.to_owned(), channel);
    }
}

/// Schema 3 keeps the switches of the schedule in `[scheduler]`, and declares jobs in `[cron.<alias>]`.
fn schedule(document: &mut Table, notes: &mut Vec<String>) {
    if let Some(Value::Table(cron)) = document.get_mut("cron") {
        let jobs: Vec<String> =
            cron.iter().filter(|(_, value)| value.is_table()).map(|(alias, _)| alias.clone()).collect();
        for alias in jobs {
            cron.remove(&alias);
            notes.push(format!("cron.{alias} is not run: jobs are made by POST /api/cron or by the agent"));
        }
    }
    let Some(Value::Table(scheduler)) = document.get("scheduler").cloned() else { return };
    let below = document.entry("cron").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(below) = below {
        for key in ["enabled", "catch_up_on_startup"] {
            if let Some(value) = scheduler.get(key) {
                below.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
    if let Some(Value::Table(scheduler)) = document.get_mut("scheduler") {
        ["enabled", "catch_up_on_startup"].iter().for_each(|key| drop(scheduler.remove(*key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Result<(Table, Vec<String>), String> {
        let (mut table, mut notes) = (text.parse::<Table>().unwrap(), Vec::new());
        translate(&mut table, &mut notes).map(|()| (table, notes))
    }

    const SCHEMA_3: &str = r#"
schema_version = 3
[providers.models.vllm.default]
uri = "http://h:1/v1"
model = "m"
api_key = "sk"
temperature = 0.3
[providers.models.openai.other]
model = "gpt"
[agents.default]
model_provider = "vllm.default"
risk_profile = "strict"
runtime_profile = "short"
channels = ["telegram.main"]
[risk_profiles.strict]
level = "readonly"
[risk_profiles.default]
level = "full"
[runtime_profiles.short]
max_tool_iterations = 3
[channels.telegram.main]
enabled = true
bot_token = "t"
[channels.telegram.idle]
bot_token = "u"
[channels.discord.default]
enabled = true
guild_ids = ["7"]
[peer_groups.family]
channel = "telegram.main"
agents = ["default"]
external_peers = ["ada", "42"]
[peer_groups.others]
channel = "telegram.main"
agents = ["someone-else"]
external_peers = ["eve"]
[scheduler]
catch_up_on_startup = false
[cron.morning]
schedule = "0 9 * * *"
"#;

    #[test]
    fn a_file_of_schema_3_means_the_same_in_schema_1() {
        let (table, notes) = translated(SCHEMA_3).unwrap();
        assert_eq!(table["default_provider"].as_str(), Some("custom:http://h:1/v1"));
        assert_eq!((table["default_model"].as_str(), table["api_key"].as_str()), (Some("m"), Some("sk")));
        assert_eq!(table["default_temperature"].as_float(), Some(0.3));
        assert_eq!(table["autonomy"]["level"].as_str(), Some("readonly"));
        assert_eq!(table["agent"]["max_tool_iterations"].as_integer(), Some(3));
        let telegram = table["channels_config"]["telegram"].as_table().unwrap();
        assert_eq!(telegram["allowed_users"], Value::from(vec!["ada", "42"]));
        assert_eq!((telegram["bot_token"].as_str(), telegram.get("enabled")), (Some("t"), None));
        assert_eq!(table["cron"]["catch_up_on_startup"].as_bool(), Some(false));
        let unwanted = ["providers", "agents", "channels", "peer_groups", "risk_profiles", "runtime_profiles"];
        assert!(unwanted.iter().all(|key| !table.contains_key(*key)), "{table:?}");
        let told = notes.join("; ");
        assert!(told.contains("channels.discord.default") && told.contains("cron.morning"), "{told}");
    }

    #[test]
    fn known_families_keep_their_name_and_others_become_an_address() {
        let whom = |family: &str, uri: &str| {
            let text = format!("[providers.models.{family}.a]\nuri = \"{uri}\"\nmodel = \"m\"\n");
            let (table, _) = translated(&text).unwrap();
            (
                table["default_provider"].as_str().unwrap().to_owned(),
                table.get("api_url").and_then(Value::as_str).map(str::to_owned),
            )
        };
        assert_eq!(whom("groq", "http://h"), ("groq".into(), Some("http://h".into())));
        assert_eq!(whom("ollama", "http://h:11434"), ("ollama".into(), Some("http://h:11434".into())));
        assert_eq!(whom("lmstudio", "http://h/v1"), ("custom:http://h/v1".into(), None));
        assert_eq!(whom("anthropic_compatible", "http://h"), ("anthropic-custom:http://h".into(), None));
    }

    #[test]
    fn a_file_of_schema_2_is_understood() {
        let text = "schema_version = 2\n[providers]\nfallback = \"openrouter\"\n[providers.models.openrouter]\napi_key = \"k\"\n\
                    model = \"m\"\n[providers.models.other]\nmodel = \"o\"\n[channels.telegram]\nbot_token = \"t\"\nallowed_users = [\"a\"]\n";
        let (table, notes) = translated(text).unwrap();
        assert_eq!(
            (table["default_provider"].as_str(), table["default_model"].as_str()),
            (Some("openrouter"), Some("m"))
        );
        assert_eq!(table["channels_config"]["telegram"]["bot_token"].as_str(), Some("t"));
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn an_old_file_with_a_new_number_means_what_it_says() {
        let text = "schema_version = 3\ndefault_provider = \"groq\"\napi_key = \"k\"\ndefault_model = \"m\"\n";
        let (table, _) = translated(text).unwrap();
        assert_eq!((table["default_provider"].as_str(), table["api_key"].as_str()), (Some("groq"), Some("k")));
    }

    #[test]
    fn a_named_provider_is_looked_up() {
        let text = "default_provider = \"mine\"\n[model_providers.mine]\nbase_url = \"http://h/v1\"\napi_key = \"k\"\nmodel = \"m\"\n";
        let (table, _) = translated(text).unwrap();
        assert_eq!(table["default_provider"].as_str(), Some("custom:http://h/v1"));
        assert_eq!((table["api_key"].as_str(), table["default_model"].as_str()), (Some("k"), Some("m")));
        assert!(!table.contains_key("model_providers"));
    }

    #[test]
    fn what_would_change_who_is_asked_is_refused_with_its_key() {
        for (text, key) in [
            ("schema_version = 99", "schema_version"),
            ("schema_version = \"x\"", "schema_version"),
            ("[agents.default]\nmodel_provider = \"openai.none\"", "agents.default.model_provider"),
            ("[agents.a]\nmodel_provider = \"x.y\"\n[agents.b]\nmodel_provider = \"x.z\"", "agents"),
            (
                "[providers.models.openai.a]\nmodel = \"m\"\n[providers.models.groq.b]\nmodel = \"m\"",
                "providers.models",
            ),
            ("default_provider = \"p\"\n[model_providers.p]\nwire_api = \"responses\"", "wire_api"),
        ] {
            let error = translated(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
