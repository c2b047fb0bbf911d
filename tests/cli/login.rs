//! `login` and contexts: services by name, with keys that no other service gets.

use serde_json::Value;

use super::world::World;

#[test]
fn a_login_takes_the_place_of_url_and_key_until_it_is_forgotten() {
    let world = World::new();
    let serving = world.serve();
    let elsewhere = World::new();
    let home = elsewhere.folder.path().to_str().unwrap();
    let key = std::fs::read_to_string(world.path("zeroone-data/admin.key")).unwrap();
    let run = |arguments: &[&str], more: &[(&str, &str)]| elsewhere.run(arguments, &[more, &[("HOME", home)]].concat());

    let without = run(&["agent", "list", "--url", &serving.url], &[]);
    assert!(without.code == Some(4) && without.stderr.contains("zeroone login"), "{without:?}");
    let wrong = run(&["login", &serving.url], &[("ZEROONE_API_KEY", "zo_wrong")]);
    assert_eq!(wrong.code, Some(4), "a key that does not work is not kept: {wrong:?}");
    assert!(!elsewhere.path(".config").exists());

    let file = world.path("zeroone-data/admin.key");
    let done = run(&["login", &serving.url, "--name", "mine", "--key-file", file.to_str().unwrap()], &[]);
    assert!(done.code == Some(0) && done.stdout.contains("admin@localhost"), "{done:?}");
    assert!(!done.stdout.contains(key.trim()));
    assert_eq!(run(&["agent", "list"], &[]).code, Some(0));
    let version: Value = serde_json::from_str(&run(&["version", "-o", "json"], &[]).stdout).unwrap();
    assert_eq!(version["service"]["version"], version["program"]);

    let other = run(&["agent", "list"], &[("ZEROONE_URL", "http://127.0.0.1:1")]);
    assert_eq!(other.code, Some(5), "another URL is another service");
    assert!(run(&["context", "list"], &[]).stdout.contains("mine"));
    assert_eq!(run(&["context", "use", "yours"], &[]).code, Some(2));
    assert_eq!(run(&["logout"], &[]).code, Some(0));
    assert_eq!(run(&["agent", "list", "--url", &serving.url], &[]).code, Some(4));
    let data = world.path("zeroone-data");
    let by_folder = run(&["agent", "list", "--url", &serving.url, "--data", data.to_str().unwrap()], &[]);
    assert_eq!(by_folder.code, Some(0), "{by_folder:?}");
}
