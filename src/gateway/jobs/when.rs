//! When a job runs: by a cron expression in a time zone, at an interval, or at one time.

use std::str::FromStr as _;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};

use super::NewJob;
use crate::domain::Timestamp;

/// A single time that is further away is a slip of the pen.
const FURTHEST: SignedDuration = SignedDuration::from_hours(24 * 366 * 10);

/// When a job runs, as its owner wrote it. It was parsed once; a file edited by hand may say anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct When {
    /// A cron expression, or the one time in RFC 3339, or `every 5400 seconds`.
    pub(in crate::gateway) schedule: String,
    pub(in crate::gateway) tz: String,
    /// The one time, for a job that runs once.
    #[serde(default)]
    pub(in crate::gateway) at: Option<Timestamp>,
    /// The interval.
    #[serde(default)]
    pub(in crate::gateway) every_secs: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum WhenError {
    #[error("the schedule must be a cron expression such as \"30 9 * * 1-5\", or a time such as 2026-12-24T18:00")]
    Expression,
    #[error("the time zone must be an IANA name such as UTC or Europe/Zurich")]
    TimeZone,
    #[error("the schedule never comes true")]
    Never,
    #[error("give one of schedule, at, in and every")]
    OneOf,
    #[error("the time must be such as 2026-12-24T18:00 or 2026-12-24T18:00:00Z")]
    Time,
    #[error("the time is past")]
    Past,
    #[error("the time is more than ten years away")]
    TooFar,
    #[error("the duration must be such as \"10 minutes\", \"2h 30m\" or \"1 day\", and at least a second")]
    Duration,
}

impl When {
    /// # Errors
    /// See [`WhenError`].
    pub(super) fn parse(new: &NewJob, zone: &str, now: Timestamp) -> Result<Self, WhenError> {
        let tz = TimeZone::get(zone).map_err(|_| WhenError::TimeZone)?;
        let text = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        match (text(&new.schedule), text(&new.at), text(&new.from_now), text(&new.every)) {
            (Some(schedule), None, None, None) => Self::from_schedule(&schedule, zone, now),
            (None, Some(at), None, None) => Self::once(time(&at, zone, now)?, zone, now),
            (None, None, Some(from_now), None) => {
                let from_now = without("in ", &from_now).trim_start_matches('+');
                let span = span(from_now).ok_or(WhenError::Duration)?;
                let at = now.to_zoned(tz).checked_add(span).map_err(|_| WhenError::TooFar)?;
                Self::once(at.timestamp(), zone, now)
            }
            (None, None, None, Some(every)) => Self::every(&every, zone),
            _ => Err(WhenError::OneOf),
        }
    }

    fn from_schedule(schedule: &str, zone: &str, now: Timestamp) -> Result<Self, WhenError> {
        if let Some(every) = word("@every ", schedule).or_else(|| word("every ", schedule)) {
            return Self::every(every, zone);
        }
        // The one nickname of cron that the parser does not know.
        let schedule = if schedule.eq_ignore_ascii_case("@midnight") { "@daily" } else { schedule };
        if let Ok(at) = time(schedule, zone, now) {
            return Self::once(at, zone, now);
        }
        croner::Cron::from_str(schedule).map_err(|_| WhenError::Expression)?;
        let when = Self { schedule: schedule.to_owned(), tz: zone.to_owned(), at: None, every_secs: None };
        when.next_after(now).map(|_| when).ok_or(WhenError::Never)
    }

    fn once(at: Timestamp, zone: &str, now: Timestamp) -> Result<Self, WhenError> {
        /// A time that was now when it was written.
        const JUST_NOW: SignedDuration = SignedDuration::from_secs(5);
        if at < now - JUST_NOW {
            return Err(WhenError::Past);
        }
        if at.duration_since(now) > FURTHEST {
            return Err(WhenError::TooFar);
        }
        Ok(Self { schedule: at.to_string(), tz: zone.to_owned(), at: Some(at), every_secs: None })
    }

    fn every(text: &str, zone: &str) -> Result<Self, WhenError> {
        // By the clock: a job of every day at the same time is one with a schedule.
        let day = SpanRelativeTo::days_are_24_hours();
        let every = span(without("every ", text)).and_then(|span| span.to_duration(day).ok());
        let every = every.ok_or(WhenError::Duration)?;
        let secs = every.as_secs();
        if secs < 1 || every > FURTHEST {
            return Err(WhenError::Duration);
        }
        Ok(Self { schedule: format!("every {secs} seconds"), tz: zone.to_owned(), at: None, every_secs: Some(secs) })
    }

    /// Whether it names one time only.
    pub(super) const fn is_single(&self) -> bool {
        self.at.is_some()
    }

    /// The first time after `after`, if there is one.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if let Some(at) = self.at {
            // One that is just past is due now.
            return Some(at);
        }
        if let Some(secs) = self.every_secs {
            return after.checked_add(SignedDuration::from_secs(secs)).ok();
        }
        let cron = croner::Cron::from_str(&self.schedule).ok()?;
        let zone = TimeZone::get(&self.tz).ok()?;
        cron.find_next_occurrence(&after.to_zoned(zone), false).ok().map(|next| next.timestamp())
    }

    /// The shortest time between two runs, of the next few.
    pub(in crate::gateway) fn shortest_interval(&self, now: Timestamp) -> Option<SignedDuration> {
        const LOOKED_AT: usize = 12;
        let mut times = std::iter::successors(self.next_after(now), |time| self.next_after(*time));
        let first = times.next().filter(|_| !self.is_single())?;
        let (_, shortest) = times.take(LOOKED_AT).fold((first, None::<SignedDuration>), |(before, shortest), next| {
            let gap = next.duration_since(before);
            (next, Some(shortest.map_or(gap, |shortest| shortest.min(gap))))
        });
        shortest
    }
}

/// What follows a word, in any case of letters.
fn word<'a>(word: &str, text: &'a str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

fn without<'a>(first: &str, text: &'a str) -> &'a str {
    word(first, text).unwrap_or(text).trim()
}

/// A length of time; a unit alone is one of it.
fn span(text: &str) -> Option<Span> {
    let text = text.trim();
    text.parse().ok().or_else(|| format!("1 {text}").parse().ok())
}

/// A time as [`jiff`] reads it: with two digits for the hour, which people leave out.
fn with_two_digits(text: &str) -> String {
    let Some((before, after)) = text.split_once(':') else { return text.to_owned() };
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (date, hour) = before.split_at(before.len() - digits);
    format!("{date}{hour:0>2}:{after}")
}

/// A time with its zone or offset, or a local one in `zone`; also `HH:MM`, which is the next one.
pub(super) fn time(text: &str, zone: &str, now: Timestamp) -> Result<Timestamp, WhenError> {
    let text = with_two_digits(text.trim());
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<jiff::Zoned>() {
        return Ok(at.timestamp());
    }
    let tz = TimeZone::get(zone).map_err(|_| WhenError::TimeZone)?;
    let in_zone = |local: DateTime| local.to_zoned(tz.clone()).map(|at| at.timestamp()).map_err(|_| WhenError::Time);
    // A date alone is not a time: nobody means midnight.
    if text.contains(':')
        && let Ok(local) = text.parse::<DateTime>()
    {
        return in_zone(local);
    }
    let clock: jiff::civil::Time = text.parse().map_err(|_| WhenError::Time)?;
    let today = now.to_zoned(tz.clone()).date();
    let at = in_zone(today.to_datetime(clock))?;
    if at > now {
        return Ok(at);
    }
    let tomorrow = today.tomorrow().map_err(|_| WhenError::Time)?;
    in_zone(tomorrow.to_datetime(clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn parse(new: NewJob, zone: &str) -> Result<When, WhenError> {
        When::parse(&new, zone, at("2026-11-22T10:30:00Z"))
    }

    fn by_schedule(schedule: &str) -> NewJob {
        NewJob { schedule: Some(schedule.into()), ..NewJob::default() }
    }

    fn next(expression: &str, tz: &str, after: &str) -> String {
        parse(by_schedule(expression), tz).unwrap().next_after(at(after)).unwrap().to_string()
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
    fn one_time_can_be_said_in_many_ways() {
        let once = |new: NewJob| parse(new, "Asia/Tokyo").unwrap().at.unwrap().to_string();
        let by = |at: &str| NewJob { at: Some(at.into()), ..NewJob::default() };
        let from_now = |span: &str| NewJob { from_now: Some(span.into()), ..NewJob::default() };
        assert_eq!(once(by("2026-11-23T09:00:00Z")), "2026-11-23T09:00:00Z");
        assert_eq!(once(by("2026-11-23T09:00:00+01:00")), "2026-11-23T08:00:00Z");
        assert_eq!(once(by("2026-11-23T09:00")), "2026-11-23T00:00:00Z");
        assert_eq!(once(by("2026-11-23 09:00")), "2026-11-23T00:00:00Z");
        assert_eq!(once(by("2026-11-23T09:00[Europe/Zurich]")), "2026-11-23T08:00:00Z");
        // It is 19:30 in Tokyo.
        assert_eq!(once(by("20:00")), "2026-11-22T11:00:00Z");
        assert_eq!(once(by("19:00")), "2026-11-23T10:00:00Z");
        assert_eq!(once(by("9:05")), "2026-11-23T00:05:00Z");
        assert_eq!(once(by("2026-11-23 9:00")), "2026-11-23T00:00:00Z");
        assert_eq!(once(by("2026-11-23T9:00:30+01:00")), "2026-11-23T08:00:30Z");
        assert_eq!(once(by_schedule("2026-11-23T09:00:00Z")), "2026-11-23T09:00:00Z");
        for ten_minutes in ["10 minutes", "10m", "in 10 minutes", "In 10 minutes", "+10m", "PT10M", "600s"] {
            assert_eq!(once(from_now(ten_minutes)), "2026-11-22T10:40:00Z", "{ten_minutes}");
        }
        assert_eq!(once(from_now("1 day")), "2026-11-23T10:30:00Z");
    }

    #[test]
    fn intervals_that_cron_cannot_say_are_kept() {
        for ninety in [NewJob { every: Some("90 minutes".into()), ..NewJob::default() }, by_schedule("@every 1h30m")] {
            let when = parse(ninety, "UTC").unwrap();
            assert_eq!(when.next_after(at("2026-11-22T10:30:00Z")), Some(at("2026-11-22T12:00:00Z")));
        }
        let secs = |new| parse(new, "Europe/Zurich").unwrap().every_secs;
        let every = |every: &str| secs(NewJob { every: Some(every.into()), ..NewJob::default() });
        assert_eq!(["1 day", "day", "2d", "36 hours"].map(every), [86_400, 86_400, 172_800, 129_600].map(Some));
        assert_eq!(["1 week", "2 weeks 1 day"].map(every), [604_800, 1_296_000].map(Some));
        assert_eq!(["every 2 hours", "Every hour", "every 30s"].map(every), [7_200, 3_600, 30].map(Some));
        assert_eq!(["@every 1 day", "every 2 hours"].map(|it| secs(by_schedule(it))), [86_400, 7_200].map(Some));
    }

    #[test]
    fn nicknames_of_cron_are_known() {
        for midnight in ["@midnight", "@Midnight", "@daily"] {
            assert_eq!(next(midnight, "Europe/Zurich", "2026-11-22T10:30:00Z"), "2026-11-22T23:00:00Z", "{midnight}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "x", "* * *", "61 * * * *", "@never"] {
            assert!(parse(by_schedule(bad), "UTC").is_err(), "{bad}");
        }
        assert_eq!(parse(by_schedule("* * * * *"), "Mars/Olympus"), Err(WhenError::TimeZone));
        assert_eq!(parse(by_schedule("0 0 30 2 *"), "UTC"), Err(WhenError::Never));
        let by = |at: &str| NewJob { at: Some(at.into()), ..NewJob::default() };
        assert_eq!(parse(by("2026-11-22T10:00:00Z"), "UTC"), Err(WhenError::Past));
        assert_eq!(parse(by("2126-11-22T10:00:00Z"), "UTC"), Err(WhenError::TooFar));
        assert_eq!(parse(by("2026-11-23"), "UTC"), Err(WhenError::Time));
        let every = |every: &str| NewJob { every: Some(every.into()), ..NewJob::default() };
        assert_eq!(parse(every("0s"), "UTC"), Err(WhenError::Duration));
        for bad in ["soon", "", " ", "-1 day", "1 month", "every", "every 0 days", "9999 weeks"] {
            assert!(parse(every(bad), "UTC").is_err(), "{bad}");
        }
        assert_eq!(parse(NewJob::default(), "UTC"), Err(WhenError::OneOf));
        assert_eq!(
            parse(NewJob { at: Some("20:00".into()), ..by_schedule("* * * * *") }, "UTC"),
            Err(WhenError::OneOf)
        );
    }

    #[test]
    fn the_shortest_interval_is_known() {
        let shortest = |schedule: &str| {
            parse(by_schedule(schedule), "UTC")
                .unwrap()
                .shortest_interval(at("2026-11-22T10:30:00Z"))
                .map(|gap| gap.as_secs())
        };
        assert_eq!(shortest("* * * * * *"), Some(1));
        assert_eq!(shortest("* * * * *"), Some(60));
        assert_eq!(shortest("0,1 9 * * *"), Some(60));
        assert_eq!(shortest("2026-11-23T09:00:00Z"), None);
    }
}
