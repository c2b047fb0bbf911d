//! What is read from `config.toml` and its environment, and how the file is written.

use super::*;

fn loaded(text: &str) -> Result<Loaded, String> {
    effective(text, &Options::new("/nowhere"))
}

#[test]
fn keys_are_read_and_the_others_told_by_what_they_mean() {
    let loaded = loaded(
        "default_temperature = 0.2\nnope = 1\n[gateway]\nport = 7\nodd = true\n[observability]\nbackend = \"log\"\n\
         [[model_routes]]\nhint = \"fast\"\n",
    )
    .unwrap();
    assert_eq!(loaded.config.gateway.port, 7);
    assert_eq!(loaded.notes.unknown, ["gateway.odd", "nope"]);
    assert_eq!(loaded.notes.harmless, ["observability"]);
    assert!(loaded.notes.off.len() == 1 && loaded.notes.off[0].starts_with("model_routes "), "{:?}", loaded.notes);
}

#[test]
fn errors_say_where_and_never_what() {
    let secret = "12345:planted-token";
    for (text, place) in [
        (format!("a = 1\nbot_token = \"{secret}\n"), "line 2"),
        (format!("[gateway]\nport = \"{secret}\"\n"), "gateway.port"),
        (format!("[memory]\nbackend = \"{secret}\"\n"), "memory.backend"),
        (format!("[gateway]\npaired_tokens = \"{secret}\"\n"), "gateway.paired_tokens"),
        (format!("[gateway.tls]\nenabled = true\nkey = \"{secret}\"\n"), "gateway.tls"),
        (format!("api_key = \"${{NOT_SET}}{secret}\"\n"), "NOT_SET"),
    ] {
        let error = loaded(&text).map(|_| ()).unwrap_err();
        assert!(error.contains(place), "{error}");
        assert!(!error.contains("planted"), "{error}");
    }
}

/// The settings of a file, with what a process has in its environment.
fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    effective(text, &Options::with_environment(variables))
}

#[test]
fn a_variable_is_read_as_what_its_key_wants() {
    let text = "default_model = \"${SEVEN}\"\ndefault_temperature = \"${ZERO}\"\nprovider_max_tokens = \"$SEVEN\"\n\
                [gateway]\nport = \"${SEVEN}\"\nrequire_pairing = \"${NO}\"\nsession_persistence = \"${ZERO}\"\n\
                allowed_hosts = \"${LIST}\"\ncors_origins = [\"${SEVEN}\"]\n[cost]\nenabled = \"${OFF:-True}\"\n";
    let variables = [("SEVEN", "7"), ("ZERO", "0"), ("NO", "no"), ("LIST", "a.example, b.example")];
    let config = with_environment(text, &variables).unwrap().config;
    assert_eq!((config.default_model.as_str(), config.gateway.port), ("7", 7));
    assert_eq!((config.default_temperature, config.provider_max_tokens), (Some(0.0), Some(7)));
    assert!(!config.gateway.require_pairing && !config.gateway.session_persistence);
    assert_eq!(config.gateway.allowed_hosts, ["a.example", "b.example"]);
    assert_eq!((config.gateway.cors_origins, config.cost.enabled), (vec!["7".to_owned()], Some(true)));
    for (value, key) in [("planted", "gateway.port"), ("70000", "gateway.port"), ("7.5", "gateway.port")] {
        let error = with_environment("[gateway]\nport = \"${PORT_OF_MINE}\"\n", &[("PORT_OF_MINE", value)]);
        let error = error.map(|_| ()).unwrap_err();
        assert!(error.contains(key) && error.contains("u16") && !error.contains(value), "{error}");
    }
    // What is written in the file itself keeps its type.
    assert!(with_environment("[gateway]\nport = \"8\"\n", &[]).is_err());
}

#[test]
fn a_switch_of_the_environment_counts_before_its_key_is_judged() {
    let text = "[gateway.tls]\nenabled = \"${TLS:-false}\"\n[channels.telegram.main]\n\
                enabled = \"${TELEGRAM}\"\nbot_token = \"t\"\n";
    let config = with_environment(text, &[("TELEGRAM", "true")]).unwrap().config;
    assert!(config.channels_config.telegram.is_some());
    assert!(with_environment(text, &[("TELEGRAM", "true"), ("TLS", "true")]).is_err());
}

#[test]
fn what_zeroclaw_encrypted_is_told_and_dropped() {
    for key in ["enc2:00aa", "enc:00aa"] {
        let text = format!("api_key = \"{key}\"\n[gateway]\npaired_tokens = [\"{key}\", \"zc_1\"]\n");
        let Loaded { config, notes } = loaded(&text).unwrap();
        assert!(config.api_key.is_none() && config.gateway.paired_tokens.len() == 1);
        assert!(notes.broken.len() == 1 && notes.broken[0].starts_with("api_key was encrypted"), "{notes:?}");
        assert!(notes.off[0].contains("paired_tokens") && !format!("{notes:?}").contains("00aa"), "{notes:?}");
        let Loaded { config, notes } = with_environment(&text, &[("API_KEY", "sk")]).unwrap();
        assert!(config.api_key.is_some() && notes.broken.is_empty(), "the variable stands in");
        let webhook = format!("[channels_config.webhook]\nport = 1\nsecret = \"{key}\"\n");
        let off = loaded(&webhook).unwrap().notes.off;
        assert!(off.len() == 1 && off[0].contains("channels_config.webhook.secret was encrypted"), "{off:?}");
    }
}

#[test]
fn other_names_of_provider_and_model_are_read_in_files_of_the_first_schema() {
    let text = "model_provider = \"mine\"\nmodel = \"m\"\n[model_providers.mine]\nbase_url = \"http://h/v1\"\n";
    let Loaded { config, notes } = loaded(text).unwrap();
    assert_eq!((config.provider(), config.default_model.as_str()), ("custom:http://h/v1", "m"));
    assert_eq!(notes, Notes::default());
}

#[test]
fn a_zone_that_is_none_is_told_unless_the_file_has_one() {
    let zone = |text: &str, tz: &str| with_environment(text, &[("TZ", tz)]).map(|l| (l.config.timezone, l.notes.off));
    let (zone_of_it, told) = zone("", "Mars/Olympus").unwrap();
    assert!(zone_of_it.is_none() && told.len() == 1 && told[0].starts_with("TZ "), "{told:?}");
    assert_eq!(zone("", "Asia/Tokyo").unwrap(), (Some("Asia/Tokyo".to_owned()), vec![]));
    let by_file = zone("timezone = \"Europe/Zurich\"\n", "Mars/Olympus").unwrap();
    assert_eq!(by_file, (Some("Europe/Zurich".to_owned()), vec![]));
}

#[test]
fn an_edit_keeps_comments_and_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/config.toml");
    let file = ConfigFile::new(path.clone());
    file.edit(|document| document["a"] = toml_edit::value(1)).unwrap();
    fs::write(&path, "# mine\na = 1\n").unwrap();
    file.edit(|document| document["b"] = toml_edit::value(2)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\na = 1\nb = 2\n");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_broken_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "not toml").unwrap();
    assert!(ConfigFile::new(path.clone()).edit(|document| document["a"] = toml_edit::value(1)).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "not toml");
}

#[test]
fn a_link_stays_and_its_target_is_written() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (store, home) = (folder.path().join("store"), folder.path().join("home"));
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&home).unwrap();
    fs::write(store.join("real.toml"), "# mine\n").unwrap();
    // A relative link through another one, and one to a file that is not there yet.
    symlink("../store/real.toml", home.join("inner.toml")).unwrap();
    symlink("inner.toml", home.join("config.toml")).unwrap();
    symlink(store.join("new.toml"), home.join("later.toml")).unwrap();
    for (link, target) in [("config.toml", "real.toml"), ("later.toml", "new.toml")] {
        ConfigFile::new(home.join(link)).edit(|document| document["a"] = toml_edit::value(1)).unwrap();
        assert!(home.join(link).symlink_metadata().unwrap().is_symlink(), "{link}");
        assert!(fs::read_to_string(store.join(target)).unwrap().contains("a = 1\n"), "{target}");
    }
    assert_eq!(fs::read_dir(&store).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn a_second_name_of_the_file_sees_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("config.toml"), folder.path().join("backup.toml"));
    fs::write(&path, "# a long comment that the new content is shorter than\nb = 2\n").unwrap();
    fs::hard_link(&path, &other).unwrap();
    ConfigFile::new(path).rewrite(|_| Ok("a = 1\n".parse().unwrap())).unwrap();
    assert_eq!(fs::read_to_string(other).unwrap(), "a = 1\n");
}
