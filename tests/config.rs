//! The configuration: what wins over what, and what is said about mistakes.

use zeroone::config::{Config, ConfigError, File, Flag, Loaded, RuntimeChoice};
use zeroone::control::Settings;
use zeroone::domain::InstallationId;
use zeroone::runtime::docker::DockerOptions;
use zeroone::runtime::process::ProcessOptions;
use zeroone::vault::MasterKeySource;

fn load(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Result<Loaded, ConfigError> {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags: Vec<_> = flags.iter().map(|&(name, key, value)| Flag { name, key, value: value.to_owned() }).collect();
    Config::load(Some(File { name: "test.toml", text: file }), &env, &flags)
}

/// The problems with a file and an environment.
fn problems(file: &str, env: &[(&str, &str)]) -> String {
    load(file, env, &[]).expect_err("it should be refused").to_string()
}

#[test]
fn the_defaults_are_those_of_the_library() {
    let loaded = Config::load(None, &[], &[]).unwrap();
    let config = &loaded.config;
    let (settings, library) = (config.settings(), Settings::default());
    assert_eq!(settings.restart, library.restart);
    assert_eq!(settings.timing, library.timing);
    assert_eq!(format!("{:?}", settings.limits), format!("{:?}", library.limits));
    assert_eq!(settings.domain, None);
    assert_eq!(settings.orphans, library.orphans);
    assert_eq!(config.bind.to_string(), "127.0.0.1:3001");
    assert_eq!(config.data.to_str(), Some("./zeroone-data"));
    assert_eq!(config.runtime, RuntimeChoice::Auto);
    let installation = InstallationId::new();
    let (docker, library) = (config.docker.options(installation).unwrap(), DockerOptions::new(installation));
    assert_eq!(format!("{docker:?}"), format!("{library:?}"));
    let process = config.process.options(installation, "r".into(), "p".into(), &[]);
    assert_eq!(process.log_limit_bytes, ProcessOptions::LOG_LIMIT_BYTES);
    assert_eq!(process.program.to_str(), Some("p"));
}

#[test]
fn a_later_layer_wins_over_an_earlier_one() {
    let file = "bind = \"127.0.0.1:1\"\n[health]\ninterval_secs = 1\nretry_secs = 2\nmisses = 4\n";
    let env = [("ZEROONE_HEALTH__RETRY_SECS", "20"), ("ZEROONE_BIND", "127.0.0.1:2"), ("HOME", "/h")];
    let loaded = load(file, &env, &[("--bind", "bind", "127.0.0.1:3")]).unwrap();
    let config = &loaded.config;
    assert_eq!((config.health.interval_secs, config.health.retry_secs, config.health.misses), (1, 20, 4));
    assert_eq!(config.health.timeout_ms, 1000);
    assert_eq!(config.bind.port(), 3);
    let shown = loaded.show();
    for line in [
        "bind = \"127.0.0.1:3\"  # --bind",
        "interval_secs = 1  # test.toml",
        "retry_secs = 20  # ZEROONE_HEALTH__RETRY_SECS",
        "timeout_ms = 1000  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let loaded =
        load("", &[("ZEROONE_DOCKER__JOINED", "zeroone, traefik"), ("ZEROONE_DOCKER__ISOLATION", "per-agent")], &[]);
    let loaded = loaded.unwrap();
    let again = load(&loaded.show(), &[], &[]).unwrap();
    assert_eq!(again.config, loaded.config);
    assert!(format!("{:?}", again.config.docker).contains(r#"["zeroone", "traefik"]"#));
}

#[test]
fn unknown_keys_are_errors_that_suggest_the_nearest() {
    let said = problems("[health]\nintervall_secs = 1\n[telemetrie]\nx = 1\n", &[("ZEROONE_DOCKER__IMGE", "x")]);
    assert!(
        said.contains("test.toml: health.intervall_secs is not a key; did you mean health.interval_secs?"),
        "{said}"
    );
    assert!(said.contains("test.toml: telemetrie.x is not a key"), "{said}");
    assert!(said.contains("ZEROONE_DOCKER__IMGE is no key; did you mean ZEROONE_DOCKER__IMAGE?"), "{said}");
    assert!(problems("", &[("ZEROONE_BNID", "x")]).contains("did you mean ZEROONE_BIND?"));
    assert!(
        problems("", &[("ZEROONE_NO__SUCH_THING_AT_ALL", "x")]).contains("ZEROONE_NO__SUCH_THING_AT_ALL is no key")
    );
    assert!(problems("[health.misses]\nx = 1\n", &[]).contains("health.misses must be a whole number"));
}

#[test]
fn variables_that_others_set_are_left_alone() {
    let env = [
        ("ZEROONE_PORT", "tcp://10.0.0.1:3001"),
        ("ZEROONE_PORT_3001_TCP_ADDR", "10.0.0.1"),
        ("ZEROONE_SERVICE_HOST", "10.0.0.1"),
        ("ZEROONE_URL", "http://h"),
        ("ZEROONE_API_KEY", "zo_1"),
        ("ZEROONE_CONTEXT", "prod"),
        ("ZEROONE_CONFIG", "f"),
        ("ZEROONE_API_SERVICE_PORT_HTTP", "1"),
        ("ZEROONE_API_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("ZEROONE_ENV_DEBUG", "1"),
    ];
    let loaded = load("", &env, &[]).unwrap();
    assert_eq!(loaded.config, Config::load(None, &[], &[]).unwrap().config);
    assert_eq!(loaded.warnings(), [""; 0]);
}

#[test]
fn variables_that_nobody_reads_are_named_with_the_nearest_that_somebody_does() {
    let env = [("ZEROONE_FOO", "planted"), ("ZEROONE_HEALTH_INTERVAL_SECS", "1"), ("ZEROONE_DOCKER_IMGE", "x")];
    let loaded = load("", &env, &[]).unwrap();
    let warnings = loaded.warnings();
    for (warning, parts) in warnings.iter().zip([
        ["ZEROONE_FOO is no key and has no effect", "zeroone config show"],
        ["ZEROONE_HEALTH_INTERVAL_SECS", "did you mean ZEROONE_HEALTH__INTERVAL_SECS?"],
        ["ZEROONE_DOCKER_IMGE", "did you mean ZEROONE_DOCKER__IMAGE?"],
    ]) {
        assert!(parts.iter().all(|part| warning.contains(part)) && !warning.contains("planted"), "{warning}");
    }
    assert_eq!(warnings.len(), 3);
}

#[test]
fn wrong_types_and_values_out_of_range_are_named_all_at_once() {
    let said = problems(
        "runtime = \"podman\"\n[health]\nmisses = 0\ninterval_secs = \"planted\"\n[docker]\njoined = [1]\n",
        &[
            ("ZEROONE_HEALTH__TIMEOUT_MS", "planted"),
            ("ZEROONE_SERVER__PUBLIC_BIND", "yes"),
            ("ZEROONE_START__START_SECS", "-1"),
        ],
    );
    for problem in [
        "health.misses (from test.toml) must be 1 to 100",
        "test.toml: health.interval_secs must be a whole number",
        "docker.joined must be a list of texts",
        "health.timeout_ms (from ZEROONE_HEALTH__TIMEOUT_MS) must be a whole number",
        "server.public_bind (from ZEROONE_SERVER__PUBLIC_BIND) must be true or false",
        "start.start_secs (from ZEROONE_START__START_SECS) must be 1 to 3600",
        "runtime (from test.toml) cannot be used: unknown variant `podman`, expected one of",
    ] {
        assert!(said.contains(problem), "{problem} is not in\n{said}");
    }
    assert!(!said.contains("planted"), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (file, problem) in [
        ("bind = \"localhost:3001\"", "bind (from test.toml) cannot be used"),
        ("bind = \"0.0.0.0:3001\"", "server.public_bind = true or --public-bind"),
        ("bind = \"[::]:3001\"", "server.public_bind = true or --public-bind"),
        ("[log]\nlevel = \"info,,=nonsense=\"", "log.level (from test.toml) must be error, warn"),
        ("[docker]\nprofile = \"0.2\"", "docker.profile (from test.toml) must be one of auto, 0.1"),
        ("[process]\nprofile = \"0.2\"", "process.profile (from test.toml) must be one of auto, 0.1"),
        ("[docker]\nsubnets = \"10.0.0.0\"", "docker.subnets (from test.toml)"),
        ("[docker]\nimage = \" \"", "docker.image (from test.toml) must not be empty"),
        ("[proxy]\ndomain = \"-a.example.com\"", "proxy.domain (from test.toml) must be a host name"),
        ("[restart]\nbase_delay_ms = 5000\nmax_delay_secs = 1", "must not be shorter than restart.base_delay_ms"),
        ("[health]\nmisses = 1\nmisses = 2", "test.toml, line 3:"),
        ("[log]\nlevel = \"loud\"", "log.level (from test.toml) must be error, warn"),
        ("[process]\nuids = \"0-10\"", "process.uids (from test.toml) must be a range of uids"),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"router\"]",
            "server.trusted_proxies (from test.toml) must be an IP address",
        ),
        ("[server]\nhosts = [\"https://a.example\"]", "server.hosts (from test.toml) must have host names"),
        (
            "[agents]\nprovider_url_list = [\"https://a.example\"]",
            "agents.provider_url_list (from test.toml) has no effect",
        ),
        ("[docker]\njoined = [\"zeroone\"]", "docker.joined (from test.toml) has no effect without docker.isolation"),
        ("[docker]\ntraefik = true", "docker.traefik (from test.toml) has no effect without proxy.domain"),
        ("[oidc]\nclient_id = \"x\"", "oidc.client_id (from test.toml) has no effect without oidc.issuer"),
    ] {
        let said = problems(file, &[]);
        assert!(said.contains(problem), "{file}: {problem} is not in\n{said}");
    }
    assert!(load("bind = \"0.0.0.0:1\"", &[("ZEROONE_SERVER__PUBLIC_BIND", "true")], &[]).is_ok());
}

#[test]
fn a_syntax_error_does_not_show_the_line() {
    let said = problems("[vault]\nmaster_key_file = \"planted\n", &[]);
    assert!(said.contains("test.toml, line 2") && !said.contains("planted"), "{said}");
}

#[test]
fn the_master_key_is_never_shown() {
    let key = "5e0c".repeat(16);
    let loaded = load("", &[("ZEROONE_MASTER_KEY", &key)], &[]).unwrap();
    assert!(matches!(loaded.master_key(true), MasterKeySource::Value(found) if *found.expose() == key));
    assert!(loaded.show().contains("ZEROONE_MASTER_KEY (not shown)"));
    assert!(!loaded.show().contains(&key) && !format!("{loaded:?}").contains(&key));
    assert!(problems(&format!("[vault]\nmaster_key = \"{key}\""), &[]).contains("vault.master_key is not a key"));
}

#[test]
fn a_master_key_is_made_for_a_new_store_only() {
    let loaded = load("data = \"d\"", &[], &[]).unwrap();
    assert!(matches!(loaded.master_key(false), MasterKeySource::FileOrNew(path) if path.ends_with("d/master.key")));
    assert!(matches!(loaded.master_key(true), MasterKeySource::File(path) if path.ends_with("d/master.key")));
    let loaded = load("", &[("ZEROONE_MASTER_KEY_FILE", "/run/key")], &[]).unwrap();
    assert!(matches!(loaded.master_key(false), MasterKeySource::File(path) if path.ends_with("/run/key")));
}

#[test]
fn instances_inherit_what_they_need_and_no_more() {
    let env: Vec<(String, String)> =
        [("PATH", "/bin"), ("AWS_SECRET", "planted"), ("LANG", "C")].map(|(a, b)| (a.into(), b.into())).to_vec();
    let loaded = Config::load(None, &env, &[]).unwrap();
    let options = loaded.config.process.options(InstallationId::new(), "r".into(), "p".into(), &env);
    assert_eq!(options.environment, [("PATH".to_owned(), "/bin".to_owned()), ("LANG".to_owned(), "C".to_owned())]);
}

#[test]
fn agents_get_the_proxies_of_the_environment_unless_the_configuration_names_others() {
    let proxies = |file, env: &[(&str, &str)]| load(file, env, &[]).unwrap().config.settings().proxies;
    let https = |file, env: &[(&str, &str)]| proxies(file, env).https.map(|url| url.expose().clone());
    let env = [("HTTPS_PROXY", "http://env:3128"), ("no_proxy", "a, b")];
    assert_eq!(https("", &env).as_deref(), Some("http://env:3128"));
    assert_eq!((proxies("", &env).http, proxies("", &env).except.as_str()), (None, "a,b"));
    let file = "[agents]\nhttps_proxy = \"http://file:3128\"\nno_proxy = [\"c\"]\n";
    assert_eq!(https(file, &env).as_deref(), Some("http://file:3128"));
    assert_eq!(proxies(file, &env).except, "c");
    assert_eq!(https("[agents]\nhttps_proxy = \"\"\n", &env), None, "said to be none");
    assert_eq!(https("", &[("HTTPS_PROXY", "socks5://env:1")]), None, "and the service starts all the same");
    let shown = load("", &[("HTTPS_PROXY", "http://ada:planted@env:3128")], &[]).unwrap().show();
    assert!(shown.contains("http://ada:not-shown@env:3128/\"  # HTTPS_PROXY"), "{shown}");
    let shown = load("", &[("HTTPS_PROXY", "http://planted@env:3128")], &[]).unwrap().show();
    assert!(shown.contains("http://not-shown@env:3128/\"  # HTTPS_PROXY"), "{shown}");
    let refused = problems("[agents]\nhttp_proxy = \"planted\"\n", &[]);
    assert!(refused.contains("agents.http_proxy (from test.toml) must be the URL of a proxy"), "{refused}");
    assert!(!refused.contains("planted"), "{refused}");
}
