//! Whether a gateway would try to answer a message, by what it says about itself to a client that is paired.
//!
//! `/health` cannot tell: a gateway whose configuration names no usable model is as healthy as any other, and answers every
//! message with 503 for ever.

use serde_json::Value;

use super::profile::Profile;
use crate::domain::AgentSpec;

/// What a gateway says about itself. What a version does not tell is `None`, and counts for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelfReport {
    /// Such as `0.8.7`; versions before 0.8 do not tell.
    pub version: Option<String>,
    /// The model that it would ask; empty where it has none.
    pub model: Option<String>,
    /// What it lacks before it can answer, in its own words.
    pub missing: Option<String>,
}

impl SelfReport {
    /// From the answers of `/api/status` and `/api/config/status`; `None` for one that is no JSON, such as the dashboard's
    /// page that older versions give for an unknown path.
    pub fn read(status: Option<&Value>, config: Option<&Value>) -> Self {
        let text = |name: &str| Some(status?.get(name)?.as_str()?.to_owned());
        Self { version: text("version"), model: text("model"), missing: config.and_then(missing) }
    }

    /// Why no message would be answered as the agent is configured, with a remedy; `None` where nothing speaks against it.
    pub fn objection(&self, spec: &AgentSpec, profile: Profile) -> Option<String> {
        let family = self.version.as_deref().and_then(Profile::of_version);
        if let Some((version, family)) = self.version.as_deref().zip(family)
            && family != profile
            && profile != Profile::Embedded
        {
            return Some(format!(
                "the gateway is ZeroClaw {version}, but was configured as {profile}; take docker.profile or \
                 process.profile out of the configuration, or set it to {family}"
            ));
        }
        if let Some(missing) = &self.missing {
            return Some(format!("the gateway says: {missing} {REMEDY}"));
        }
        match self.model.as_deref().map(str::trim) {
            Some("") => Some(format!("the gateway has no model that it could ask. {REMEDY}")),
            Some(model) if model != spec.model.trim() => {
                Some(format!("the gateway would ask the model {model:?} instead of {:?}. {REMEDY}", spec.model))
            }
            Some(_) | None => None,
        }
    }
}

const REMEDY: &str =
    "Check that provider, model and apiKey belong together, change them by PATCH, then start the agent.";

/// The requirements of `needs_quickstart`, in one line.
fn missing(config: &Value) -> Option<String> {
    if config.get("needs_quickstart")?.as_bool() != Some(true) {
        return None;
    }
    let list = config.get("missing").and_then(Value::as_array);
    let words: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
    let reason = config.get("reason").and_then(Value::as_str).unwrap_or("needs_quickstart");
    Some(if words.is_empty() { reason.to_owned() } else { format!("{} ({reason})", words.join(" ")) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Provider;

    fn spec() -> AgentSpec {
        AgentSpec::new("a", Provider::Openai, "m-1")
    }

    fn objection(status: &Value, config: Option<&Value>, profile: Profile) -> Option<String> {
        SelfReport::read(Some(status), config).objection(&spec(), profile)
    }

    #[test]
    fn a_gateway_that_is_as_configured_is_usable() {
        let ready = json!({"needs_quickstart": false, "reason": "has_dispatchable_agent", "missing": []});
        for (status, config, profile) in [
            (json!({"version": "0.8.7", "model": "m-1"}), Some(&ready), Profile::V08),
            (json!({"model": "m-1"}), None, Profile::V01),
            (json!({"model": null}), None, Profile::V06),
            (json!({}), None, Profile::Embedded),
            (json!({"version": "1.4.0", "model": "m-1"}), None, Profile::Embedded),
        ] {
            assert_eq!(objection(&status, config, profile), None, "{status}");
        }
    }

    #[test]
    fn what_a_gateway_lacks_is_told_in_its_own_words() {
        let lacks = json!({"needs_quickstart": true, "reason": "incomplete_agent", "missing": ["Create an agent."]});
        let why = objection(&json!({"version": "0.8.7", "model": "m-1"}), Some(&lacks), Profile::V08).unwrap();
        assert!(why.starts_with("the gateway says: Create an agent. (incomplete_agent) "), "{why}");
        assert!(why.contains("PATCH"), "{why}");
        let silent = json!({"needs_quickstart": true});
        assert!(objection(&json!({}), Some(&silent), Profile::V08).unwrap().contains("needs_quickstart"));
    }

    #[test]
    fn another_model_than_configured_is_an_objection() {
        let why = objection(&json!({"model": "other"}), None, Profile::V01).unwrap();
        assert!(why.contains("\"other\"") && why.contains("\"m-1\""), "{why}");
        assert!(objection(&json!({"model": ""}), None, Profile::V08).unwrap().contains("no model"));
    }

    #[test]
    fn another_family_than_configured_is_an_objection() {
        let why = objection(&json!({"version": "0.8.7", "model": "m-1"}), None, Profile::V01).unwrap();
        assert!(why.contains("0.8.7") && why.contains("docker.profile"), "{why}");
    }
}
