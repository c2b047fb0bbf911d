//! What the program says and how it ends when something is wrong.

use super::world::World;

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let world = World::new();
    let serving = world.serve();
    let code = |arguments: &[&str]| serving.refused(&world, arguments).code;
    assert_eq!(code(&["agent", "list"]), Some(0));
    assert_eq!(code(&["agent", "fly"]), Some(2));
    assert_eq!(
        code(&["agent", "create", "a", "--provider", "openai", "--model", "m", "--api-key-env", "NONE"]),
        Some(2)
    );
    assert_eq!(code(&["agent", "get", "nobody"]), Some(3));
    assert_eq!(code(&["agent", "get", "019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a"]), Some(3));
    let invalid = serving.refused(&world, &["agent", "create", "a", "--provider", "gtp", "--model", "m"]);
    assert_eq!(invalid.code, Some(4));
    assert!(invalid.stderr.contains("--provider: must be one of"), "{}", invalid.stderr);
    assert_eq!(invalid.stderr.matches("must be one of").count(), 1, "{}", invalid.stderr);
    let nobody = world.run(&["agent", "list", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(nobody.code, Some(5));
    assert!(nobody.stderr.contains("nobody answers at http://127.0.0.1:1"), "{}", nobody.stderr);
    let keyless = world.run(&["agent", "list"], &[("ZEROONE_URL", &serving.url), ("ZEROONE_API_KEY", "zo_wrong")]);
    assert_eq!(keyless.code, Some(4));
    assert!(!keyless.stderr.contains("zo_wrong"), "{}", keyless.stderr);
    assert!(keyless.stderr.contains("does not know the API key from ZEROONE_API_KEY"), "{}", keyless.stderr);
}

#[test]
fn a_demo_without_a_folder_says_how_to_give_it_one() {
    let world = World::new();
    let nowhere = world.run(&["demo"], &[("TMPDIR", "/proc/nowhere")]);
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.stderr.contains("cannot make the folder /proc/nowhere/zeroone-demo-"), "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("set TMPDIR") && nowhere.stderr.contains("--data"), "{}", nowhere.stderr);
}

#[test]
fn a_field_that_is_not_valid_is_named_by_its_flag() {
    let world = World::new();
    let serving = world.serve();
    let create = |more: &[&str]| {
        let create = ["agent", "create", "a", "--provider", "openai", "--model", "m"];
        serving.refused(&world, &[&create[..], more].concat()).stderr
    };
    assert_eq!(
        create(&[]).trim(),
        "Error: --api-key-env (or --api-key-file, --api-key-stdin): is required by openai; only ollama works without"
    );
    let several = create(&["--temperature", "9", "--timezone", "Mars"]);
    for flag in ["--api-key-env", "--temperature: ", "--timezone: "] {
        assert_eq!(several.matches(flag).count(), 1, "{several}");
    }
    assert!(!several.contains("\n  /"), "no pointers: {several}");
    let status = serving.refused(&world, &["agent", "list", "--status", "stoped"]).stderr;
    assert!(status.contains("--status: must be one of PENDING"), "{status}");
}

#[test]
fn errors_are_json_where_answers_are() {
    let world = World::new();
    let serving = world.serve();
    let problem = |ended: &crate::world::Ended| {
        serde_json::from_str::<serde_json::Value>(&ended.stderr).unwrap_or_else(|_| panic!("{ended:?}"))
    };
    let create = ["agent", "create", "a", "--provider", "gtp", "--model", "m", "-o", "json"];
    let invalid = serving.refused(&world, &create);
    assert_eq!((invalid.code, invalid.stdout.as_str()), (Some(4), ""));
    let told = problem(&invalid);
    assert_eq!((&told["code"], &told["errors"][0]["pointer"]), (&"invalid".into(), &"/provider".into()), "{told}");
    let id = "019513f2-5c3e-7b1a-9c55-1f2e3d4c5b6a";
    let missing = serving.refused(&world, &["agent", "get", id, "-o", "json"]);
    assert_eq!((missing.code, &problem(&missing)["code"]), (Some(3), &"not-found".into()));
    let nobody = world.run(&["agent", "list", "--url", "http://127.0.0.1:1", "-o", "json"], &[]);
    assert_eq!((nobody.code, &problem(&nobody)["code"]), (Some(5), &"not-reachable".into()));
}

/// Answers one request, as a server of something else does.
fn foreign_server() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>");
    });
    format!("http://{address}")
}

#[test]
fn what_is_in_the_way_to_the_service_is_told_apart() {
    let world = World::new();
    let serving = world.serve();
    let foreign = foreign_server();
    let plain = serving.url.replace("http://", "https://");
    for (url, said) in [
        ("http://127.0.0.1:1", "the connection was refused"),
        ("http://nohost.invalid", "cannot be resolved"),
        (plain.as_str(), "does not speak TLS"),
        (foreign.as_str(), "is not a zeroone service"),
    ] {
        let ended = world.run(&["agent", "list", "--url", url], &[]);
        assert_eq!(ended.code, Some(5), "{url}: {ended:?}");
        assert!(ended.stderr.contains(said), "{url}: {}", ended.stderr);
    }
    let below = format!("{}/api/", serving.url);
    assert_eq!(world.run(&["agent", "list", "--url", &below], &[]).code, Some(0), "the API's own URL is as good");
    let alone = world.run(&["config", "check", "-o", "json"], &[]);
    assert!(alone.code == Some(2) && alone.stderr.contains("--output means nothing"), "{alone:?}");
    let late = world.run(&["--url", "http://127.0.0.1:1", "gateway"], &[]);
    assert!(late.code == Some(2) && late.stderr.contains("no flags before"), "{late:?}");
}

#[test]
fn a_start_on_a_taken_port_loses_no_hint_for_the_next_one() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let refused = world.run(&["serve", "--bind", &bind, "--runtime", "process"], &[]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("choose another by --bind"), "{}", refused.stderr);
    let hint = "zeroone-data/master.key: what it seals is lost without it";
    let told = |serving: &crate::world::Serving| serving.greeting.iter().any(|line| line.contains(hint));
    let mut first = world.serve();
    assert!(told(&first), "{:?}", first.greeting);
    assert_eq!(first.terminate().code(), Some(0));
    assert!(!told(&world.serve()), "once is enough");
}

#[test]
fn a_second_process_on_the_folder_is_told_so_and_the_first_goes_on() {
    let world = World::new();
    let serving = world.serve();
    let second = world.run(&["serve", "--bind", "127.0.0.1:0", "--runtime", "process"], &[]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("zeroone.redb is in use by another process"), "{}", second.stderr);
    serving.verb(&world, &["agent", "list"]);
}

#[test]
fn a_wrong_or_missing_master_key_is_named_and_changes_nothing() {
    let world = World::new();
    assert_eq!(world.serve().terminate().code(), Some(0));
    let (data, key) = (world.path("zeroone-data"), world.path("zeroone-data/master.key"));
    // As after a crash before anything was chosen: what a refused start makes, it makes anew.
    std::fs::remove_file(data.join("runtime")).unwrap();
    std::fs::remove_dir_all(data.join("agents")).unwrap();
    let before = names_in(&data);
    let other = "5e0c".repeat(16);
    let wrong = world.try_serve(&[("ZEROONE_MASTER_KEY", &other)]).err().expect("it must not start");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("is sealed with master key"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains(&other));
    assert_eq!(names_in(&data), before);

    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let missing = world.try_serve(&[]).err().expect("it must not start");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("master.key") && !key.exists(), "{}", missing.stderr);

    let text = String::from_utf8(kept).unwrap();
    let serving = world.try_serve(&[("ZEROONE_MASTER_KEY", text.trim())]).expect("it is the right one");
    assert_eq!(serving.json(&world, &["user", "list"])[0]["email"], "admin@localhost", "and all is there");
}

fn names_in(folder: &std::path::Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn mistakes_in_the_configuration_are_all_named() {
    let world = World::new();
    std::fs::write(world.path("mine.toml"), "[health]\nintervall_secs = 3\nmisses = 0\n").unwrap();
    for verb in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        let ended = world.run(&[verb, &["--config", "mine.toml"]].concat(), &[("ZEROONE_DOKCER__IMAGE", "x")]);
        assert_eq!(ended.code, Some(1), "{verb:?}");
        for problem in [
            "mine.toml: health.intervall_secs is not a key; did you mean health.interval_secs?",
            "health.misses (from mine.toml) must be 1 to 100",
            "ZEROONE_DOKCER__IMAGE is no key; did you mean ZEROONE_DOCKER__IMAGE?",
        ] {
            assert!(ended.stderr.contains(problem), "{problem} is not in {}", ended.stderr);
        }
    }
    assert!(!world.path("zeroone-data").exists(), "nothing is made for a service that cannot run");
    let absent = world.run(&["config", "check"], &[("ZEROONE_CONFIG", "none.toml")]);
    assert!(absent.code == Some(1) && absent.stderr.contains("none.toml"), "{absent:?}");
}

#[test]
fn an_address_for_all_the_world_must_be_asked_for_twice() {
    let world = World::new();
    let ended = world.run(&["serve", "--bind", "0.0.0.0:0"], &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("--public-bind"), "{}", ended.stderr);
    assert!(!world.path("zeroone-data").exists());
}

#[test]
fn the_configuration_in_force_is_shown_with_its_origins() {
    let world = World::new();
    let key = "5e0c".repeat(16);
    let shown = world.run(&["config", "show"], &[("ZEROONE_MASTER_KEY", &key), ("ZEROONE_BIND", "127.0.0.1:9")]);
    assert_eq!(shown.code, Some(0));
    assert!(shown.stdout.contains("bind = \"127.0.0.1:9\"  # ZEROONE_BIND"), "{}", shown.stdout);
    assert!(!shown.stdout.contains(&key));
}

#[test]
fn the_document_and_the_help_are_printed_without_a_service() {
    let world = World::new();
    let openapi = world.run(&["openapi"], &[]);
    let document: serde_json::Value = serde_json::from_str(&openapi.stdout).unwrap();
    assert!(document["paths"]["/api/agents"]["post"].is_object());
    let help = world.run(&["gateway", "--help"], &[]);
    assert!(help.code == Some(0) && help.stdout.contains("--port"), "{help:?}");
}
