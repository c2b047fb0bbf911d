//! Runs jobs when they are due.

use std::time::Duration;

use serde_json::json;

use super::{CronError, Job};
use crate::domain::Timestamp;
use crate::gateway::agent::{self, Ask, Source};
use crate::gateway::channels;
use crate::gateway::shared::App;

/// Longest sleep between two looks at the clock: it may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A full disk is not emptied by trying at once again.
const AFTER_ERROR: Duration = Duration::from_secs(10);

/// Runs due jobs, one after the other, until dropped. A job that is still running delays the next, and never overlaps
/// with itself.
pub(in crate::gateway) async fn run(app: App) {
    loop {
        let looked = app.clone();
        let due = tokio::task::spawn_blocking(move || looked.cron.take_due(Timestamp::now())).await;
        match due {
            Ok(Ok(jobs)) => {
                app.health.ok("scheduler");
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
        let asleep = app.cron.next_due().ok().flatten().map_or(LONGEST_SLEEP, until);
        tokio::select! {
            () = tokio::time::sleep(asleep) => {}
            () = app.cron.changed.notified() => {}
        }
    }
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default().min(LONGEST_SLEEP)
}

async fn run_job(app: &App, job: Job) {
    app.events.publish("cron_start", json!({ "id": job.id, "name": job.name }));
    let answer = agent::answer(app, Ask::new(Source::Cron, &job.command)).await;
    let (status, output) = match answer {
        Ok(answer) => ("ok", answer.text),
        Err(error) => ("error", error.to_string()),
    };
    if let (Some(delivery), "ok") = (&job.deliver, status)
        && let Err(error) = channels::send(app, &delivery.channel, &delivery.to, &output).await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, job = job.id, "cannot deliver a job's answer");
    }
    app.events.publish("cron_end", json!({ "id": job.id, "name": job.name, "status": status }));
    let saved = app.clone();
    let finished = tokio::task::spawn_blocking(move || saved.cron.finish(&job.id, status, &output)).await;
    if let Ok(Err(error)) = finished {
        complain(app, &error);
    }
}

fn complain(app: &App, error: &CronError) {
    tracing::error!(error = error as &dyn std::error::Error, "the scheduler cannot work");
    app.health.error("scheduler", &error.to_string());
}
