//! Jobs on a timetable: a prompt that is put to the agent when its time has come.
//!
//! The jobs are in `state/cron.json` in the workspace, each with the time of its next run, so that a restart neither
//! forgets a run nor makes one twice: a run is written down before it starts. One that was due while the gateway was
//! down is made up for once. Times follow the job's own time zone through summer and winter.

mod runner;
mod schedule;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(super) use runner::run;
pub(super) use schedule::{Schedule, ScheduleError};

use super::config_file::replace;
use super::persona::head;
use crate::domain::Timestamp;

/// Jobs that one agent may have.
const JOBS: usize = 100;
/// As much of a run's answer as is kept, in bytes.
const OUTPUT: usize = 4_000;
/// Longest prompt, in bytes.
const COMMAND: usize = 8_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) name: Option<String>,
    #[serde(flatten)]
    pub(super) schedule: Schedule,
    /// The prompt. ZeroClaw runs a shell command here; this agent has no shell.
    pub(super) command: String,
    /// Where the answer is sent, beside the job's own record.
    pub(super) deliver: Option<Delivery>,
    pub(super) enabled: bool,
    pub(super) next_run: Option<Timestamp>,
    pub(super) last_run: Option<Timestamp>,
    pub(super) last_status: Option<String>,
    pub(super) last_output: Option<String>,
}

/// A channel, and whom to reach on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub(super) channel: String,
    pub(super) to: String,
}

/// What a new job needs.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NewJob {
    pub(super) name: Option<String>,
    /// A cron expression of five or six fields.
    pub(super) schedule: String,
    /// IANA time zone of the schedule; UTC without one.
    #[serde(default, alias = "timezone")]
    pub(super) tz: Option<String>,
    #[serde(alias = "prompt")]
    pub(super) command: String,
    pub(super) deliver: Option<Delivery>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CronError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("there are {JOBS} jobs already, which is the limit")]
    TooMany,
    #[error("the command must have 1 to {COMMAND} bytes")]
    Command,
    #[error("the jobs cannot be saved")]
    Disk(#[source] io::Error),
    /// The file is left alone, so that it can be mended.
    #[error("state/cron.json cannot be read")]
    Broken,
}

pub(super) struct Cron {
    path: PathBuf,
    jobs: Mutex<Option<Vec<Job>>>,
    /// Wakes the runner when the timetable changed.
    changed: Notify,
}

impl Cron {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { path: workspace.join("state/cron.json"), jobs: Mutex::new(None), changed: Notify::new() }
    }

    /// All jobs, oldest first. May block on the disk, as all methods here.
    pub(super) fn list(&self) -> Result<Vec<Job>, CronError> {
        self.with(|jobs| Ok(jobs.clone()))
    }

    pub(super) fn add(&self, new: NewJob, now: Timestamp) -> Result<Job, CronError> {
        let command = new.command.trim().to_owned();
        if command.is_empty() || command.len() > COMMAND {
            return Err(CronError::Command);
        }
        let schedule = Schedule::parse(&new.schedule, new.tz.as_deref())?;
        let job = Job {
            id: uuid::Uuid::now_v7().to_string(),
            name: new.name,
            next_run: schedule.next_after(now),
            schedule,
            command,
            deliver: new.deliver,
            enabled: true,
            last_run: None,
            last_status: None,
            last_output: None,
        };
        let added = job.clone();
        self.change(|jobs| {
            if jobs.len() >= JOBS {
                return Err(CronError::TooMany);
            }
            jobs.push(added);
            Ok(())
        })?;
        Ok(job)
    }

    /// Whether there was one.
    pub(super) fn remove(&self, id: &str) -> Result<bool, CronError> {
        self.change(|jobs| {
            let before = jobs.len();
            jobs.retain(|job| job.id != id);
            Ok(jobs.len() < before)
        })
    }

    /// When the next job is due.
    fn next_due(&self) -> Result<Option<Timestamp>, CronError> {
        self.with(|jobs| Ok(jobs.iter().filter(|job| job.enabled).filter_map(|job| job.next_run).min()))
    }

    /// Takes the jobs that are due, and writes down that they are run.
    fn take_due(&self, now: Timestamp) -> Result<Vec<Job>, CronError> {
        if self.next_due()?.is_none_or(|due| due > now) {
            return Ok(vec![]);
        }
        self.change(|jobs| {
            let due = jobs.iter_mut().filter(|job| job.enabled && job.next_run.is_some_and(|due| due <= now));
            Ok(due
                .map(|job| {
                    job.last_run = Some(now);
                    job.last_status = Some("running".into());
                    job.next_run = job.schedule.next_after(now);
                    job.clone()
                })
                .collect())
        })
    }

    fn finish(&self, id: &str, status: &str, output: &str) -> Result<(), CronError> {
        self.change(|jobs| {
            if let Some(job) = jobs.iter_mut().find(|job| job.id == id) {
                job.last_status = Some(status.into());
                job.last_output = Some(head(output, OUTPUT).to_owned());
            }
            Ok(())
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Vec<Job>) -> Result<T, CronError>) -> Result<T, CronError> {
        let mut slot = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match slot.take() {
            Some(jobs) => jobs,
            None => load(&self.path)?,
        };
        look(slot.insert(jobs))
    }

    /// Changes a copy, saves it, and only then takes it over.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Job>) -> Result<T, CronError>) -> Result<T, CronError> {
        let mut slot = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs = match &*slot {
            Some(jobs) => jobs.clone(),
            None => load(&self.path)?,
        };
        let result = change(&mut jobs)?;
        let text = serde_json::to_vec_pretty(&jobs).map_err(|error| CronError::Disk(error.into()))?;
        replace(&self.path, &text).map_err(CronError::Disk)?;
        *slot = Some(jobs);
        self.changed.notify_one();
        Ok(result)
    }
}

fn load(path: &Path) -> Result<Vec<Job>, CronError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|_| CronError::Broken),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(CronError::Disk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly() -> NewJob {
        NewJob { name: None, schedule: "0 * * * *".into(), tz: None, command: "say hi".into(), deliver: None }
    }

    #[test]
    fn a_run_is_written_down_before_it_starts_and_is_not_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let cron = Cron::new(folder.path());
        let job = cron.add(hourly(), at("2026-11-22T10:30:00Z")).unwrap();
        assert_eq!(job.next_run, Some(at("2026-11-22T11:00:00Z")));
        assert!(cron.take_due(at("2026-11-22T10:59:59Z")).unwrap().is_empty());
        // Down for a day: one run makes up for all that were missed.
        let restarted = Cron::new(folder.path());
        assert_eq!(restarted.take_due(at("2026-11-23T10:30:00Z")).unwrap().len(), 1);
        assert!(restarted.take_due(at("2026-11-23T10:30:00Z")).unwrap().is_empty());
        // Killed during the run: it is not made again.
        let again = Cron::new(folder.path());
        assert!(again.take_due(at("2026-11-23T10:31:00Z")).unwrap().is_empty());
        assert_eq!(again.list().unwrap()[0].last_status.as_deref(), Some("running"));
        again.finish(&job.id, "ok", "hi").unwrap();
        assert_eq!(Cron::new(folder.path()).list().unwrap()[0].last_output.as_deref(), Some("hi"));
        assert!(again.remove(&job.id).unwrap() && !again.remove(&job.id).unwrap());
    }

    #[test]
    fn what_cannot_be_a_job_is_refused_and_their_number_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cron = Cron::new(folder.path());
        let now = at("2026-11-22T10:30:00Z");
        assert!(matches!(cron.add(NewJob { command: " ".into(), ..hourly() }, now), Err(CronError::Command)));
        assert!(matches!(cron.add(NewJob { schedule: "x".into(), ..hourly() }, now), Err(CronError::Schedule(_))));
        for _ in 0..JOBS {
            cron.add(hourly(), now).unwrap();
        }
        assert!(matches!(cron.add(hourly(), now), Err(CronError::TooMany)));
    }

    #[test]
    fn a_broken_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/cron.json");
        replace(&path, b"{").unwrap();
        assert!(matches!(Cron::new(folder.path()).add(hourly(), Timestamp::now()), Err(CronError::Broken)));
        assert_eq!(fs::read(&path).unwrap(), b"{");
    }
}
