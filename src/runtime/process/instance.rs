//! One agent's instance: its folder, its run, and the steps that change them.
//!
//! The functions here block: they read and write files and wait for processes. Whoever calls one that changes something
//! holds the instance's turn.

mod start;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::cgroup::Cgroup;
use super::data;
use super::errors::failed;
use super::folder::Folder;
use super::host::Host;
use super::live::{Census, LiveRun, Own, boot_id, leftovers, watch_exit};
use super::logs::Source;
use super::marker::{Marker, RootId};
use super::output::Output;
use super::pidfd::Process;
use super::record::{Record, RunRecord};
use super::table::{self, Marked};
use super::usage::CpuSample;
use crate::domain::{AgentId, Slug, Timestamp};
use crate::runtime::{
    DataPolicy, InstanceKey, InstanceSpec, InstanceState, MAX_DATA, ObservedInstance, RunId, RuntimeError,
    RuntimeResult, StagedFile, too_much_data,
};

/// Whose turn it is to change the instance, and what `ensure_created` last said it should be: the spec without its
/// files. It holds secrets, and is in memory alone.
pub(super) type Turn = Option<InstanceSpec>;

#[derive(Debug)]
pub(super) struct Instance {
    agent: AgentId,
    pub(super) folder: Folder,
    pub(super) turn: Arc<tokio::sync::Mutex<Turn>>,
    /// The last run that we know of, over or not.
    run: Mutex<Option<Arc<LiveRun>>>,
    pub(super) sample: Mutex<Option<CpuSample>>,
}

/// For the kernel to end a process that was killed. Only one that waits for a broken disk takes longer.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between two tries to get a lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);
/// Looks at the process table for one who holds the lock; to get from fork to exec takes less than the time between two.
const LOOKS: usize = 3;

impl Instance {
    pub(super) fn new(agent: AgentId, folder: Folder) -> Self {
        Self { agent, folder, turn: Arc::default(), run: Mutex::default(), sample: Mutex::default() }
    }

    /// Nothing is known of it: the entry need not be kept.
    pub(super) fn is_blank(&self) -> bool {
        self.last_run().is_none() && self.turn.try_lock().is_ok_and(|turn| turn.is_none())
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<LiveRun>>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_run(&self) -> Option<Arc<LiveRun>> {
        self.slot().clone()
    }

    /// The run that we know and that lives.
    pub(super) fn live(&self) -> Option<Arc<LiveRun>> {
        self.last_run().filter(|run| !run.is_over())
    }

    /// The run that lives, known or not: where somebody holds the lock, the process table tells who.
    ///
    /// Between fork and exec a process holds the lock and has no marker yet, so it is looked for again.
    pub(super) fn find(&self, host: &Host) -> RuntimeResult<Option<Arc<LiveRun>>> {
        for _ in 0..LOOKS {
            if let Some(run) = self.live() {
                return Ok(Some(run));
            }
            match self.folder.try_lock() {
                Ok(Some(_free)) => return Ok(None),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed("cannot ask for the lock")(error)),
            }
            if let Some(run) = self.discover(host, |_| Ok(()))? {
                return Ok(Some(run));
            }
            std::thread::sleep(LOCK_RETRY);
        }
        Ok(None)
    }

    /// Looks for the instance's processes, and gives those that are in the way to `stray`.
    fn discover(&self, host: &Host, stray: impl Fn(&Marked) -> io::Result<()>) -> RuntimeResult<Option<Arc<LiveRun>>> {
        let marked = table::marked(host.installation).map_err(failed("cannot read the process table"))?;
        let mine = marked.into_iter().filter(|found| found.marker.agent == self.agent).collect();
        let census = self.census(host, mine);
        for found in &census.strays {
            stray(found).map_err(failed("cannot end what an earlier run left behind"))?;
        }
        Ok(census.leader.and_then(|found| self.adopt(host, &found)))
    }

    /// A run that works in another folder is in the way, also where nothing says that it ended: this folder is a copy, or
    /// was restored from a backup, and what the run writes would never get here.
    pub(super) fn census(&self, host: &Host, found: Vec<Marked>) -> Census {
        let root = RootId::of(&host.root).ok();
        Census::of(found, |process| {
            if process.marker.root.is_some() && process.marker.root != root {
                return Some(false);
            }
            let record = self.folder.run_record(process.marker.started).ok()??;
            Some(record.run_id == boot_id(&host.kernel_boot, process.pid, process.stat.started_ticks))
        })
    }

    /// Takes on a run that somebody else started: an earlier service, or another one at this moment.
    pub(super) fn adopt(&self, host: &Host, found: &Marked) -> Option<Arc<LiveRun>> {
        let process = Process::found(found)?;
        let started = found.marker.started;
        // Where somebody removed the folder of a running agent, its output goes nowhere, and it is still an instance.
        let output = [self.folder.log(started), "/dev/null".into()]
            .iter()
            .find_map(|path| Output::open(path, started, host.log_limit).ok())?;
        // What it has, whatever it would get now.
        let range = host.users.as_ref().map(|users| users.range);
        let user = table::user_of(found.pid).filter(|user| range.is_some_and(|range| range.contains(*user)));
        let cgroup = host.cgroups.as_ref().and_then(|groups| groups.around(found.pid, self.agent, started));
        let own = Own { user, cgroup };
        let run = LiveRun::new(found.marker.clone(), process, &host.kernel_boot, output, own);
        if matches!(self.folder.run_record(started), Ok(None)) {
            self.write_down(&run);
        }
        Some(self.install(host, run))
    }

    fn write_down(&self, run: &LiveRun) {
        let record = RunRecord::begun(run.run_id.clone());
        if let Err(error) = self.folder.write_run_record(run.marker.started, &record) {
            // Logs of this run are then found only while we remember it.
            tracing::warn!(agent = %self.agent, %error, "cannot write down a run");
        }
    }

    /// Makes `run` the instance's run, unless it is already, or a newer one is.
    fn install(&self, host: &Host, run: LiveRun) -> Arc<LiveRun> {
        let mut slot = self.slot();
        if let Some(current) = &*slot
            && (current.marker.started >= run.marker.started || !current.is_over())
        {
            return Arc::clone(current);
        }
        let run = Arc::new(run);
        watch_exit(&run, self.folder.clone(), host.changes.clone());
        host.output_watch.add(&self.folder.log(run.marker.started), &run);
        *slot = Some(Arc::clone(&run));
        run
    }

    pub(super) fn record(&self, host: &Host) -> RuntimeResult<Option<Record>> {
        let record = self.folder.record().map_err(failed("cannot read what the instance was made from"))?;
        match record {
            Some(record) if record.installation != host.installation => {
                Err(RuntimeError::NotOwned(format!("agent {} belongs to another installation", self.agent)))
            }
            record => Ok(record),
        }
    }

    pub(super) fn create(&self, host: &Host, turn: &mut Turn, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let hash = spec.hash();
        let record = self.record(host)?.filter(|record| record.spec_hash == hash);
        let live = self.find(host)?;
        let stale = live.as_ref().is_some_and(|run| run.marker.spec_hash != hash);
        let created_now = record.is_none() || stale;
        if created_now {
            if let Some(run) = live {
                end(&run)?;
            }
            self.make(host, spec).map_err(failed("cannot make the instance"))?;
        } else if let Some(record) = record.filter(|record| record.origin != spec.origin) {
            let record = Record { origin: spec.origin.clone(), ..record };
            self.folder.write_record(&record).map_err(failed("cannot write down what the instance is"))?;
        }
        *turn = Some(InstanceSpec { files: Vec::new(), ..spec.clone() });
        let observed = self.observe(host)?.ok_or(RuntimeError::NotFound)?;
        Ok(ObservedInstance { created_now, ..observed })
    }

    fn make(&self, host: &Host, spec: &InstanceSpec) -> io::Result<()> {
        self.folder.make()?;
        data::stage(&self.folder.data(), &spec.files)?;
        self.folder.write_record(&Record::new(host.installation, spec, self.next_start()?))
    }

    /// Now, or right after the newest run if the clock was set back: runs are told apart and ordered by their start.
    fn next_start(&self) -> io::Result<Timestamp> {
        let newest = self.folder.runs()?.last().copied();
        let after = newest.and_then(|newest| newest.checked_add(Duration::from_nanos(1)).ok());
        Ok(after.map_or_else(Timestamp::now, |after| after.max(Timestamp::now())))
    }

    /// Ends what is this agent's by its uid or its control group alone, which is looked for in `groups`. No run of it may live.
    pub(super) fn kill_leftovers(&self, host: &Host, groups: &[Cgroup]) -> RuntimeResult<()> {
        let unended = failed("cannot end what an earlier run left behind");
        let owner = self.folder.owner().ok();
        let user = owner.filter(|owner| host.users.as_ref().is_some_and(|users| users.range.contains(*owner)));
        let groups = groups.iter().filter(|group| group.is_of(self.agent)).cloned();
        let in_groups = groups.map(|group| Own { user: None, cgroup: Some(group) });
        for own in in_groups.chain([Own { user, cgroup: None }]) {
            for found in leftovers(host.installation, self.agent, &own).map_err(&unended)? {
                tracing::info!(agent = %self.agent, pid = found.pid, "ends a process of an earlier run");
                found.signal(Signal::KILL).map_err(&unended)?;
            }
        }
        Ok(())
    }

    pub(super) fn kill(&self, host: &Host) -> RuntimeResult<()> {
        self.find(host)?.map_or(Ok(()), |run| end(&run))
    }

    pub(super) fn remove(&self, host: &Host, turn: &mut Turn, data: DataPolicy) -> RuntimeResult<()> {
        self.record(host)?;
        self.kill(host)?;
        let removed = match data {
            DataPolicy::Keep => self.folder.forget(),
            DataPolicy::Remove => self.folder.remove(Timestamp::now()),
        };
        removed.map_err(failed("cannot remove the instance"))?;
        if let (Some(users), DataPolicy::Remove) = (&host.users, data) {
            users.forget(self.agent);
        }
        *turn = None;
        *self.slot() = None;
        Ok(())
    }

    /// Replaces files of an instance that exists and does not run.
    pub(super) fn stage(&self, host: &Host, files: &[StagedFile]) -> RuntimeResult<()> {
        self.record(host)?.ok_or(RuntimeError::NotFound)?;
        if self.find(host)?.is_some() {
            return Err(RuntimeError::Conflict("it is running".into()));
        }
        self.write_data(host, files)
    }

    pub(super) fn read_data(&self, host: &Host, folder: &str) -> RuntimeResult<Vec<StagedFile>> {
        self.record(host)?.ok_or(RuntimeError::NotFound)?;
        data::read(&self.folder.data(), folder, MAX_DATA)
            .map_err(failed("cannot read the data"))?
            .ok_or_else(|| too_much_data(folder))
    }

    pub(super) fn write_data(&self, host: &Host, files: &[StagedFile]) -> RuntimeResult<()> {
        self.record(host)?.ok_or(RuntimeError::NotFound)?;
        data::stage(&self.folder.data(), files).map_err(failed("cannot stage files"))
    }

    pub(super) fn observe(&self, host: &Host) -> RuntimeResult<Option<ObservedInstance>> {
        let record = self.record(host)?;
        if let Some(run) = self.find(host)? {
            let Marker { slug, spec_hash, .. } = &run.marker;
            return Ok(Some(self.observed(slug, spec_hash, run.process.pid.to_string(), run.state())));
        }
        let Some(record) = record else { return Ok(None) };
        let state = self.past(&record).map_err(failed("cannot read the instance's last run"))?;
        Ok(Some(self.observed(&record.slug, &record.spec_hash, self.agent.to_string(), state)))
    }

    fn observed(&self, slug: &Slug, spec_hash: &str, engine_id: String, state: InstanceState) -> ObservedInstance {
        let key = InstanceKey { agent: self.agent, slug: slug.clone() };
        ObservedInstance {
            key,
            state,
            engine_id,
            spec_hash: spec_hash.to_owned(),
            died: None,
            created_now: false,
            data_created_now: false,
        }
    }

    /// The state of an instance that does not run.
    fn past(&self, record: &Record) -> io::Result<InstanceState> {
        let Some(started) = self.folder.runs()?.pop().filter(|started| *started >= record.created) else {
            return Ok(InstanceState::Created);
        };
        let remembered = self.last_run().filter(|run| run.marker.started == started).and_then(|run| run.exit());
        let exit = match remembered {
            Some(exit) => exit,
            None => self.folder.run_record(started)?.map(|run| run.exit()).unwrap_or_default(),
        };
        Ok(InstanceState::Exited(exit))
    }

    /// Where to read the output of `run_id`, or of all runs that are kept, oldest first.
    pub(super) fn sources(&self, host: &Host, run_id: Option<&RunId>) -> RuntimeResult<Vec<Source>> {
        let current = self.find(host)?.or_else(|| self.last_run());
        let mut sources = Vec::new();
        for started in self.folder.runs().map_err(failed("cannot list the logs"))? {
            let known = current.as_ref().filter(|run| run.marker.started == started);
            let wanted = match (run_id, known) {
                (None, _) => true,
                (Some(run_id), Some(run)) => run.run_id == *run_id,
                (Some(run_id), None) => {
                    self.folder.run_record(started).is_ok_and(|run| run.is_some_and(|run| run.run_id == *run_id))
                }
            };
            if !wanted {
                continue;
            }
            match (known, Output::open(&self.folder.log(started), started, host.log_limit)) {
                (Some(run), _) => sources.push(Source::Live(Arc::clone(run))),
                (None, Ok(output)) => sources.push(Source::Past(Arc::new(output))),
                (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                (None, Err(error)) => return Err(failed("cannot open a log")(error)),
            }
        }
        Ok(sources)
    }
}

/// Kills the run with all its processes and waits until it is gone.
pub(super) fn end(run: &LiveRun) -> RuntimeResult<()> {
    run.kill().map_err(failed("cannot kill the instance"))?;
    if !run.process.wait(KILL_WAIT) {
        return Err(RuntimeError::UnknownOutcome("the process was killed and does not end".into()));
    }
    run.clear_away().map_err(failed("cannot end what the instance left behind"))
}

/// Kills what a dead run left behind, and with it its session, also members that threw their marker away: an instance
/// never shares a session with a stranger. As long as this one lives, its session's number is no other's.
pub(super) fn kill_stray(found: &Marked) -> io::Result<()> {
    let Some(process) = Process::found(found) else { return Ok(()) };
    for member in table::session(found.stat.session)? {
        if process.has_ended() {
            break;
        }
        if member.pid != process.pid {
            member.signal(Signal::KILL)?;
        }
    }
    process.signal(Signal::KILL)
}
