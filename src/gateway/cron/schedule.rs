//! A cron expression in a time zone.

use std::str::FromStr as _;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// When a job runs, as its owner wrote it. It has been parsed once; a file edited by hand may say anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct Schedule {
    #[serde(rename = "schedule")]
    pub(in crate::gateway) expression: String,
    pub(in crate::gateway) tz: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum ScheduleError {
    #[error("the schedule must be a cron expression such as \"30 9 * * 1-5\"")]
    Expression,
    #[error("the time zone must be an IANA name such as UTC or Europe/Zurich")]
    TimeZone,
    #[error("the schedule never comes true")]
    Never,
}

impl Schedule {
    /// # Errors
    /// See [`ScheduleError`].
    pub(in crate::gateway) fn parse(expression: &str, tz: Option<&str>) -> Result<Self, ScheduleError> {
        let expression = expression.trim().to_owned();
        croner::Cron::from_str(&expression).map_err(|_| ScheduleError::Expression)?;
        let tz = tz.map(str::trim).filter(|tz| !tz.is_empty()).unwrap_or("UTC").to_owned();
        TimeZone::get(&tz).map_err(|_| ScheduleError::TimeZone)?;
        let schedule = Self { expression, tz };
        match schedule.next_after(Timestamp::now()) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }

    /// The first time after `after`, if there is one.
    pub(in crate::gateway) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let cron = croner::Cron::from_str(&self.expression).ok()?;
        let zone = TimeZone::get(&self.tz).ok()?;
        cron.find_next_occurrence(&after.to_zoned(zone), false).ok().map(|next| next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, tz: &str, after: &str) -> String {
        let schedule = Schedule::parse(expression, Some(tz)).unwrap();
        schedule.next_after(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn times_follow_their_zone_through_summer_and_winter() {
        assert_eq!(next("30 9 * * *", "UTC", "2026-01-15T09:30:00Z"), "2026-01-16T09:30:00Z");
        assert_eq!(next("30 9 * * *", "Europe/Zurich", "2026-01-15T00:00:00Z"), "2026-01-15T08:30:00Z");
        assert_eq!(next("30 9 * * *", "Europe/Zurich", "2026-07-15T00:00:00Z"), "2026-07-15T07:30:00Z");
        assert_eq!(next("0 9 * * 1-5", "America/New_York", "2026-11-20T15:00:00Z"), "2026-11-23T14:00:00Z");
        // 02:30 does not exist on the day the clocks go forward.
        assert!(next("30 2 * * *", "Europe/Zurich", "2026-03-28T12:00:00Z").as_str() > "2026-03-29T00:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in ["", "x", "* * *", "61 * * * *", "@never"] {
            assert_eq!(Schedule::parse(bad, None), Err(ScheduleError::Expression), "{bad}");
        }
        assert_eq!(Schedule::parse("* * * * *", Some("Mars/Olympus")), Err(ScheduleError::TimeZone));
        assert_eq!(Schedule::parse("0 0 30 2 *", None), Err(ScheduleError::Never));
    }
}
