//! Verbs in a real terminal of 80 columns, by tmux: what a person sees, and what their keys do.

use std::process::{Command, Output};

use super::world::{Serving, World, echo_model, until};

/// A shell in a terminal of its own, which ends with the test.
struct Terminal<'a> {
    world: &'a World,
    commands: usize,
}

impl<'a> Terminal<'a> {
    /// `None` where there is no tmux.
    fn open(world: &'a World, serving: &Serving) -> Option<Self> {
        let terminal = Self { world, commands: 0 };
        let folder = world.folder.path();
        let bin = std::path::Path::new(env!("CARGO_BIN_EXE_zeroone")).parent().unwrap().display();
        let shell = format!("env -i TERM=screen PATH={bin}:/usr/bin:/bin ZEROONE_URL={} sh", serving.url);
        let opened = Command::new("tmux")
            .args(["-S", "tmux", "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "200", &shell])
            .current_dir(folder)
            .env("TERM", "screen")
            .status();
        match opened {
            Ok(status) => assert!(status.success(), "tmux: {status}"),
            Err(_) => {
                assert!(std::env::var_os("CI").is_none(), "CI has a tmux");
                return None;
            }
        }
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.args(["-S", "tmux"]).args(arguments).current_dir(self.world.folder.path());
        tmux.output().unwrap()
    }

    /// What it shows, a line that was wrapped as one.
    fn shown(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p", "-J"]).stdout).unwrap()
    }

    fn type_line(&mut self, line: &str) -> String {
        self.commands += 1;
        let end = format!("end-{}", self.commands);
        // In two parts, so that the line as it was typed is not taken for its end.
        self.tmux(&["send-keys", "-l", &format!("clear; {line}; echo exit=$? en''{}", &end[2..])]);
        self.tmux(&["send-keys", "Enter"]);
        end
    }

    /// Runs a line to its end, and gives what it showed and its exit code.
    fn run(&mut self, line: &str) -> (String, String) {
        let end = self.type_line(line);
        self.ended(&end)
    }

    fn ended(&self, end: &str) -> (String, String) {
        until(end, || {
            let shown = self.shown();
            let (said, code) = shown.rsplit_once("exit=")?;
            let code = code.split_once(&format!(" {end}"))?.0;
            // The first line may be the one that was typed.
            Some((said.to_owned(), code.to_owned()))
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

#[test]
fn verbs_fit_a_terminal_of_80_columns_and_obey_its_keys() {
    let (world, model) = (World::new(), echo_model());
    let serving = world.serve();
    let Some(mut terminal) = Terminal::open(&world, &serving) else { return };
    let create = ["agent", "create", "Ada", "--provider", "openai", "--model", "m", "--provider-url", &model];
    serving.verb(&world, &[&create[..], &["--api-key-env", "MODEL_KEY", "--wait"]].concat());
    serving.verb(&world, &["agent", "message", "ada", "hi"]);
    serving.verb(&world, &["agent", "restart", "ada", "--wait"]);
    for verb in [
        "agent list",
        "agent events ada",
        "agent incidents ada",
        "agent stats ada",
        "user list",
        "key list",
        "audit",
        "doctor",
        "version",
    ] {
        let (shown, code) = terminal.run(&format!("zeroone {verb}"));
        assert!(["0", "1"].contains(&code.as_str()) && (code == "0" || verb == "doctor"), "{verb}: {code}\n{shown}");
        let typed = |line: &&str| !line.contains("clear; ");
        let long: Vec<&str> = shown.lines().filter(typed).filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{verb}: {long:#?}");
        assert!(shown.trim().len() > 5, "{verb} shows nothing");
    }
    let (shown, code) = terminal.run("zeroone agent events ada | head -n 1");
    assert!(code == "0" && shown.contains("CAUSE") && !shown.contains("roken pipe"), "{code} {shown}");
    let (shown, code) = terminal.run("zeroone agent get nobody -o json");
    assert!(code == "3" && shown.contains("\"not-found\""), "{code} {shown}");

    // A follower ends by Ctrl-C, which ends the rest of the line too, and leaves the terminal as it was.
    terminal.type_line("zeroone agent logs ada --follow");
    until("it follows", || terminal.shown().lines().filter(|line| !line.trim().is_empty()).nth(1).map(drop));
    terminal.tmux(&["send-keys", "C-c"]);
    assert_eq!(terminal.run("zeroone version > /dev/null").1, "0");
    // It asks before it deletes, and no is no.
    let end = terminal.type_line("zeroone agent delete ada");
    until("it asks", || terminal.shown().contains('?').then_some(()));
    terminal.tmux(&["send-keys", "-l", "n"]);
    terminal.tmux(&["send-keys", "Enter"]);
    assert_ne!(terminal.ended(&end).1, "0");
    assert_eq!(terminal.run("zeroone agent wait ada > /dev/null").1, "0");
}
