//! How long a server asks to wait, in whatever form it says so: models and platforms alike.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Letters after a number, and how many seconds they stand for. The first that fits counts.
const UNITS: [(&str, f64); 14] = [
    ("milliseconds", 0.001),
    ("millisecond", 0.001),
    ("ms", 0.001),
    ("seconds", 1.0),
    ("second", 1.0),
    ("secs", 1.0),
    ("sec", 1.0),
    ("s", 1.0),
    ("minutes", 60.0),
    ("minute", 60.0),
    ("min", 60.0),
    ("m", 60.0),
    ("hours", 3600.0),
    ("h", 3600.0),
];
/// What stands before a pause in a sentence.
const BEFORE: [&str; 5] = ["try again in ", "retry in ", "retry after ", "retrying after ", "wait "];

/// The server's clock as far as its answer tells it, else `ours`, which may be wrong: what it says of times goes by its own.
pub(super) fn clock(headers: &HeaderMap, ours: SystemTime) -> SystemTime {
    text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(ours)
}

/// What `Retry-After` and its like ask for: in milliseconds, in whole or broken seconds, with units, or until a date.
pub(super) fn in_headers(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(millis) = text(headers, "retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return of_seconds(millis / 1000.0);
    }
    let value = text(headers, RETRY_AFTER.as_str())?;
    let until = || httpdate::parse_http_date(value).ok();
    // A date in the past means now.
    alone(value).or_else(|| Some(until()?.duration_since(now).unwrap_or_default()))
}

/// A pause that is a member of JSON: a number of seconds, or a text.
pub(super) fn in_json(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => alone(text),
        value => of_seconds(value.as_f64()?),
    }
}

/// A pause that is written alone: seconds (`4`, `0.5`), with units (`4s`, `4200ms`, `1m30s`), or the first of a list.
pub(super) fn alone(text: &str) -> Option<Duration> {
    let text = text.split(',').next().unwrap_or_default().trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return of_seconds(seconds);
    }
    let (pause, rest) = begins_with(text)?;
    rest.trim().is_empty().then_some(pause)
}

/// A pause in the midst of a sentence: "Please try again in 1m2.5s. Visit …".
pub(super) fn in_words(text: &str) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    BEFORE.iter().find_map(|before| {
        let after = lower.find(before)? + before.len();
        begins_with(&lower[after..]).map(|(pause, _)| pause)
    })
}

/// The time until then, in milliseconds since 1970 as routers tell it; none left where it is over.
pub(super) fn until(epoch_millis: f64, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    of_seconds((epoch_millis / 1000.0 - now).max(0.0))
}

/// Numbers with units, as many as there are, and what comes after them.
fn begins_with(text: &str) -> Option<(Duration, &str)> {
    let (mut rest, mut seconds, mut found) = (text, 0.0, false);
    loop {
        let text = rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let Ok(number) = text[..end].parse::<f64>() else { break };
        let after = text[end..].trim_start();
        let word_ends = |name: &str| !after[name.len()..].starts_with(|c: char| c.is_ascii_alphabetic());
        let unit = UNITS.iter().find(|(name, _)| after.starts_with(name) && word_ends(name));
        let Some((name, factor)) = unit else { break };
        seconds += number * factor;
        found = true;
        rest = &after[name.len()..];
    }
    let pause = of_seconds(seconds)?;
    found.then_some((pause, rest))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn of_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let ours = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        in_headers(&headers, clock(&headers, ours))
    }

    #[test]
    fn headers_are_read_in_every_form() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(read(&[("retry-after", "2")]), seconds(2));
        assert_eq!(read(&[("retry-after", " 0.5 ")]), Some(Duration::from_millis(500)));
        assert_eq!(read(&[("retry-after-ms", "1500")]), Some(Duration::from_millis(1500)));
        assert_eq!(read(&[("retry-after", "4s")]), seconds(4));
        assert_eq!(read(&[("retry-after", "4, 4")]), seconds(4));
        assert_eq!(read(&[("retry-after", "Wed, 21 Oct 2026 07:28:07 GMT")]), seconds(7));
        assert_eq!(read(&[("retry-after", "Wednesday, 21-Oct-26 07:28:07 GMT")]), seconds(7));
        assert_eq!(read(&[("retry-after", "Wed Oct 21 07:28:07 2026")]), seconds(7));
        assert_eq!(read(&[("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT")]), seconds(0));
        for bad in ["-1", "soon", "", "nan"] {
            assert_eq!(read(&[("retry-after", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn a_date_is_of_the_clock_of_whoever_wrote_it() {
        let of_theirs = [("date", "Wed, 21 Oct 2026 09:00:00 GMT"), ("retry-after", "Wed, 21 Oct 2026 09:00:05 GMT")];
        assert_eq!(read(&of_theirs), Some(Duration::from_secs(5)));
        assert_eq!(read(&[("date", "soon"), of_theirs[1]]), Some(Duration::from_secs(92 * 60 + 5)));
    }

    #[test]
    fn a_member_is_a_number_or_a_text() {
        use serde_json::json;
        for value in [json!(1.5), json!("1.5"), json!("1500ms")] {
            assert_eq!(in_json(&value), Some(Duration::from_millis(1500)), "{value}");
        }
        for value in [json!(null), json!(-1), json!("soon"), json!({})] {
            assert_eq!(in_json(&value), None, "{value}");
        }
    }

    #[test]
    fn a_pause_alone_is_read_with_and_without_units() {
        for (text, millis) in [
            ("4", 4000),
            (" 0.5 ", 500),
            ("4s", 4000),
            ("4200ms", 4200),
            ("1m30s", 90_000),
            ("6m0s", 360_000),
            ("1h2m", 3_720_000),
            ("4, 4", 4000),
            ("20 seconds", 20_000),
        ] {
            assert_eq!(alone(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "nan", "soon", "4 apples", "s", "Wed, 21 Oct 2026 07:28:07 GMT", "1e400"] {
            assert_eq!(alone(text), None, "{text}");
        }
    }

    #[test]
    fn a_pause_is_found_in_a_sentence() {
        for (text, millis) in [
            ("Rate limit reached for m. Please try again in 4.2s. Visit the page to learn more.", 4200),
            ("Limit 3, Used 3. Please try again in 850ms.", 850),
            ("Please retry in 34.074824224s.", 34_074),
            ("Please try again in 1m2.5s", 62_500),
            ("Too many requests, wait 5 seconds", 5000),
        ] {
            assert_eq!(in_words(text).map(|pause| pause.as_millis()), Some(millis), "{text}");
        }
        for text in ["try again later", "try again in a while", "wait", "retry after 3 apples", "limit 20 s"] {
            assert_eq!(in_words(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_that_is_over_is_no_pause() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(until(104_200.0, now), Some(Duration::from_millis(4200)));
        assert_eq!(until(1.0, now), Some(Duration::ZERO));
        assert_eq!(until(f64::MAX, now), None);
    }
}
