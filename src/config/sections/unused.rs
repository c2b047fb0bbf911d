//! Values that are set and would do nothing: a wish that goes unheard is as bad as a typo.

use super::{Config, UrlPolicy};
use crate::config::engines::Isolation;

/// Each key that is set without what makes it count, and what to do.
pub(super) fn check(config: &Config) -> Vec<(&'static str, Result<(), String>)> {
    let listed = !config.agents.provider_url_list.is_empty();
    let only = |unused: bool, needs: &str| {
        if unused { Err(format!("has no effect without {needs}; set that too, or leave this empty")) } else { Ok(()) }
    };
    vec![
        (
            "agents.provider_url_list",
            only(listed && config.agents.provider_urls != UrlPolicy::List, "agents.provider_urls = \"list\""),
        ),
        (
            "docker.joined",
            only(
                !config.docker.joined.is_empty() && config.docker.isolation != Isolation::PerAgent,
                "docker.isolation = \"per-agent\"",
            ),
        ),
        ("docker.traefik", only(config.docker.traefik && config.proxy.domain.is_empty(), "proxy.domain")),
    ]
}
