//! Jobs: prompts that are put to the agent by the clock, again and again or once.
//!
//! They are in `state/cron.json` in the workspace, each with the time of its next run, so that a restart neither forgets
//! a run nor makes one twice: a run is written down before it starts. One that was due while the gateway was down is made
//! up for once, unless the job or `[cron] catch_up_on_startup` says otherwise. No job runs more often than
//! `[cron] min_interval_secs`, and all of them together not more than `max_runs_per_day`.

mod when;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(super) use when::{When, WhenError};

use super::config::Schedule as Settings;
use super::config_file::replace;
use super::memory::Owner;
use super::persona::head;
use crate::domain::Timestamp;

/// Jobs that one agent may have. Those that are over and done count, too, and the oldest of them make room.
const JOBS: usize = 100;
/// As much of a run's answer as is kept, in bytes.
const OUTPUT: usize = 4_000;
/// Longest prompt, in bytes.
const COMMAND: usize = 8_000;
/// A run that is later than this was missed: the gateway was down.
const MISSED_SECS: i64 = 120;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) name: Option<String>,
    #[serde(flatten)]
    pub(super) when: When,
    /// The prompt. ZeroClaw runs a shell command here; this agent has no shell.
    pub(super) command: String,
    /// Where the answer is sent, beside the job's own record.
    pub(super) deliver: Option<Delivery>,
    pub(super) enabled: bool,
    pub(super) next_run: Option<Timestamp>,
    pub(super) last_run: Option<Timestamp>,
    pub(super) last_status: Option<String>,
    pub(super) last_output: Option<String>,
    /// After this time it does not run any more.
    #[serde(default)]
    pub(super) expires_at: Option<Timestamp>,
    /// Runs once, at the next time that its schedule names.
    #[serde(default)]
    pub(super) once: bool,
    /// Is removed after its last run.
    #[serde(default)]
    pub(super) delete_after_run: bool,
    /// Whether a missed run is made up for; without it the setting decides.
    #[serde(default)]
    pub(super) catch_up: Option<bool>,
    /// Who made it: it may do no more than they may.
    #[serde(default)]
    pub(super) owner: Option<String>,
}

/// A channel, and whom to reach on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub(super) channel: String,
    pub(super) to: String,
}

/// What a new job needs: a prompt, and one of `schedule`, `at`, `in` and `every`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    pub(super) name: Option<String>,
    /// A cron expression of five or six fields, or a time.
    pub(super) schedule: Option<String>,
    /// A time: with its zone, or in `tz`.
    #[serde(default, alias = "run_at")]
    pub(super) at: Option<String>,
    /// A time from now, such as `10 minutes`.
    #[serde(default, rename = "in", alias = "delay")]
    pub(super) from_now: Option<String>,
    /// The time between two runs, such as `90 minutes`.
    pub(super) every: Option<String>,
    /// IANA time zone; the agent's own without one.
    #[serde(default, alias = "timezone")]
    pub(super) tz: Option<String>,
    #[serde(alias = "prompt")]
    pub(super) command: String,
    pub(super) deliver: Option<Delivery>,
    #[serde(default, alias = "expires")]
    pub(super) expires_at: Option<String>,
    pub(super) once: Option<bool>,
    pub(super) delete_after_run: Option<bool>,
    pub(super) catch_up: Option<bool>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    When(#[from] WhenError),
    #[error("there are {JOBS} jobs already, which is the limit; remove one")]
    TooMany,
    #[error("the command must have 1 to {COMMAND} bytes")]
    Command,
    #[error("expires_at must be later than the first run")]
    Expired,
    #[error("the job would run more often than every {0} seconds, which is the limit; choose a longer interval")]
    TooOften(u32),
    #[error("the jobs cannot be saved")]
    Disk(#[source] io::Error),
    /// The file is left alone, so that it can be mended.
    #[error("state/cron.json cannot be read")]
    Broken,
}

/// What a run of a due job may be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Due {
    pub(super) jobs: Vec<Job>,
    /// Jobs that were due and are not run: the runs of this day are used up.
    pub(super) over_budget: usize,
}

pub(super) struct Jobs {
    path: PathBuf,
    jobs: Mutex<Option<Vec<Job>>>,
    /// Wakes the scheduler when the jobs changed.
    pub(super) changed: Notify,
}

impl Jobs {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { path: workspace.join("state/cron.json"), jobs: Mutex::new(None), changed: Notify::new() }
    }

    /// All jobs, oldest first. May block on the disk, as all methods here.
    pub(super) fn list(&self) -> Result<Vec<Job>, JobError> {
        self.with(|jobs| Ok(jobs.clone()))
    }

    /// `zone` is the agent's own.
    pub(super) fn add(&self, new: NewJob, zone: &str, owner: &Owner, now: Timestamp) -> Result<Job, JobError> {
        let command = new.command.trim().to_owned();
        if command.is_empty() || command.len() > COMMAND {
            return Err(JobError::Command);
        }
        let zone = new.tz.as_deref().map(str::trim).filter(|zone| !zone.is_empty()).unwrap_or(zone);
        let when = When::parse(&new, zone, now)?;
        let expires_at = new.expires_at.as_deref().map(|text| when::time(text, zone, now)).transpose()?;
        let next_run = when.next_after(now);
        if next_run.zip(expires_at).is_some_and(|(next, end)| next > end) {
            return Err(JobError::Expired);
        }
        let job = Job {
            id: uuid::Uuid::now_v7().to_string(),
            name: new.name,
            next_run,
            once: when.is_single() || new.once.unwrap_or_default(),
            when,
            command,
            deliver: new.deliver,
            enabled: true,
            last_run: None,
            last_status: None,
            last_output: None,
            expires_at,
            delete_after_run: new.delete_after_run.unwrap_or_default(),
            catch_up: new.catch_up,
            owner: owner.is_stranger().then(|| owner.as_str().to_owned()),
        };
        let added = job.clone();
        self.change(|jobs| {
            if jobs.len() >= JOBS {
                let done = jobs.iter().position(|job| !job.enabled || job.next_run.is_none());
                jobs.remove(done.ok_or(JobError::TooMany)?);
            }
            jobs.push(added);
            Ok(())
        })?;
        Ok(job)
    }

    /// Whether there was one.
    pub(super) fn remove(&self, id: &str) -> Result<bool, JobError> {
        self.change(|jobs| {
            let before = jobs.len();
            jobs.retain(|job| job.id != id);
            Ok(jobs.len() < before)
        })
    }

    /// When the next job is due.
    pub(super) fn next_due(&self) -> Result<Option<Timestamp>, JobError> {
        self.with(|jobs| Ok(jobs.iter().filter(|job| job.enabled).filter_map(|job| job.next_run).min()))
    }

    /// Takes the jobs that are due, and writes down that they are run.
    pub(super) fn take_due(&self, settings: &Settings, now: Timestamp) -> Result<Due, JobError> {
        let nothing = Due { jobs: vec![], over_budget: 0 };
        if !settings.enabled || self.next_due()?.is_none_or(|due| due > now) {
            return Ok(nothing);
        }
        let mut runs = Runs::load(&self.path, now);
        let due = self.change(|jobs| {
            let mut due = nothing;
            for job in jobs.iter_mut() {
                let Some(at) = job.next_run.filter(|at| job.enabled && *at <= now) else { continue };
                let missed = now.duration_since(at).as_secs() > MISSED_SECS;
                let skipped = missed && !job.catch_up.unwrap_or(settings.catch_up_on_startup);
                let expired = job.expires_at.is_some_and(|end| now > end);
                let over_budget = !skipped && !expired && runs.count >= settings.max_runs_per_day;
                job.last_status = Some(
                    match (expired, skipped, over_budget) {
                        (true, ..) => "expired",
                        (_, true, _) => "missed",
                        (.., true) => "skipped: the runs of this day are used up",
                        _ => "running",
                    }
                    .into(),
                );
                let runs_now = !expired && !skipped && !over_budget;
                if runs_now {
                    runs.count += 1;
                    job.last_run = Some(now);
                    due.jobs.push(job.clone());
                }
                due.over_budget += usize::from(over_budget);
                job.advance(at, now, settings.min_interval_secs);
            }
            jobs.retain(|job| job.enabled || !job.delete_after_run || due.jobs.iter().any(|due| due.id == job.id));
            Ok(due)
        })?;
        if !due.jobs.is_empty() {
            runs.save(&self.path).map_err(JobError::Disk)?;
        }
        Ok(due)
    }

    pub(super) fn finish(&self, id: &str, status: &str, output: &str) -> Result<(), JobError> {
        self.change(|jobs| {
            if let Some(job) = jobs.iter_mut().find(|job| job.id == id) {
                job.last_status = Some(status.into());
                job.last_output = Some(head(output, OUTPUT).to_owned());
            }
            jobs.retain(|job| job.id != id || job.enabled || !job.delete_after_run);
            Ok(())
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Vec<Job>) -> Result<T, JobError>) -> Result<T, JobError> {
        let mut slot = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match slot.take() {
            Some(jobs) => jobs,
            None => load(&self.path)?,
        };
        look(slot.insert(jobs))
    }

    /// Changes a copy, saves it, and only then takes it over.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Job>) -> Result<T, JobError>) -> Result<T, JobError> {
        let mut slot = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs = match &*slot {
            Some(jobs) => jobs.clone(),
            None => load(&self.path)?,
        };
        let result = change(&mut jobs)?;
        let text = serde_json::to_vec_pretty(&jobs).map_err(|error| JobError::Disk(error.into()))?;
        replace(&self.path, &text).map_err(JobError::Disk)?;
        *slot = Some(jobs);
        self.changed.notify_one();
        Ok(result)
    }
}

impl Job {
    /// Sets the next run after the one that was due `at`, or ends the job.
    fn advance(&mut self, at: Timestamp, now: Timestamp, min_interval_secs: u32) {
        let floor = jiff::SignedDuration::from_secs(i64::from(min_interval_secs) - 1);
        // Counted from when the run was due, not from when it was found due: a busy machine must not cost the next one.
        let after = at.checked_add(floor).map_or(now, |earliest| earliest.max(now));
        self.next_run = if self.once { None } else { self.when.next_after(after) };
        self.next_run = self.next_run.filter(|next| self.expires_at.is_none_or(|end| *next <= end));
        self.enabled = self.next_run.is_some();
    }
}

fn load(path: &Path) -> Result<Vec<Job>, JobError> {
    let mut jobs: Vec<Job> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|_| JobError::Broken)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        Err(error) => return Err(JobError::Disk(error)),
    };
    for job in jobs.iter_mut().filter(|job| job.last_status.as_deref() == Some("running")) {
        job.last_status = Some("interrupted".into());
    }
    Ok(jobs)
}

/// How many runs there were on a day (UTC), beside the jobs, so that removing a job gives none back.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Runs {
    day: String,
    count: u32,
}

impl Runs {
    fn load(jobs: &Path, now: Timestamp) -> Self {
        let today = now.strftime("%Y-%m-%d").to_string();
        let kept = fs::read(Self::path(jobs)).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        kept.filter(|kept| kept.day == today).unwrap_or(Self { day: today, count: 0 })
    }

    fn save(&self, jobs: &Path) -> io::Result<()> {
        replace(&Self::path(jobs), &serde_json::to_vec(self)?)
    }

    fn path(jobs: &Path) -> PathBuf {
        jobs.with_file_name("cron-runs.json")
    }
}

#[cfg(test)]
mod tests;
