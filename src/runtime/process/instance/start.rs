//! The start of a run: alone in its folder, on its port, as its own user.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Instance, LOCK_RETRY, Turn, kill_stray};
use crate::domain::{HostPort, Timestamp};
use crate::runtime::process::cgroup::{Cgroup, Cgroups};
use crate::runtime::process::errors::{failed, not_started};
use crate::runtime::process::host::Host;
use crate::runtime::process::launch::{Launch, launch};
use crate::runtime::process::live::{LiveRun, Own};
use crate::runtime::process::marker::{Marker, RootId};
use crate::runtime::process::output::Output;
use crate::runtime::process::record::Record;
use crate::runtime::{InstanceSpec, Run, RuntimeError, RuntimeResult};

/// For a lock whose holder cannot be seen: a process of ours between fork and exec has it for some milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(2);

enum Lock {
    Free(std::fs::File),
    Running(Arc<LiveRun>),
}

impl Instance {
    pub(in crate::runtime::process) fn start(&self, host: &Host, turn: &Turn) -> RuntimeResult<Run> {
        let record = self.record(host)?.ok_or(RuntimeError::NotFound)?;
        let lock = match self.lock(host)? {
            Lock::Free(lock) => lock,
            Lock::Running(run) => {
                // One that is stopped shall run as well; the others do not notice.
                run.process.signal(Signal::CONT).map_err(failed("cannot continue the instance"))?;
                return Ok(run.public());
            }
        };
        let Some(spec) = turn.as_ref().filter(|spec| spec.hash() == record.spec_hash) else {
            return Err(RuntimeError::Conflict(
                "its environment is not known; create it again before starting it".into(),
            ));
        };
        if self.ended_unseen().map_err(failed("cannot read the instance's last run"))? {
            self.discover(host, kill_stray)?;
            self.kill_leftovers(host, &host.cgroups.as_ref().map(Cgroups::here).unwrap_or_default())?;
        }
        // A fork copies all open descriptors until it executes its program. One at a time, or the probe of one port
        // would be open in the instance that is being started beside it.
        let _alone = host.launching.lock().unwrap_or_else(PoisonError::into_inner);
        free(port_of(spec)?)?;
        self.spawn(host, &record, spec, lock)
    }

    /// Whether the last run ended while no service was there to clear away what it left behind.
    fn ended_unseen(&self) -> io::Result<bool> {
        let Some(started) = self.folder.runs()?.pop() else { return Ok(false) };
        let watched = self.last_run().is_some_and(|run| run.marker.started == started);
        Ok(!watched && self.folder.run_record(started)?.is_none_or(|run| !run.ended))
    }

    /// The uid that the agent gets; its folder is made its own.
    fn user(&self, host: &Host) -> RuntimeResult<Option<u32>> {
        let unprepared = failed("cannot give the agent its folder");
        let user = match &host.users {
            None => None,
            Some(users) => {
                let user = users.of(self.agent, self.folder.owner().map_err(&unprepared)?);
                let used_up = "all uids of process.uids are taken; give it a larger range";
                Some(user.ok_or_else(|| RuntimeError::Capacity(used_up.into()))?)
            }
        };
        self.folder.give_to(user).map_err(unprepared)?;
        Ok(user)
    }

    /// A control group of its own, where the machine lets us.
    fn cgroup(&self, host: &Host, started: Timestamp, memory_mb: u32) -> RuntimeResult<Option<Cgroup>> {
        let Some(groups) = &host.cgroups else { return Ok(None) };
        let group = groups.of(self.agent, started);
        group.make(memory_mb).map_err(failed("cannot make the agent's control group"))?;
        Ok(Some(group))
    }

    fn spawn(&self, host: &Host, record: &Record, spec: &InstanceSpec, lock: std::fs::File) -> RuntimeResult<Run> {
        let unprepared = failed("cannot prepare the start");
        self.folder.make().and_then(|()| self.folder.prune_runs()).map_err(&unprepared)?;
        let started = self.next_start().map_err(&unprepared)?.max(record.created);
        let (user, cgroup) = (self.user(host)?, self.cgroup(host, started, spec.memory_mb)?);
        let log = self.folder.log(started);
        let output = Output::create(&log, started, host.log_limit).map_err(&unprepared)?;
        let marker = Marker {
            installation: host.installation,
            agent: self.agent,
            generation: spec.generation,
            slug: spec.key.slug.clone(),
            spec_hash: record.spec_hash.clone(),
            port: port_of(spec)?,
            started,
            root: Some(RootId::of(&host.root).map_err(&unprepared)?),
        };
        let (program, folder) = (&host.program, &self.folder);
        let start = Launch { program, folder, marker: &marker, spec, output: &output, user, cgroup: cgroup.as_ref() };
        let launched = launch(&start, lock);
        let process = launched.map_err(|error| {
            // A run that never was must not look like one that ended.
            let _ = std::fs::remove_file(&log);
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            not_started(&host.program.path, &error)
        })?;
        let run = LiveRun::new(marker, process, &host.kernel_boot, output, Own { user, cgroup });
        self.write_down(&run);
        Ok(self.install(host, run).public())
    }

    /// Gets the lock that makes this run the only one, or finds the run that has it.
    fn lock(&self, host: &Host) -> RuntimeResult<Lock> {
        if let Some(run) = self.live() {
            return Ok(Lock::Running(run));
        }
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            if let Some(lock) = self.folder.try_lock().map_err(failed("cannot lock the instance"))? {
                return Ok(Lock::Free(lock));
            }
            if let Some(run) = self.discover(host, kill_stray)? {
                return Ok(Lock::Running(run));
            }
            if Instant::now() > deadline {
                return Err(RuntimeError::Conflict("an unknown process holds the instance's lock".into()));
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }
}

fn port_of(spec: &InstanceSpec) -> RuntimeResult<HostPort> {
    spec.port.ok_or_else(|| RuntimeError::Invalid("a process needs a port of the host".into()))
}

/// Whether the port can be listened on now. Someone may still take it before the instance does; then that one ends.
fn free(port: HostPort) -> RuntimeResult<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(RuntimeError::PortTaken(port)),
        Err(error) => Err(failed("cannot ask for the port")(error)),
    }
}
