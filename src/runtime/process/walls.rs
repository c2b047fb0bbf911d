//! The walls round an instance: what of this machine a program that was talked into mischief can reach.
//!
//! | Wall | By | Keeps out of |
//! |---|---|---|
//! | files | Landlock | everything but its own folder, and system paths, which it may only read |
//! | processes | Landlock | the memory, environment and descriptors of others; with newer kernels also signals to them |
//! | users | a uid of its own, see `users` | files and processes of other users; where the service is root |
//! | privileges | no_new_privs, no capabilities | setuid programs, and what root may do beyond owning files |
//! | calls | seccomp | sockets that are no internet, other processes' memory, mounts, namespaces, kernel modules, … |
//! | limits | rlimits, see `launch` | all memory, all disk, endless forks |
//! | memory | a control group, see `cgroup` | more memory than its plan has, with all that it starts |
//!
//! All of it belongs to a thread and passes to its children. So a thread of its own puts the walls up round itself, starts
//! the program and ends: nothing has to be done between fork and exec, where little is allowed. A wall that the kernel does
//! not have is left out; [`Walls::standing`] tells which are there.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// What a program needs of its system, to read and to run. Of /etc only what libraries read: other files there have secrets.
const SYSTEM: [&str; 35] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/run/systemd/resolve",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/timezone",
    "/etc/python3",
];
/// Devices that have no data of anybody.
const DEVICES: [&str; 8] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];
/// What is asked of Landlock at most; a kernel that has less gives what it has.
const LANDLOCK: ABI = ABI::V6;

/// Calls that no agent needs and that lead out of the walls, or into the kernel's rarely used corners.
const FORBIDDEN: [i64; 37] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    // Its operations pass no filter of calls.
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
];
/// Sockets for the internet, and the kernel's list of network interfaces. Not those in the file system: behind one of them is
/// the container engine, which does what it is asked to.
const FAMILIES: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The walls of one instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walls<'a> {
    /// Its own: it may do there what it likes.
    pub(super) own: &'a [PathBuf],
    /// Its program and what else it may read and run.
    pub(super) readable: &'a [PathBuf],
}

/// What could be put up.
#[derive(Debug)]
struct Raised {
    landlock: RulesetStatus,
    seccomp: bool,
}

/// Which walls stand, and why each other one does not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) walls: Vec<&'static str>,
    pub(super) missing: BTreeMap<&'static str, String>,
}

impl Standing {
    pub(super) fn note(&mut self, wall: &'static str, missing: Option<String>) {
        match missing {
            None => self.walls.push(wall),
            Some(why) => drop(self.missing.insert(wall, why)),
        }
        self.walls.sort_unstable();
    }
}

/// The walls that this kernel has.
pub(super) fn standing() -> Standing {
    // Tried on a thread that ends with it.
    let tried = thread::spawn(|| Walls { own: &[], readable: &[] }.raise()).join();
    let refused = Raised { landlock: RulesetStatus::NotEnforced, seccomp: false };
    let (raised, privileges) = match tried {
        Ok(Ok(raised)) => (raised, None),
        _ => (refused, Some("the kernel refuses no_new_privs".to_owned())),
    };
    let mut standing = Standing::default();
    let landlock = |there: bool, least: &str| {
        (!there).then(|| format!("this kernel has no Landlock, it is switched off, or it is older than Linux {least}"))
    };
    let some = raised.landlock != RulesetStatus::NotEnforced;
    standing.note("limits", None);
    standing.note("files", landlock(some, "5.13"));
    standing.note("processes", landlock(some, "5.13"));
    standing.note("signals", landlock(raised.landlock == RulesetStatus::FullyEnforced, "6.12"));
    standing.note("privileges", privileges);
    standing.note("calls", (!raised.seccomp).then(|| "the kernel refuses a filter of calls (seccomp)".to_owned()));
    standing
}

impl Walls<'_> {
    /// Does the work on a thread behind the walls; what it starts is behind them for ever.
    pub(super) fn behind<T: Send>(self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let walled = scope.spawn(move || {
                self.raise()?;
                work()
            });
            walled.join().unwrap_or_else(|_| Err(io::Error::other("the start panicked")))
        })
    }

    /// Round the calling thread. There is no way back.
    fn raise(self) -> io::Result<Raised> {
        for bit in 0..64 {
            // Only root has any to give away, and only those that there are.
            let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit));
        }
        set_no_new_privs(true)?;
        // Refused by what the service itself is kept in: then that has to do.
        let landlock = self.confine_files().unwrap_or(RulesetStatus::NotEnforced);
        let seccomp = filter().map_err(io::Error::other)?;
        Ok(Raised { landlock, seccomp: seccompiler::apply_filter(&seccomp).is_ok() })
    }

    fn confine_files(self) -> Result<RulesetStatus, landlock::RulesetError> {
        let (read, all) = (AccessFs::from_read(LANDLOCK), AccessFs::from_all(LANDLOCK));
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev;
        let confined = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(DEVICES, device))?
            .add_rules(path_beneath_rules(self.readable, read))?
            .add_rules(path_beneath_rules(self.own, all))?
            .restrict_self()?;
        Ok(confined.ruleset)
    }
}

/// The filter of calls, for this machine's processor.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.into_iter().map(|call| (call, Vec::new())).collect();
    let other = |family: i32| {
        let family = u64::try_from(family).unwrap_or(u64::MAX);
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let others = FAMILIES.into_iter().map(other).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(others)?]);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?.try_into()
}
