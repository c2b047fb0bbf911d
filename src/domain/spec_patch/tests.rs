use proptest::prelude::*;

use super::*;

fn patch() -> SpecPatch {
    SpecPatch { api_key: Patch::Set("sk-1".into()), ..SpecPatch::new("Bob", Provider::Openai, "gpt-4o") }
}

fn created(patch: SpecPatch) -> Result<AgentSpec, Vec<String>> {
    patch.create().map(|applied| applied.spec).map_err(pointers)
}

fn pointers(problems: Problems) -> Vec<String> {
    problems.into_vec().into_iter().map(|problem| problem.pointer).collect()
}

#[test]
fn absent_fields_have_their_defaults() {
    assert_eq!(created(patch()), Ok(AgentSpec::new("Bob", Provider::Openai, "gpt-4o")));
}

#[test]
fn null_in_a_create_is_the_same_as_absent() {
    let body = r#"{"name": "Bob", "provider": "openai", "model": "gpt-4o", "apiKey": "k", "slug": null, "agentName": null,
        "timezone": null, "temperature": null, "memoryBackend": null, "autoSave": null, "channels": null}"#;
    let patch: SpecPatch = serde_json::from_str(body).unwrap();
    assert_eq!(created(patch), Ok(AgentSpec::new("Bob", Provider::Openai, "gpt-4o")));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = |length: usize| Patch::Set("x".repeat(length));
    let patch = SpecPatch {
        name: text(51),
        agent_name: text(0),
        user_name: text(101),
        timezone: "Mars/Olympus".into(),
        communication_style: text(501),
        provider: "OpenAI".into(),
        provider_url: "ftp://host".into(),
        temperature: Patch::Set(2.01),
        max_tokens: Patch::Set(0),
        memory_backend: "redis".into(),
        slug: "A B".into(),
        ..SpecPatch::default()
    };
    let expected = [
        "/name",
        "/provider",
        "/model",
        "/agentName",
        "/userName",
        "/timezone",
        "/communicationStyle",
        "/providerUrl",
        "/temperature",
        "/maxTokens",
        "/memoryBackend",
        "/slug",
    ];
    assert_eq!(created(patch).unwrap_err(), expected);
    assert_eq!(created(SpecPatch::default()).unwrap_err(), ["/name", "/provider", "/model"]);
}

#[test]
fn a_change_keeps_what_is_absent_and_clears_what_is_null() {
    let spec = AgentSpec {
        user_name: Some("Ann".into()),
        temperature: Some(0.2),
        timezone: "Asia/Tokyo".into(),
        ..AgentSpec::new("Bob", Provider::Openai, "gpt-4o")
    };
    let unchanged = SpecPatch::default().change(&spec, true).unwrap();
    assert_eq!((unchanged.spec, unchanged.api_key), (spec.clone(), Patch::Keep));
    let patch =
        SpecPatch { user_name: Patch::Clear, temperature: Patch::Clear, model: "o3".into(), ..SpecPatch::default() };
    let changed = patch.change(&spec, true).unwrap().spec;
    assert_eq!(changed, AgentSpec { user_name: None, temperature: None, model: "o3".into(), ..spec.clone() });
    let null = r#"{"name": null, "agentName": null, "timezone": null, "provider": null, "model": null,
        "memoryBackend": null, "autoSave": null, "slug": null}"#;
    let refused = serde_json::from_str::<SpecPatch>(null).unwrap().change(&spec, true).unwrap_err();
    let expected = ["/name", "/provider", "/model", "/agentName", "/timezone", "/memoryBackend", "/autoSave", "/slug"];
    assert_eq!(pointers(refused), expected);
}

#[test]
fn a_kept_key_is_never_sent_to_another_recipient() {
    let spec = AgentSpec::new("Bob", Provider::Openai, "gpt-4o");
    let own = |url: &str| AgentSpec { provider_url: Some(url.into()), ..spec.clone() };
    let url = |url: &str| SpecPatch { provider_url: url.into(), ..SpecPatch::default() };
    let with_key = |patch: SpecPatch| SpecPatch { api_key: Patch::Set("sk-2".into()), ..patch };
    let provider = |provider: &str| SpecPatch { provider: provider.into(), ..SpecPatch::default() };
    for (name, patch, kept, refused) in [
        ("another host", url("http://attacker.test/v1"), spec.clone(), true),
        ("another host, with a key", with_key(url("http://other.test/v1")), spec.clone(), false),
        ("the provider's own host", url("https://api.openai.com/v2"), spec.clone(), false),
        ("another path", url("http://a.test/v2"), own("http://a.test/v1"), false),
        ("another port", url("http://a.test:81/v1"), own("http://a.test/v1"), true),
        ("in clear", url("http://a.test/v1"), own("https://a.test/v1"), true),
        (
            "the URL is cleared",
            SpecPatch { provider_url: Patch::Clear, ..SpecPatch::default() },
            own("http://a.test"),
            true,
        ),
        ("another provider", provider("groq"), spec.clone(), true),
        ("another provider at the same URL", provider("groq"), own("http://a.test"), true),
        ("one that needs no key", provider("ollama"), spec.clone(), true),
        ("the key is removed", SpecPatch { api_key: Patch::Clear, ..provider("ollama") }, spec.clone(), false),
        ("another model", SpecPatch { model: "o3".into(), ..SpecPatch::default() }, spec.clone(), false),
    ] {
        let found = patch.change(&kept, true).err().map(pointers);
        assert_eq!(found, refused.then(|| vec!["/apiKey".to_owned()]), "{name}");
    }
}

#[test]
fn lengths_are_counted_in_characters_and_limits_are_included() {
    for (name, good) in
        [("é".repeat(50), true), ("é".repeat(51), false), (String::new(), false), ("  \t".into(), false)]
    {
        assert_eq!(created(SpecPatch { name: Patch::Set(name.clone()), ..patch() }).is_ok(), good, "{name:?}");
    }
    for (style, good) in [(0, true), (500, true), (501, false)] {
        let communication_style = Patch::Set("x".repeat(style));
        assert_eq!(created(SpecPatch { communication_style, ..patch() }).is_ok(), good);
    }
}

#[test]
fn text_that_would_break_a_file_elsewhere_is_data_here() {
    for name in ["a\"b", "a\nb", "[gateway]", "'''", "#", "${HOME}", "\\", "日本"] {
        assert_eq!(created(SpecPatch { name: name.into(), ..patch() }).unwrap().name, name);
    }
    for name in ["a\0b", "a\u{1b}[31m", "a\u{7f}", "a\r"] {
        assert!(created(SpecPatch { name: name.into(), ..patch() }).is_err(), "{name:?}");
    }
}

#[test]
fn a_temperature_is_a_number_from_zero_to_two() {
    for (temperature, good) in
        [(0.0, true), (2.0, true), (-0.1, false), (2.1, false), (f64::NAN, false), (f64::INFINITY, false)]
    {
        let patch = SpecPatch { temperature: Patch::Set(temperature), ..patch() };
        assert_eq!(created(patch).is_ok(), good, "{temperature}");
    }
}

#[test]
fn a_time_zone_is_a_name_and_never_a_path() {
    for (timezone, good) in [
        ("UTC", true),
        ("Europe/Zurich", true),
        ("America/Argentina/Buenos_Aires", true),
        ("", false),
        ("CET-1CEST,M3.5.0,M10.5.0/3", false),
        ("../../../etc/passwd", false),
        ("/etc/localtime", false),
    ] {
        assert_eq!(created(SpecPatch { timezone: timezone.into(), ..patch() }).is_ok(), good, "{timezone}");
    }
}

#[test]
fn a_provider_url_is_a_plain_web_address() {
    for (url, kept) in [
        ("http://127.0.0.1:8080/v1", Some("http://127.0.0.1:8080/v1")),
        ("https://models.example/v1/", Some("https://models.example/v1")),
        ("https://[::1]:1/v1", Some("https://[::1]:1/v1")),
        ("http:h", None),
        ("http:///h", None),
        ("http://@h", None),
        ("http:\\\\h\\v1", None),
        ("http://h/\0", None),
        ("http://h/\u{1b}[2J", None),
        ("https://user:secret@models.example", None),
        ("https://models.example/v1?key=secret", None),
        ("https://models.example/#x", None),
        ("https://", None),
        ("models.example", None),
        ("file:///etc/passwd", None),
        ("https://a b", None),
        ("https://a\n[gateway]", None),
    ] {
        let spec = created(SpecPatch { provider_url: url.into(), ..patch() }).ok();
        assert_eq!(spec.and_then(|spec| spec.provider_url).as_deref(), kept, "{url}");
    }
    let provider_url = Patch::Set(format!("https://models.example/{}", "x".repeat(500)));
    assert!(created(SpecPatch { provider_url, ..patch() }).is_err());
}

#[test]
fn a_key_is_required_where_the_provider_wants_one() {
    let count = |provider, key: Option<&str>| {
        let api_key = key.map_or(Patch::Keep, |key| Patch::Set(key.into()));
        let patch = SpecPatch { api_key, ..SpecPatch::new("a", provider, "m") };
        patch.create().err().map_or(0, |problems| pointers(problems).len())
    };
    for &provider in Provider::ALL {
        assert_eq!(count(provider, None), usize::from(provider != Provider::Ollama), "{provider}");
        assert_eq!(count(provider, Some("sk-1")), 0, "{provider}");
    }
    for key in ["", "two words", "line\nbreak", "schlüssel", &"x".repeat(1025)] {
        assert_eq!(count(Provider::Ollama, Some(key)), 1, "{key:?}");
    }
}

#[test]
fn a_specification_is_a_valid_patch_of_itself() {
    let spec = AgentSpec { user_name: Some("Ann".into()), ..AgentSpec::new("Bob", Provider::Openai, "gpt-4o") };
    assert_eq!(SpecPatch::recheck(&spec).ok(), Some(spec.clone()));
    assert!(SpecPatch::recheck(&AgentSpec { temperature: Some(9.7), ..spec.clone() }).is_err());
    assert!(SpecPatch::recheck(&AgentSpec { timezone: "../../etc/passwd".into(), ..spec }).is_err());
}

proptest! {
    /// What was sent in the wrong place may be a secret.
    #[test]
    fn no_remedy_repeats_what_was_sent(planted in "[a-z0-9]{12}[\u{0}\u{1b}]") {
        let sent = || Patch::Set(planted.clone());
        let patch = SpecPatch {
            name: sent(),
            agent_name: sent(),
            user_name: sent(),
            timezone: sent(),
            communication_style: sent(),
            provider: sent(),
            model: sent(),
            provider_url: sent(),
            temperature: Patch::Set(-1.0),
            memory_backend: sent(),
            slug: sent(),
            ..SpecPatch::default()
        };
        let mut problems = patch.create().unwrap_err().into_vec();
        let api_key = Patch::Set(Secret::new(planted.clone()));
        let key = SpecPatch { api_key, ..SpecPatch::new("a", Provider::Openai, "m") };
        problems.extend(key.create().unwrap_err().into_vec());
        prop_assert_eq!(problems.len(), 12);
        for problem in problems {
            prop_assert!(!problem.detail.contains(&planted[..12]), "{}", problem.detail);
        }
    }
}
