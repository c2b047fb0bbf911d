//! Starting an instance's process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::cgroup::Cgroup;
use super::folder::Folder;
use super::marker::Marker;
use super::output::Output;
use super::pidfd::Process;
use super::walls::Walls;
use crate::runtime::InstanceSpec;

/// A program and what every instance of it gets.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// What it may read besides the system's files; none where there shall be no walls.
    pub(super) readable: Option<Vec<PathBuf>>,
}

/// Set from what the runtime knows, whatever the spec says.
const DATA: &str = "HOME";
const TEMPORARY: &str = "TMPDIR";
const WORKSPACE: &str = "ZEROCLAW_WORKSPACE";
const PORT: &str = "ZEROCLAW_GATEWAY_PORT";
const HOST: &str = "ZEROCLAW_GATEWAY_HOST";
/// The same for ZeroClaw 0.8, which ignores those.
const CONFIG_DIR: &str = "ZEROCLAW_CONFIG_DIR";
const NATIVE_PORT: &str = "ZEROCLAW_gateway__port";
const NATIVE_HOST: &str = "ZEROCLAW_gateway__host";
const NATIVE_PUBLIC: &str = "ZEROCLAW_gateway__allow_public_bind";
/// Meant for a container, where every address is inside. Here the instance stays on loopback.
const PUBLIC: &str = "ZEROCLAW_ALLOW_PUBLIC_BIND";

/// Open files of an instance: a few hundred connections, its database and logs.
const OPEN_FILES: u64 = 1024;
/// Processes and threads of the service's user: those of a thousand agents, and not a fork bomb's.
const PROCESSES: u64 = 16 * 1024;
/// The same where the user is one agent: a browser that a tool starts has some hundred.
const OWN_PROCESSES: u64 = 1024;
/// The largest file: more than any memory or log, less than the disk.
const FILE_BYTES: u64 = 1 << 30;
/// Writable memory beyond the plan's that an instance may ask for: stacks of threads and an allocator's reserves count as
/// asked for, and are mostly never touched.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// When the machine runs out of memory, its kernel shall choose an instance and not the control plane.
const OOM_SCORE: &str = "500";

/// One start of an instance.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Program,
    pub(super) folder: &'a Folder,
    pub(super) marker: &'a Marker,
    pub(super) spec: &'a InstanceSpec,
    pub(super) output: &'a Output,
    /// The uid and gid that it gets; else it is the service's user.
    pub(super) user: Option<u32>,
    /// What limits its memory together with that of all that it starts.
    pub(super) cgroup: Option<&'a Cgroup>,
}

/// Starts the program in a session of its own. `lock` becomes its standard input, so that the kernel
/// keeps the lock for as long as it lives.
///
/// # Errors
/// The program cannot be started; nothing runs then.
pub(super) fn launch(start: &Launch<'_>, lock: File) -> io::Result<Process> {
    let Launch { program, folder, marker, spec, output, user, cgroup } = start;
    let mut process = Command::new(&program.path);
    process.args(&program.arguments).args(&spec.command).env_clear().envs(program.environment.iter().cloned());
    process.envs(spec.env.iter().map(|(name, value)| (name, value.expose())));
    process
        .env_remove(PUBLIC)
        .env(DATA, folder.data())
        .env(TEMPORARY, folder.temporary())
        .env(WORKSPACE, folder.workspace())
        .env(PORT, marker.port.to_string())
        .env(HOST, "127.0.0.1")
        .env(CONFIG_DIR, folder.data().join(".zeroclaw"))
        .env(NATIVE_PORT, marker.port.to_string())
        .env(NATIVE_HOST, "127.0.0.1")
        .env(NATIVE_PUBLIC, "false")
        .env(Marker::VARIABLE, marker.value())
        .current_dir(folder.workspace())
        .stdin(Stdio::from(lock))
        .stdout(output.writer()?)
        .stderr(output.writer()?);
    let limits = limits(spec.memory_mb, user.is_some());
    let group = cgroup.map(Cgroup::door).transpose()?;
    let user = user.map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
    #[expect(unsafe_code, reason = "a session, limits and a user of its own can only be set between fork and exec")]
    // SAFETY: the closure runs in the forked child of a process with many threads. It only makes system calls, on values
    // that were made before the fork; it takes no lock and allocates nothing.
    unsafe {
        process.pre_exec(move || {
            setsid()?;
            if let Some(group) = &group {
                // The calling process, whatever its number.
                rustix::io::write(group, b"0")?;
            }
            for (resource, limit) in limits {
                setrlimit(resource, limit)?;
            }
            if let Some((user, group)) = user {
                // The groups of the service's user, too, open doors. This order, for the last step takes the right to the others.
                set_thread_groups(&[])?;
                set_thread_res_gid(group, group, group)?;
                set_thread_res_uid(user, user, user)?;
            }
            Ok(())
        });
    }
    let mut child = match &program.readable {
        Some(readable) => Walls { own: &[folder.data(), folder.temporary()], readable }.behind(|| process.spawn())?,
        None => process.spawn()?,
    };
    // Not worth failing for: it only makes a bad day better.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE);
    Process::child(child.id()).inspect_err(|_| {
        // Out of descriptors: what nobody can watch must not run. Both calls are about a child of ours that nobody else
        // has waited for, and cannot fail.
        let _ = child.kill();
        let _ = child.wait();
    })
}

/// Kernel limits of an instance: no core dumps (they hold its secrets), open files, processes, the size of a file, and writable
/// memory. Processes are counted for the whole user, so that limit only ends a flood of them.
///
/// The memory limit is on what each process asks for, not on what it touches: the kernel has no other for a single process. A
/// request beyond it fails, which ends most programs. What all of them touch together is limited by the control group.
fn limits(memory_mb: u32, own_user: bool) -> [(Resource, Rlimit); 5] {
    let capped = |resource, wanted: u64| {
        let allowed = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(wanted);
        (resource, Rlimit { current: Some(allowed), maximum: Some(allowed) })
    };
    [
        capped(Resource::Core, 0),
        capped(Resource::Nofile, OPEN_FILES),
        capped(Resource::Nproc, if own_user { OWN_PROCESSES } else { PROCESSES }),
        capped(Resource::Fsize, FILE_BYTES),
        capped(Resource::Data, u64::from(memory_mb) * 1024 * 1024 + RESERVE_BYTES),
    ]
}

/// The file of a program that is given by a path or by its name; `None` where there is none that can be run.
pub(super) fn executable(program: &Path, environment: &[(String, String)]) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let folders = environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, folders)| folders);
    if program.is_absolute() {
        Some(program.to_owned()).filter(runs)
    } else {
        std::env::split_paths(folders).map(|folder| folder.join(program)).find(runs)
    }
}
