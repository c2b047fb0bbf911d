//! What people read: causes in sentences, tables that fit, waits that say why, followers that end.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::world::{Serving, World, echo_model, until};

fn create(serving: &Serving, world: &World, url: &str) {
    let create = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--provider-url", url];
    serving.verb(world, &[&create[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
}

#[test]
fn a_failed_model_is_explained_in_sentences_with_the_remedy() {
    let world = World::new();
    let serving = world.serve();
    create(&serving, &world, "http://127.0.0.1:9/v1");
    let failed = serving.refused(&world, &["agent", "message", "ada", "hi"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("cannot be reached"), "{failed:?}");
    let page = serving.verb(&world, &["agent", "explain", "ada"]);
    let lines: Vec<&str> = page.lines().collect();
    assert!(
        lines[0].starts_with("ada is RUNNING: it runs, but its model failed: 127.0.0.1:9 cannot be reached"),
        "{page}"
    );
    assert_eq!(lines[1], "Next: the model is asked again with the next message.");
    assert!(lines[2].starts_with("What to do: check the model's URL"), "{page}");
    assert!(
        page.contains("\nThe last lines of its log:\n") && !page.contains("[{") && !page.contains("\"text\""),
        "{page}"
    );
}

#[test]
fn a_wait_that_fails_says_what_explain_says() {
    let world = World::new();
    let serving = world
        .try_serve(&[("ZEROONE_PROCESS__COMMAND", "/bin/false"), ("ZEROONE_RESTART__MAX_FAILED_STARTS", "1")])
        .expect("it serves");
    let create = ["agent", "create", "Ada", "--provider", "ollama", "--model", "m", "--wait"];
    let failed = serving.refused(&world, &create);
    assert_eq!(failed.code, Some(4), "{failed:?}");
    let explained = serving.json(&world, &["agent", "explain", "ada"]);
    for part in [
        "ada is ERROR",
        "exit code 1",
        "Next: it is tried again by itself at 2",
        "What to do: ",
        "See: zeroone agent explain ada",
    ] {
        assert!(failed.stderr.contains(part), "{part} is not in {} ({explained})", failed.stderr);
    }
    let started = serving.refused(&world, &["agent", "start", "ada", "--wait"]);
    assert!(started.code == Some(4) && started.stderr.contains("ada is ERROR"), "{started:?}");
    let json = serving.refused(&world, &["agent", "wait", "ada", "-o", "json"]);
    let problem: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(problem["code"], "illegal-transition");
    assert!(problem["detail"].as_str().unwrap().contains("exit code 1"), "{problem}");
    let incidents = serving.verb(&world, &["agent", "incidents", "ada"]);
    assert!(incidents.contains("exit"), "{incidents}");
}

#[test]
fn tables_fit_80_columns_with_details_and_times_to_the_second() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    create(&serving, &world, &model);
    let name = "a name that is as long as the service lets names be";
    let long =
        ["agent", "create", &name[..50], "--provider", "ollama", "--model", "a-model-whose-name-is-rather-long-too"];
    serving.verb(&world, &long);
    serving.verb(&world, &["agent", "restart", "ada", "--wait"]);
    let narrow = |arguments: &[&str]| {
        let ended = world.run(arguments, &[("ZEROONE_URL", &serving.url), ("COLUMNS", "80")]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout
    };
    for table in
        [&["agent", "list"][..], &["agent", "events", "ada"], &["agent", "incidents", "ada"], &["user", "list"]]
    {
        let text = narrow(table);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{table:?}:\n{text}");
    }
    let events = narrow(&["agent", "events", "ada"]);
    let head: Vec<&str> = events.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["TIME", "STATUS", "CAUSE", "DETAIL"]);
    let time = events.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    assert_eq!(time.len(), "2026-11-26T13:45:46Z".len(), "{time}");
    let wide = narrow(&["agent", "list", "-o", "wide"]);
    assert!(wide.starts_with("ID "), "{wide}");
}

#[test]
fn an_agent_is_changed_measured_and_deleted_by_verbs() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    create(&serving, &world, "http://127.0.0.1:9/v1");
    let nothing = serving.refused(&world, &["agent", "update", "ada"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("say what to change"), "{nothing:?}");
    let changed = ["agent", "update", "ada", "--provider-url", &model, "--api-key-env", "MODEL_KEY", "--wait"];
    assert_eq!(serving.verb(&world, &changed), "RUNNING");
    assert!(serving.verb(&world, &["agent", "message", "ada", "again"]).contains("again"));
    assert_eq!(serving.verb(&world, &["agent", "update", "ada", "--name", "Eve"]), "RUNNING");
    assert_eq!(serving.json(&world, &["agent", "get", "ada"])["name"], "Eve");
    let stats = serving.json(&world, &["agent", "stats", "ada"]);
    assert!(stats["memoryMb"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!(serving.verb(&world, &["agent", "delete", "ada", "--yes", "--wait"]), "deleted ada");
}

/// Also one that has nothing to print: it does not wait for a line that may never come.
#[test]
fn a_follower_ends_when_its_reader_has_gone() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    create(&serving, &world, &model);
    for verb in ["logs", "events", "stats"] {
        let mut command = world.command(&["agent", verb, "ada", "--follow"]);
        let mut child = command.env("ZEROONE_URL", &serving.url).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(!lines.next().unwrap().unwrap().is_empty(), "{verb}");
        drop(lines);
        let status = until(&format!("{verb} ends"), || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{verb}");
    }
}

#[test]
fn shells_get_completions_and_readers_a_manual() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(&["completion", shell], &[]);
        assert!(script.code == Some(0) && script.stdout.contains("incidents"), "{shell}");
        std::fs::write(world.path(shell), &script.stdout).unwrap();
    }
    // As bash itself calls it: for the words of a line, what may come next.
    let ask = "source ./bash; COMP_WORDS=(zeroone agent expl); COMP_CWORD=2; _zeroone zeroone expl agent; echo ${COMPREPLY[*]}";
    let answer =
        std::process::Command::new("bash").args(["-c", ask]).current_dir(world.folder.path()).output().unwrap();
    assert_eq!(String::from_utf8(answer.stdout).unwrap().trim(), "explain");
    // Where there is a zsh: as a person types it, up to the tab.
    let session = r#"
        zmodload zsh/zpty && zpty z zsh -f -i
        zpty -w z 'PS1=; autoload -U compinit; compinit -u -d ./dump; source ./zsh; print re""ady'
        zpty -r -m z line '*ready*' && zpty -w -n z $'zeroone agent expl\t'
        zpty -r -m z line '*agent explain*' && print -r -- completed
    "#;
    match std::process::Command::new("zsh").args(["-f", "-c", session]).current_dir(world.folder.path()).output() {
        Ok(answer) => assert!(String::from_utf8_lossy(&answer.stdout).contains("completed"), "{answer:?}"),
        Err(_) => assert!(std::env::var_os("CI").is_none(), "CI has a zsh"),
    }
    assert!(world.run(&["man"], &[]).stdout.contains(".TH zeroone"));
    assert_eq!(world.run(&["man", "--dir", "pages"], &[]).code, Some(0));
    assert!(world.path("pages/zeroone-agent-explain.1").exists());
}
