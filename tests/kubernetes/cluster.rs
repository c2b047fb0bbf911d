//! The cluster that `scripts/kubernetes` made, and what its administrator does to it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Images on the node: this very program, zeroone itself, and ZeroClaw's.
pub(crate) const ACTS: &str = "zeroone-test/acts:1";
pub(crate) const ZEROONE: &str = "zeroone-test/zeroone:1";
pub(crate) const ZEROCLAW: [&str; 2] = ["zeroclaw:0.8.7", "zeroclaw:0.1.7"];

/// The address of this machine, as Pods have it.
pub(crate) const HOST: [u8; 4] = [10, 240, 7, 1];
/// The API server's, as Pods have it.
pub(crate) const API_SERVER: (&str, u16) = ("10.240.7.2", 6443);

pub(crate) struct Cluster;

impl Cluster {
    pub(crate) fn is_up() -> bool {
        script(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// The images that tests need are on the node.
    pub(crate) fn prepare() {
        let own = std::env::current_exe().unwrap();
        ok(&["import", own.to_str().unwrap(), ACTS]);
        ok(&["import", env!("CARGO_BIN_EXE_zeroone"), ZEROONE]);
        ok(&[["load"].as_slice(), &ZEROCLAW].concat());
    }

    pub(crate) fn kubeconfig() -> PathBuf {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("ZEROONE_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("zeroone")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/zeroone")));
        cache.expect("there is a home").join("kubernetes-1.20.2/certs/admin.kubeconfig")
    }
}

/// Users' CI has a cluster of another kind, with a script of the same verbs.
pub(crate) fn script(arguments: &[&str]) -> Command {
    let script = std::env::var_os("ZEROONE_TEST_CLUSTER").unwrap_or_else(|| "scripts/kubernetes".into());
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What the script says; it must succeed.
pub(crate) fn ok(arguments: &[&str]) -> String {
    tried(arguments).unwrap_or_else(|said| panic!("scripts/kubernetes {}: {said}", arguments.join(" ")))
}

/// What it says, or what it complains of.
pub(crate) fn tried(arguments: &[&str]) -> Result<String, String> {
    let output = script(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Gives the administrator's kubectl a manifest.
pub(crate) fn apply(manifest: &Value) {
    with_input(&["kubectl", "apply", "-f", "-"], manifest);
}

pub(crate) fn with_input(arguments: &[&str], input: &Value) {
    use std::io::Write as _;
    let mut child = script(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{arguments:?} {input}");
}
