//! The proxies that the environment names for all programs, for whoever did not set those of the agents.

/// A value for a key, and the variable that it came from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) from: &'a str,
}

/// By key, the variables in the order in which they count.
const NAMES: [(&str, &[&str]); 3] = [
    ("agents.https_proxy", &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
    ("agents.http_proxy", &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
    (EXCEPT, &["NO_PROXY", "no_proxy"]),
];
const EXCEPT: &str = "agents.no_proxy";

/// What is no proxy of HTTP is passed over: these variables are meant for others, too, and must not stop the service.
pub(super) fn find(env: &[(String, String)]) -> Vec<Found<'_>> {
    let found = NAMES.into_iter().filter_map(|(key, names)| {
        let set = |name: &&str| env.iter().find(|(known, value)| known == name && !value.trim().is_empty());
        let (from, value) = names.iter().find_map(set)?;
        let value = if key == EXCEPT { Some(value.clone()) } else { url(value.trim()) };
        Some(Found { key, value: value?, from })
    });
    found.collect()
}

/// Many programs take an address without a scheme, and mean HTTP by it.
fn url(text: &str) -> Option<String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    is_proxy(&text).then_some(text)
}

pub(super) fn is_proxy(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Vec<(String, String, String)> {
        let env: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let all = find(&env);
        all.into_iter().map(|found| (found.key.replace("agents.", ""), found.value, found.from.to_owned())).collect()
    }

    fn one(key: &str, value: &str, from: &str) -> (String, String, String) {
        (key.into(), value.into(), from.into())
    }

    #[test]
    fn capitals_count_before_small_letters_and_those_before_all() {
        let all = [("all_proxy", "http://all:1"), ("https_proxy", "http://small:1"), ("HTTPS_PROXY", "http://large:1")];
        let (large, rest) =
            (one("https_proxy", "http://large:1", "HTTPS_PROXY"), one("http_proxy", "http://all:1", "all_proxy"));
        assert_eq!(found(&all), [large, rest.clone()]);
        assert_eq!(found(&all[..2]), [one("https_proxy", "http://small:1", "https_proxy"), rest]);
        assert_eq!(found(&[("NO_PROXY", "a, b")]), [one("no_proxy", "a, b", "NO_PROXY")]);
    }

    #[test]
    fn address_without_scheme_is_http_and_what_agents_cannot_use_is_passed_over() {
        assert_eq!(found(&[("HTTP_PROXY", " proxy:3128 ")]), [one("http_proxy", "http://proxy:3128", "HTTP_PROXY")]);
        for value in ["", " ", "socks5://proxy:1080", "http://", "://"] {
            assert_eq!(found(&[("HTTPS_PROXY", value)]), [], "{value}");
        }
    }
}
