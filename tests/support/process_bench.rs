//! A process runtime in a folder of its own, whose instances are shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use zeroone::domain::InstallationId;
use zeroone::runtime::process::{ProcessOptions, ProcessRuntime};
use zeroone::runtime::{ContainerRuntime, InstanceKey, InstanceSpec, ObservedInstance};
use zeroone::testkit::conformance::{self, Act, Subject};

/// A shell is a program that obeys the environment contract well enough, and can do what no gateway does.
const SHELL: &str = r#"
case "$1" in
  count) i=0; while [ $i -lt "$2" ]; do i=$((i+1)); echo "line $i"; done; exec sleep 1000 ;;
  deaf) trap '' TERM; echo deaf; exec sleep 1000 ;;
  exit) exit "$2" ;;
  env) env; exec sleep 1000 ;;
  family) exec 3<&0; sleep 1001 & (trap '' HUP; exec setsid sleep 1002) & env -i sleep 1003 3<&- & echo born; wait ;;
  leave) exec 3<&0; sleep 1004 & setsid sleep 1005 & echo left; sleep 0.05; exit 3 ;;
  flood) seq 1 "$2"; echo done; exec sleep 1000 ;;
  hog) x=a; while :; do x=$x$x; done ;;
  abort) echo 'memory allocation of 4096 bytes failed'; kill -ABRT $$ ;;
  script) eval "$2"; echo done; exec sleep 1000 ;;
  burn) echo burning; while :; do :; done ;;
esac
"#;

/// A runtime with a folder of its own. Whatever a test leaves running ends with it.
pub(crate) struct Bench {
    pub(crate) options: ProcessOptions,
    pub(crate) runtime: ProcessRuntime,
    _root: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // For agents that are users of their own, as the service does it.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let options = ProcessOptions::new(InstallationId::new(), root.path().join("agents"), "/bin/sh")
            .with_args_prefix(vec!["-c".into(), SHELL.into(), "instance".into()])
            .with_environment(vec![("PATH".into(), std::env::var("PATH").unwrap())]);
        Self { runtime: ProcessRuntime::open(options.clone()).unwrap(), options, _root: root }
    }

    pub(crate) fn folder(&self, key: &InstanceKey) -> PathBuf {
        self.options.root.join(key.agent.to_string())
    }

    pub(crate) fn spec(&self, command: &[&str]) -> InstanceSpec {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        conformance::spec(self, Act::Count(1)).with_command(command)
    }

    /// Pids of all living processes that carry this installation's marker or whose session leader did.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let marker = format!("ZEROONE_INSTANCE={}", self.options.installation);
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let environ = environ(*pid);
            String::from_utf8_lossy(&environ).split('\0').any(|entry| entry.starts_with(&marker))
        })
        .collect()
    }
}

/// Empty for a process that is gone. One that executes a program meanwhile shows nothing, or a part of its old environment:
/// it is read until two looks show the same, so that nobody is overlooked.
fn environ(pid: i32) -> Vec<u8> {
    let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    // Threads of the kernel have no arguments either, and no memory.
    let executes = || read("cmdline").is_empty() && !read("statm").is_empty() && !read("statm").starts_with(b"0 ");
    let mut last = read("environ");
    for _ in 0..500 {
        let environ = read("environ");
        if environ == last && (!environ.is_empty() || !executes()) {
            return environ;
        }
        last = environ;
        std::thread::sleep(Duration::from_millis(1));
    }
    last
}

impl Drop for Bench {
    fn drop(&mut self) {
        for pid in self.processes() {
            for member in session(pid) {
                signal(member, Signal::KILL);
            }
            signal(pid, Signal::KILL);
        }
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// The living members of a session.
pub(crate) fn session(leader: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace().collect::<Vec<_>>();
        fields.len() > 3 && fields[0] != "Z" && fields[3] == leader.to_string()
    })
    .collect()
}

pub(crate) fn pid(observed: &ObservedInstance) -> i32 {
    observed.engine_id.parse().unwrap()
}

impl Subject for Bench {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(self.runtime.clone())
    }

    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async { Arc::new(ProcessRuntime::open(self.options.clone()).unwrap()) as Arc<dyn ContainerRuntime> }.boxed()
    }

    /// In the same folder, so that only the ownership tells them apart.
    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        let options = self.options.clone().with_installation(InstallationId::new());
        async { Arc::new(ProcessRuntime::open(options).unwrap()) as Arc<dyn ContainerRuntime> }.boxed()
    }

    fn command(&self, act: Act) -> Vec<String> {
        match act {
            Act::Count(lines) => vec!["count".into(), lines.to_string()],
            Act::Deaf => vec!["deaf".into()],
            Act::Exit(code) => vec!["exit".into(), code.to_string()],
        }
    }

    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async { signal(pid(observed), Signal::KILL) }.boxed()
    }

    fn pause<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async { signal(pid(observed), Signal::STOP) }.boxed()
    }

    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>> {
        async move { fs::read(self.folder(key).join("data").join(path)).ok() }.boxed()
    }
}
