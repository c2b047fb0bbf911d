//! Runs jobs when they are due.

use std::time::Duration;

use serde_json::json;

use super::agent::{self, Ask, Source};
use super::channels;
use super::jobs::{Due, Job, JobError};
use super::memory::Owner;
use super::shared::App;
use crate::domain::Timestamp;

/// Longest sleep between two looks at the clock: it may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// A full disk is not emptied by trying at once again.
const AFTER_ERROR: Duration = Duration::from_secs(10);

/// Runs due jobs until dropped, one after the other: a job that takes long delays the next, and none overlaps itself.
pub(super) async fn run(app: App) {
    loop {
        let (looker, settings) = (app.clone(), app.config().cron.clone());
        let due = tokio::task::spawn_blocking(move || looker.jobs.take_due(&settings, Timestamp::now())).await;
        match due {
            Ok(Ok(Due { jobs, over_budget })) => {
                app.health.ok("scheduler");
                if over_budget > 0 {
                    tracing::warn!(over_budget, "jobs were due and not run: cron.max_runs_per_day is reached");
                }
                for job in jobs {
                    run_job(&app, job).await;
                }
            }
            Ok(Err(error)) => {
                complain(&app, &error);
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
            Err(_) => return,
        }
        let asleep = app.jobs.next_due().ok().flatten().map_or(LONGEST_SLEEP, until);
        // Where no job may run, the next one is due for ever: the settings may change.
        let asleep = if app.config().cron.enabled { asleep } else { LONGEST_SLEEP };
        tokio::select! {
            () = tokio::time::sleep(asleep) => {}
            () = app.jobs.changed.notified() => {}
        }
    }
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default().min(LONGEST_SLEEP)
}

async fn run_job(app: &App, job: Job) {
    app.events.publish("cron_start", json!({ "id": job.id, "name": job.name }));
    let owner = job.owner.as_deref().map_or_else(Owner::client, Owner::named);
    let answer = agent::answer(app, Ask { owner, ..Ask::new(Source::Cron, &job.command) }).await;
    let (mut status, output) = match answer {
        Ok(answer) => ("ok", answer.text),
        Err(error) => ("error", error.to_string()),
    };
    if let (Some(delivery), "ok") = (&job.deliver, status)
        && let Err(error) =
            channels::send(&app.http, &app.config().channels_config, &delivery.channel, &delivery.to, &output).await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, job = job.id, "cannot deliver a job's answer");
        status = "not delivered";
    }
    app.events.publish("cron_end", json!({ "id": job.id, "name": job.name, "status": status }));
    let saved = app.clone();
    let finished = tokio::task::spawn_blocking(move || saved.jobs.finish(&job.id, status, &output)).await;
    if let Ok(Err(error)) = finished {
        complain(app, &error);
    }
}

fn complain(app: &App, error: &JobError) {
    tracing::error!(error = error as &dyn std::error::Error, "the scheduler cannot work");
    app.health.error("scheduler", &error.to_string());
}
