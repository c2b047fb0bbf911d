//! `GET /api/agents/{id}/usage` and `GET /api/admin/usage`: what an agent, or all of them, used and answered over time.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::OwnedAgent;
use super::params::Params;
use super::problem::{FieldError, Problem};
use super::state::Api;
use crate::domain::Timestamp;
use crate::usage::{Point, Ring};

const HOUR: i64 = 3600;
/// How far back minutes reach, and hours.
const MINUTES_REACH: i64 = 24 * HOUR;
const HOURS_REACH: i64 = 30 * 24 * HOUR;
/// Points of one answer: a day of minutes.
const MAX_POINTS: i64 = 1440;

/// What an agent, or all of them together, used and answered over time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Seconds of each point.
    step_secs: i64,
    /// Those in which something was measured, oldest first.
    data: Vec<FigurePoint>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FigurePoint {
    /// Its begin.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// Percent of one core, on average.
    cpu_percent: Option<f64>,
    /// The most.
    memory_mb: Option<f64>,
    messages: MessageCounts,
    latency: Latency,
    /// What the model read and wrote; null where the gateway does not tell.
    tokens: Option<u64>,
    /// Dollars, by the prices that the gateway knows.
    cost_usd: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub struct MessageCounts {
    answered: u64,
    failed: u64,
}

/// How long answers took, up to their first piece.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
}

/// What an agent used and answered: each minute of the last day, each hour of the last thirty days.
#[utoipa::path(
    get, path = "/api/agents/{id}/usage", tag = "agents",
    params(
        ("id" = uuid::Uuid, Path),
        ("from" = Option<String>, Query, description = "An hour before `to` by default"),
        ("to" = Option<String>, Query, description = "Now by default"),
        ("step" = Option<String>, Query, description = "Length of a point, such as `60s`, `5m` or `1h`")
    ),
    responses((status = 200, body = Figures))
)]
pub async fn usage(state: State<Api>, own: OwnedAgent, params: Params) -> Result<Json<Figures>, Problem> {
    let span = Span::asked(params, state.plane.now())?;
    let points = own.handle.figures(span.ring).await?;
    Ok(span.show(points))
}

/// What all agents together used and answered: each minute of the last day, each hour of the last thirty days. Processor and
/// memory are sums.
#[utoipa::path(
    get, path = "/api/admin/usage", tag = "admin",
    params(
        ("from" = Option<String>, Query, description = "An hour before `to` by default"),
        ("to" = Option<String>, Query, description = "Now by default"),
        ("step" = Option<String>, Query, description = "Length of a point, such as `60s`, `5m` or `1h`")
    ),
    responses((status = 200, body = Figures))
)]
pub async fn service_usage(state: State<Api>, params: Params) -> Result<Json<Figures>, Problem> {
    let span = Span::asked(params, state.plane.now())?;
    let points = state.plane.figures(span.ring).await?;
    Ok(span.show(points))
}

/// The time that is asked about.
struct Span {
    from: Timestamp,
    to: Timestamp,
    step: i64,
    ring: Ring,
}

impl Span {
    fn asked(mut params: Params, now: Timestamp) -> Result<Self, Problem> {
        let (from, to) = (params.time("from"), params.time("to").unwrap_or(now));
        let step = params.text("step").map(|step| step.trim().to_owned());
        params.finish()?;
        let back = |secs: i64| Timestamp::from_second(to.as_second() - secs).unwrap_or(Timestamp::MIN);
        let from = from.unwrap_or_else(|| back(HOUR));
        let length = to.as_second() - from.as_second();
        let wrong = |name: &'static str, remedy: &str| Problem::invalid(vec![FieldError::parameter(name, remedy)]);
        if !(0..=HOURS_REACH).contains(&length) {
            return Err(wrong("from", "must be before `to`, and not more than 30 days"));
        }
        let ring = if now.as_second() - from.as_second() <= MINUTES_REACH { Ring::Minutes } else { Ring::Hours };
        let step = match step.as_deref().map(seconds) {
            None => ring.seconds().max(length / MAX_POINTS),
            Some(Some(step)) if length / step <= MAX_POINTS => step.max(ring.seconds()),
            Some(Some(_)) => return Err(wrong("step", "must be longer: an answer has at most 1440 points")),
            Some(None) => {
                return Err(wrong("step", "must be a length of time such as 60s, 5m or 1h, a minute or more"));
            }
        };
        Ok(Self { from, to, step, ring })
    }

    fn show(self, points: Vec<(Timestamp, Point)>) -> Json<Figures> {
        let Self { from, to, step, ring } = self;
        let asked = (from.as_second(), to.as_second());
        let data = in_steps(points.into_iter().filter(|(at, _)| overlaps(at.as_second(), ring, asked)), step);
        Json(Figures { from, to, step_secs: step, data })
    }
}

/// Whether a point that begins then has some of the time that is asked about: a minute that has begun before it, too.
fn overlaps(begin: i64, ring: Ring, (from, to): (i64, i64)) -> bool {
    begin <= to && begin + ring.seconds() > from
}

fn in_steps(points: impl Iterator<Item = (Timestamp, Point)>, step: i64) -> Vec<FigurePoint> {
    let mut steps: Vec<(i64, Vec<Point>)> = Vec::new();
    for (at, point) in points {
        let begin = at.as_second().div_euclid(step) * step;
        match steps.last_mut() {
            Some((last, points)) if *last == begin => points.push(point),
            _ => steps.push((begin, vec![point])),
        }
    }
    let shown = |(begin, points): (i64, Vec<Point>)| {
        let point = Point::merged(&points);
        Some(FigurePoint {
            time: Timestamp::from_second(begin).ok()?,
            cpu_percent: point.cpu_percent,
            memory_mb: point.memory_mb,
            messages: MessageCounts { answered: point.answered, failed: point.failed },
            latency: Latency { p50_ms: point.p50_ms, p95_ms: point.p95_ms },
            tokens: point.tokens,
            cost_usd: point.cost_usd,
        })
    };
    steps.into_iter().filter_map(shown).collect()
}

/// `90`, `90s`, `5m`, `1h`; a minute or more.
fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => HOUR,
        "d" => 24 * HOUR,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|secs| (60..=HOURS_REACH).contains(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_has_begun_before_the_time_that_is_asked_about_is_shown() {
        let shown: Vec<i64> =
            [0, 60, 120, 180].into_iter().filter(|at| overlaps(*at, Ring::Minutes, (90, 120))).collect();
        assert_eq!(shown, [60, 120]);
        assert!(overlaps(0, Ring::Hours, (3599, 3599)) && !overlaps(0, Ring::Hours, (3600, 3600)));
    }

    #[test]
    fn steps_are_read_as_people_write_them() {
        for (text, secs) in [
            ("60s", Some(60)),
            ("90", Some(90)),
            ("5m", Some(300)),
            ("1h", Some(3600)),
            ("1d", Some(86_400)),
            ("59s", None),
            ("1w", None),
            ("m", None),
            ("-5m", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), secs, "{text}");
        }
    }
}
