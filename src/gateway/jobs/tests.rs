use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hourly() -> NewJob {
    NewJob { schedule: Some("0 * * * *".into()), command: "say hi".into(), ..NewJob::default() }
}

fn once(time: &str) -> NewJob {
    NewJob { at: Some(time.into()), command: "remind me".into(), ..NewJob::default() }
}

fn settings() -> Settings {
    Settings::default()
}

fn add(jobs: &Jobs, new: NewJob, now: &str) -> Result<Job, JobError> {
    jobs.add(new, "UTC", &Owner::client(), at(now))
}

fn due(jobs: &Jobs, now: &str) -> Vec<Job> {
    jobs.take_due(&settings(), at(now)).unwrap().jobs
}

#[test]
fn a_run_is_written_down_before_it_starts_and_is_not_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let job = add(&jobs, hourly(), "2026-11-22T10:30:00Z").unwrap();
    assert_eq!(job.next_run, Some(at("2026-11-22T11:00:00Z")));
    assert!(due(&jobs, "2026-11-22T10:59:59Z").is_empty());
    // Down for a day: one run makes up for all that were missed.
    let restarted = Jobs::new(folder.path());
    assert_eq!(due(&restarted, "2026-11-23T10:30:00Z").len(), 1);
    assert!(due(&restarted, "2026-11-23T10:30:00Z").is_empty());
    // Killed during the run: it is not made again, and that is told.
    let again = Jobs::new(folder.path());
    assert!(due(&again, "2026-11-23T10:31:00Z").is_empty());
    assert_eq!(again.list().unwrap()[0].last_status.as_deref(), Some("interrupted"));
    again.finish(&job.id, "ok", "hi").unwrap();
    assert_eq!(Jobs::new(folder.path()).list().unwrap()[0].last_output.as_deref(), Some("hi"));
    assert!(again.remove(&job.id).unwrap() && !again.remove(&job.id).unwrap());
}

#[test]
fn a_missed_run_is_made_up_for_only_where_it_is_wished() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    add(&jobs, NewJob { catch_up: Some(false), ..hourly() }, "2026-11-22T10:30:00Z").unwrap();
    add(&jobs, hourly(), "2026-11-22T10:30:00Z").unwrap();
    add(&jobs, NewJob { catch_up: Some(true), ..once("2026-11-22T12:00:00Z") }, "2026-11-22T10:30:00Z").unwrap();
    let off = Settings { catch_up_on_startup: false, ..settings() };
    let taken = jobs.take_due(&off, at("2026-11-22T15:30:00Z")).unwrap().jobs;
    assert_eq!(taken.iter().map(|job| job.command.as_str()).collect::<Vec<_>>(), ["remind me"]);
    let listed = jobs.list().unwrap();
    assert_eq!(listed[0].last_status.as_deref(), Some("missed"));
    assert_eq!(listed[0].next_run, Some(at("2026-11-22T16:00:00Z")));
    // One that is only a little late was not missed.
    assert_eq!(jobs.take_due(&off, at("2026-11-22T16:00:30Z")).unwrap().jobs.len(), 2);
}

#[test]
fn a_job_that_runs_once_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let now = "2026-11-22T10:30:00Z";
    add(&jobs, once("2026-11-22T11:00:00Z"), now).unwrap();
    add(&jobs, NewJob { once: Some(true), ..hourly() }, now).unwrap();
    let gone = add(&jobs, NewJob { once: Some(true), delete_after_run: Some(true), ..hourly() }, now).unwrap();
    assert_eq!(due(&jobs, "2026-11-22T11:00:00Z").len(), 3);
    jobs.finish(&gone.id, "ok", "done").unwrap();
    let left = jobs.list().unwrap();
    assert!(left.len() == 2 && left.iter().all(|job| !job.enabled && job.next_run.is_none()), "{left:?}");
    assert!(due(&jobs, "2027-11-22T11:00:00Z").is_empty());
}

#[test]
fn a_job_expires() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let until = |end: &str| NewJob { expires_at: Some(end.into()), ..hourly() };
    add(&jobs, until("2026-11-22T12:30:00Z"), "2026-11-22T10:30:00Z").unwrap();
    assert_eq!(due(&jobs, "2026-11-22T11:00:00Z").len(), 1);
    assert_eq!(due(&jobs, "2026-11-22T12:00:00Z").len(), 1);
    assert!(!jobs.list().unwrap()[0].enabled);
    assert!(due(&jobs, "2026-11-22T13:00:00Z").is_empty());
    assert!(matches!(add(&jobs, until("2026-11-22T10:45:00Z"), "2026-11-22T10:30:00Z"), Err(JobError::Expired)));
    // Down over its end: it does not run after it.
    add(&jobs, until("2026-11-22T14:30:00Z"), "2026-11-22T13:30:00Z").unwrap();
    assert!(due(&jobs, "2026-11-22T20:00:00Z").is_empty());
}

#[test]
fn runs_keep_a_distance_and_a_late_look_costs_none() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let new = |schedule: &str| NewJob { schedule: Some(schedule.into()), ..hourly() };
    add(&jobs, new("* * * * * *"), "2026-11-22T10:30:00Z").unwrap();
    add(&jobs, new("* * * * *"), "2026-11-22T10:30:00Z").unwrap();
    assert_eq!(due(&jobs, "2026-11-22T10:30:01Z").len(), 1);
    let next: Vec<String> = jobs.list().unwrap().iter().map(|job| job.next_run.unwrap().to_string()).collect();
    assert_eq!(next, ["2026-11-22T10:31:01Z", "2026-11-22T10:31:00Z"]);
    assert_eq!(due(&jobs, "2026-11-22T10:31:05Z").len(), 2);
    assert_eq!(jobs.list().unwrap()[1].next_run, Some(at("2026-11-22T10:32:00Z")));
}

#[test]
fn the_runs_of_a_day_have_a_budget_that_removing_a_job_does_not_refill() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let few = Settings { max_runs_per_day: 2, ..settings() };
    let take = |now: &str| jobs.take_due(&few, at(now)).unwrap();
    let first = add(&jobs, hourly(), "2026-11-22T10:30:00Z").unwrap();
    assert_eq!(take("2026-11-22T11:00:00Z").jobs.len(), 1);
    assert_eq!(take("2026-11-22T12:00:00Z").jobs.len(), 1);
    jobs.remove(&first.id).unwrap();
    add(&jobs, hourly(), "2026-11-22T12:30:00Z").unwrap();
    assert_eq!(take("2026-11-22T13:00:00Z"), Due { jobs: vec![], over_budget: 1 });
    assert!(jobs.list().unwrap()[0].last_status.as_deref().unwrap().starts_with("skipped"));
    assert_eq!(take("2026-11-23T00:00:00Z").jobs.len(), 1, "a new day");
}

#[test]
fn no_job_runs_where_the_schedule_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    add(&jobs, hourly(), "2026-11-22T10:30:00Z").unwrap();
    let off = Settings { enabled: false, ..settings() };
    assert!(jobs.take_due(&off, at("2026-11-22T11:00:00Z")).unwrap().jobs.is_empty());
}

#[test]
fn what_cannot_be_a_job_is_refused_and_their_number_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::new(folder.path());
    let now = "2026-11-22T10:30:00Z";
    assert!(matches!(add(&jobs, NewJob { command: " ".into(), ..hourly() }, now), Err(JobError::Command)));
    assert!(matches!(add(&jobs, NewJob { schedule: Some("x".into()), ..hourly() }, now), Err(JobError::When(_))));
    let first = add(&jobs, once("2026-11-22T10:31:00Z"), now).unwrap();
    for _ in 1..JOBS {
        add(&jobs, hourly(), now).unwrap();
    }
    assert!(matches!(add(&jobs, hourly(), now), Err(JobError::TooMany)));
    // One that is over makes room.
    due(&jobs, "2026-11-22T10:31:00Z");
    add(&jobs, hourly(), now).unwrap();
    assert!(jobs.list().unwrap().iter().all(|job| job.id != first.id));
}

#[test]
fn jobs_of_the_first_version_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let old = r#"[{"id":"1","name":null,"schedule":"0 9 * * *","tz":"UTC","command":"greet","deliver":null,"enabled":true,
        "next_run":"2026-11-23T09:00:00Z","last_run":null,"last_status":null,"last_output":null}]"#;
    replace(&folder.path().join("state/cron.json"), old.as_bytes()).unwrap();
    let jobs = Jobs::new(folder.path());
    assert_eq!(due(&jobs, "2026-11-23T09:00:00Z")[0].command, "greet");
    assert_eq!(jobs.list().unwrap()[0].next_run, Some(at("2026-11-24T09:00:00Z")));
}

#[test]
fn a_broken_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/cron.json");
    replace(&path, b"{").unwrap();
    assert!(matches!(add(&Jobs::new(folder.path()), hourly(), "2026-11-22T10:30:00Z"), Err(JobError::Broken)));
    assert_eq!(fs::read(&path).unwrap(), b"{");
}
