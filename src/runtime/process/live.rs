//! A run of an instance: its process from the start, or from adoption, to its end.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use tokio::sync::{broadcast, watch};

use super::cgroup::Cgroup;
use super::folder::Folder;
use super::marker::Marker;
use super::output::Output;
use super::pidfd::Process;
use super::record::RunRecord;
use super::table::{self, Marked, Stat};
use crate::domain::{AgentId, InstallationId};
use crate::runtime::{Exit, InstanceState, Resync, Run, RunId};

#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) marker: Marker,
    pub(super) process: Process,
    pub(super) run_id: RunId,
    pub(super) output: Output,
    pub(super) own: Own,
    /// Wakes those who follow the output.
    pub(super) written: watch::Sender<()>,
    exit: watch::Sender<Option<Exit>>,
    /// Nothing of it is left.
    cleared: Mutex<bool>,
}

/// What a run has that no other process of the machine has, as far as there is such a thing here.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The uid of the agent.
    pub(super) user: Option<u32>,
    pub(super) cgroup: Option<Cgroup>,
}

/// Rounds of looking for processes to kill. Each finds what the ones before have started meanwhile; more than a few are
/// a program that forks faster than we read.
const SWEEPS: usize = 20;

/// What Rust's allocator prints before it aborts. Seen together with SIGABRT it tells a run that reached its memory
/// limit from one that failed in another way.
const OUT_OF_MEMORY: &str = "memory allocation of ";
const ABORTED: i32 = 128 + 6;
const KILLED: i32 = 128 + 9;

impl LiveRun {
    pub(super) fn new(marker: Marker, process: Process, kernel_boot: &str, output: Output, own: Own) -> Self {
        let run_id = boot_id(kernel_boot, process.pid, process.started_ticks);
        Self {
            marker,
            process,
            run_id,
            output,
            own,
            written: watch::Sender::new(()),
            exit: watch::Sender::new(None),
            cleared: Mutex::default(),
        }
    }

    pub(super) fn public(&self) -> Run {
        Run {
            run_id: self.run_id.clone(),
            started_at: self.marker.started,
            endpoint: SocketAddr::from((Ipv4Addr::LOCALHOST, self.marker.port.get())),
        }
    }

    /// How the run ended; `None` while it lives. Knows it at once, also before the watch has been told.
    pub(super) fn exit(&self) -> Option<Exit> {
        let known = || self.exit.borrow().clone();
        known().or_else(|| {
            let seen = self.process.has_ended().then(|| self.read_exit())?;
            // Reaped in between, it would tell nothing any more; but its exit is made known before that.
            Some(known().unwrap_or(seen))
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.exit.borrow().is_some() || self.process.has_ended()
    }

    pub(super) fn state(&self) -> InstanceState {
        match self.exit() {
            Some(exit) => InstanceState::Exited(exit),
            None if Stat::of(self.process.pid).is_ok_and(|stat| stat.is_stopped()) => {
                InstanceState::Paused(self.public())
            }
            None => InstanceState::Running(self.public()),
        }
    }

    /// Resolves when the run is over and that was made known.
    pub(super) async fn over(&self) {
        // The sender lives as long as this run, so this can only end well.
        let _ = self.exit.subscribe().wait_for(Option::is_some).await;
    }

    /// Asks the instance to end. One that is stopped could not hear it.
    pub(super) fn ask_to_end(&self) -> io::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.signal(Signal::CONT)
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// Kills what the run has left behind, once for all who ask: its session, and what left that but still carries its
    /// marker, is in its control group, or runs under its agent's uid. Only where it has neither of those can a process that
    /// also threw away its environment stay. The run must be over.
    pub(super) fn clear_away(&self) -> io::Result<()> {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*cleared {
            self.kill_strays()?;
            if let Some(cgroup) = &self.own.cgroup {
                cgroup.remove_soon();
            }
            *cleared = true;
        }
        Ok(())
    }

    fn kill_strays(&self) -> io::Result<()> {
        for _ in 0..SWEEPS {
            let mut strays = table::strays(&self.marker, self.process.pid, self.process.started_ticks)?;
            strays.extend(leftovers(self.marker.installation, self.marker.agent, &self.own)?);
            if strays.is_empty() {
                break;
            }
            for stray in strays {
                stray.signal(Signal::KILL)?;
            }
        }
        Ok(())
    }

    fn read_exit(&self) -> Exit {
        let code = self.process.exit_code();
        let oom = match code {
            Some(ABORTED) => self.ran_out_of_memory(),
            // The kernel chose this process, or another of the group; either way it was too much together. How a process ended
            // that an earlier service started, the kernel tells nobody but its parent; what it did to the group, everybody.
            Some(KILLED) | None => self.own.cgroup.as_ref().is_some_and(Cgroup::ran_out_of_memory),
            _ => false,
        };
        Exit { code, oom, asked: false, reason: None }
    }

    fn ran_out_of_memory(&self) -> bool {
        let last = self.output.last(4096).unwrap_or_default();
        String::from_utf8_lossy(&last).lines().any(|line| line.starts_with(OUT_OF_MEMORY))
    }
}

/// Processes that are an agent's for sure though nothing in them says so: they are in its control group or have its uid. For
/// when no run of it lives.
pub(super) fn leftovers(installation: InstallationId, agent: AgentId, own: &Own) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    // Nobody leaves a group, so where there is one it has them all.
    match own {
        Own { cgroup: Some(cgroup), .. } => {
            found.extend(cgroup.members().into_iter().filter_map(|pid| Process::checked(pid, || cgroup.has(pid))));
        }
        Own { user: Some(user), .. } => found.extend(table::of_user(*user, installation, agent)?),
        Own { cgroup: None, user: None } => {}
    }
    Ok(found)
}

/// The run that is called `run_id`: which process it was, in which kernel's life.
pub(super) fn boot_id(kernel_boot: &str, pid: i32, started_ticks: u64) -> RunId {
    RunId(format!("{kernel_boot}:{pid}:{started_ticks}").into())
}

/// The process of such a run.
pub(super) fn pid_of(run_id: &RunId) -> Option<u32> {
    run_id.0.split(':').nth(1)?.parse().ok()
}

/// Waits for the end of a run, makes it known, kills what the run left behind, and then writes down that it is over.
///
/// The task belongs to the run, not to the runtime that started it: children must be waited for, whoever has
/// lost interest in them.
pub(super) fn watch_exit(run: &Arc<LiveRun>, folder: Folder, changes: broadcast::Sender<Resync>) {
    let run = Arc::clone(run);
    tokio::spawn(async move {
        run.process.ended().await;
        let exit = run.read_exit();
        run.exit.send_replace(Some(exit.clone()));
        run.process.reap();
        // Nobody listening is nobody to wake.
        let _ = changes.send(Resync::Instance(run.marker.agent));
        let aftermath = tokio::task::spawn_blocking(move || {
            if let Err(error) = run.clear_away() {
                tracing::warn!(agent = %run.marker.agent, %error, "cannot look for what a run left behind");
                return;
            }
            // Without its output there is nothing left that the record would be about. Whoever deletes the agent removes its folder
            // at this moment.
            let is_kept = || fs::exists(folder.log(run.marker.started)).unwrap_or(false);
            let record = RunRecord::over(run.run_id.clone(), &exit);
            if is_kept()
                && let Err(error) = folder.write_run_record(run.marker.started, &record)
                && is_kept()
            {
                tracing::warn!(agent = %run.marker.agent, %error, "cannot write down how a run ended");
            }
        });
        // Only the end of the whole program cancels it.
        let _ = aftermath.await;
    });
}

/// Which of the processes with one agent's marker is the instance, and which are in its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) leader: Option<Marked>,
    /// What dead runs left behind. Children of the leader are not among them.
    pub(super) strays: Vec<Marked>,
}

impl Census {
    /// Sorts out `found`, all of one agent. `recorded` knows which process was written down for a run.
    ///
    /// Children inherit the marker, and a child may lead a session of its own. So the recorded process is the instance; where
    /// the service died before it wrote that down, it is the first of the run's processes.
    pub(super) fn of(found: Vec<Marked>, recorded: impl Fn(&Marked) -> Option<bool>) -> Self {
        let leads = |process: &&Marked| process.leads_session() && recorded(process) != Some(false);
        let latest = |process: &&Marked| (process.marker.started, std::cmp::Reverse(process.stat.started_ticks));
        let leader = found.iter().filter(leads).max_by_key(latest).cloned();
        let of_leader =
            |process: &Marked| leader.as_ref().is_some_and(|leader| leader.marker.started == process.marker.started);
        let strays = found.into_iter().filter(|process| !of_leader(process)).collect();
        Self { leader, strays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn process(pid: i32, session: i32, ticks: u64, started: i64) -> Marked {
        let marker = Marker { started: Timestamp::from_second(started).unwrap(), ..Marker::example() };
        let stat = Stat { state: 'S', session, started_ticks: ticks, cpu_ticks: 0, threads: 1, environment: Some(100) };
        Marked { pid, stat, marker }
    }

    #[test]
    fn the_first_session_leader_of_a_run_is_the_instance() {
        let (instance, child, daemon) = (process(10, 10, 100, 1), process(11, 10, 101, 1), process(12, 12, 102, 1));
        let census = Census::of(vec![daemon, child, instance.clone()], |_| None);
        assert_eq!(census, Census { leader: Some(instance), strays: vec![] });
    }

    #[test]
    fn where_the_instance_is_recorded_no_child_takes_its_place() {
        let (child, daemon) = (process(11, 10, 101, 1), process(12, 12, 102, 1));
        let census = Census::of(vec![daemon.clone(), child.clone()], |found| Some(found.pid == 10));
        assert_eq!(census, Census { leader: None, strays: vec![daemon, child] });
    }

    #[test]
    fn what_an_older_run_left_is_in_the_way() {
        let (old, new) = (process(11, 10, 101, 1), process(20, 20, 200, 2));
        let census = Census::of(vec![old.clone(), new.clone()], |_| None);
        assert_eq!(census, Census { leader: Some(new), strays: vec![old] });
    }
}
