//! All instances that are known, and the lease of their installation. What they share is in [`Host`].

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::cgroup::{Cgroup, Cgroups};
use super::errors::failed;
use super::folder::Folder;
use super::host::Host;
use super::instance::{Instance, kill_stray};
use super::launch::{Program, executable};
use super::lease::LeaseFile;
use super::options::ProcessOptions;
use super::output_watch::OutputWatch;
use super::users::{Uids, Users};
use super::walls::Standing;
use super::{table, users, walls};
use crate::domain::{AgentId, Timestamp};
use crate::runtime::{LeaseAnswer, LeasePurpose, LeaseRequest, ObservedInstance, RuntimeError, RuntimeResult};

/// Variables that say where certificates are.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Wake-ups that a slow listener may fall behind before it is told to list everything.
pub(super) const CHANGES: usize = 1024;

/// The instances of one installation on this machine.
#[derive(Debug)]
pub(super) struct Instances {
    pub(super) host: Host,
    known: Mutex<HashMap<AgentId, Arc<Instance>>>,
    lease: Mutex<LeaseFile>,
    /// The walls that stand round instances.
    pub(super) standing: Standing,
    /// Whether leftovers of earlier runs were ended.
    cleaned: AtomicBool,
}

impl Instances {
    /// Changes nothing yet, neither a folder nor a process.
    pub(super) fn open(options: ProcessOptions) -> RuntimeResult<Self> {
        let root = std::path::absolute(&options.root).map_err(failed("cannot find the agents' folder"))?;
        let path = absolute_if_path(options.program).map_err(failed("cannot find the program"))?;
        for missing in options.readable.iter().filter(|path| !path.exists()) {
            tracing::warn!(path = %missing.display(), "process.readable names what is not there: agents cannot read it");
        }
        let readable = options.walls.then(|| {
            let certificates = options.environment.iter().filter(|(name, _)| CERTIFICATES.contains(&name.as_str()));
            let certificates = certificates.map(|(_, path)| PathBuf::from(path));
            executable(&path, &options.environment).into_iter().chain(options.readable).chain(certificates).collect()
        });
        let mut standing = if options.walls { walls::standing() } else { without_walls() };
        let runs = executable(&path, &options.environment);
        let users = options.walls.then(|| users(options.uids, &root, runs.as_deref()));
        let users = users.and_then(|users| noted(&mut standing, "users", users));
        let cgroups = noted(&mut standing, "memory", Cgroups::find(options.installation));
        let program = Program { path, readable, arguments: options.args_prefix, environment: options.environment };
        let lease = Mutex::new(LeaseFile::of(options.installation));
        let host = Host {
            installation: options.installation,
            root,
            program,
            log_limit: options.log_limit_bytes,
            kernel_boot: table::kernel_boot().map_err(failed("cannot read the kernel's boot id"))?,
            changes: broadcast::Sender::new(CHANGES),
            output_watch: OutputWatch::new().map_err(failed("cannot watch the agents' output"))?,
            launching: Mutex::default(),
            users,
            cgroups,
        };
        let (known, cleaned) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { host, known, lease, standing, cleaned })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<AgentId, Arc<Instance>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn instance(&self, agent: AgentId) -> Arc<Instance> {
        let folder = || Folder::of(&self.host.root, agent);
        Arc::clone(self.known().entry(agent).or_insert_with(|| Arc::new(Instance::new(agent, folder()))))
    }

    /// Forgets an instance of which nothing is left. Two owners are the map and `instance` itself; a third one may be
    /// about to make something of it.
    pub(super) fn release(&self, agent: AgentId, instance: Arc<Instance>) {
        let mut known = self.known();
        if Arc::strong_count(&instance) == 2 && instance.is_blank() {
            known.remove(&agent);
        }
        drop(instance);
    }

    /// Makes the folder ready, adopts what runs and ends what earlier runs left behind; once.
    pub(super) fn clean(&self) -> RuntimeResult<()> {
        if self.cleaned.load(Ordering::Acquire) {
            return Ok(());
        }
        self.host.open_root().map_err(failed("cannot open the agents' folder"))?;
        self.discover(|found| {
            let (agent, pid) = (found.marker.agent, found.pid);
            tracing::info!(%agent, pid, "ends a process of an earlier run, or of a run in another folder");
            kill_stray(found)
        })?;
        let groups = self.host.cgroups.as_ref().map(Cgroups::everywhere).unwrap_or_default();
        if self.host.users.is_some() || self.host.cgroups.is_some() {
            for agent in Folder::agents(&self.host.root).map_err(failed("cannot list the agents' folder"))? {
                let instance = self.instance(agent);
                if instance.live().is_none() {
                    instance.kill_leftovers(&self.host, &groups)?;
                }
                self.release(agent, instance);
            }
        }
        // The kernel refuses it for those that are in use.
        groups.iter().for_each(Cgroup::remove);
        self.cleaned.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn lease(&self, request: &LeaseRequest) -> RuntimeResult<LeaseAnswer> {
        let answer = self.lease.lock().unwrap_or_else(PoisonError::into_inner).ask(request, Timestamp::now())?;
        if matches!((request.purpose, &answer), (LeasePurpose::Claim { .. }, LeaseAnswer::Held { .. })) {
            self.clean()?;
        }
        Ok(answer)
    }

    /// Adopts every instance that runs and that we do not know, and gives what dead ones left behind to `stray`.
    pub(super) fn discover(&self, stray: impl Fn(&table::Marked) -> io::Result<()>) -> RuntimeResult<()> {
        let marked = table::marked(self.host.installation).map_err(failed("cannot read the process table"))?;
        let mut agents = HashMap::<AgentId, Vec<_>>::new();
        for found in marked {
            agents.entry(found.marker.agent).or_default().push(found);
        }
        for (agent, found) in agents {
            let instance = self.instance(agent);
            let census = instance.census(&self.host, found);
            if let Some(leader) = &census.leader {
                instance.adopt(&self.host, leader);
            }
            for found in &census.strays {
                stray(found).map_err(failed("cannot end what an earlier run left behind"))?;
            }
        }
        Ok(())
    }

    pub(super) fn list(&self) -> RuntimeResult<Vec<ObservedInstance>> {
        self.discover(|_| Ok(()))?;
        let mut agents = match Folder::agents(&self.host.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            agents => agents.map_err(failed("cannot list the agents' folder"))?,
        };
        agents.extend(self.known().keys());
        agents.sort_unstable();
        agents.dedup();
        let mut owned = Vec::new();
        for agent in agents {
            let instance = self.instance(agent);
            match instance.observe(&self.host) {
                Ok(observed) => owned.extend(observed),
                // Somebody else's folder is none of our affair.
                Err(RuntimeError::NotOwned(_)) => {}
                Err(error) => return Err(error),
            }
            self.release(agent, instance);
        }
        Ok(owned)
    }
}

/// The users of agents, or why they have none.
fn users(uids: Option<Uids>, root: &Path, program: Option<&Path>) -> Result<Users, String> {
    let range = uids.ok_or("process.uids is empty")?;
    users::hindrance(range, root, program).map_or_else(|| Ok(Users::new(range)), Err)
}

fn noted<T>(standing: &mut Standing, wall: &'static str, found: Result<T, String>) -> Option<T> {
    let (found, missing) = match found {
        Ok(found) => (Some(found), None),
        Err(why) => (None, Some(why)),
    };
    standing.note(wall, missing);
    found
}

/// What is left where the operator wants no walls.
fn without_walls() -> Standing {
    let mut standing = Standing::default();
    standing.note("limits", None);
    for wall in ["calls", "files", "privileges", "processes", "signals", "users"] {
        standing.note(wall, Some("process.walls is false".into()));
    }
    standing
}

/// A name stays a name, to be looked for in `PATH`. A path must not depend on the folder that an instance runs in.
fn absolute_if_path(program: PathBuf) -> io::Result<PathBuf> {
    if program.components().count() > 1 { std::path::absolute(program) } else { Ok(program) }
}
