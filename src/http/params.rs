//! Query parameters: read one by one, everything that is wrong noted, nothing repeated of what was sent.
//!
//! Unknown parameters are left alone, as is the custom of the web; unknown fields of a body are not.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::{FieldError, Problem};
use crate::domain::{Status, Timestamp};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// The query of a request, and what was found wrong with it so far.
#[derive(Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    faults: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(pairs)| pairs);
        Ok(Self { pairs: pairs.unwrap_or_default(), faults: Vec::new() })
    }
}

impl Params {
    /// The last value of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// There, and not `false` or `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| !matches!(value, "false" | "0"))
    }

    /// `true` or `false`, as such or as 1 or 0; a name alone is true.
    pub fn boolean(&mut self, name: &'static str) -> bool {
        match self.text(name) {
            None | Some("false" | "0") => false,
            Some("" | "true" | "1") => true,
            Some(_) => {
                self.faults.push(FieldError::parameter(name, "must be true or false"));
                false
            }
        }
    }

    pub fn number<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let Some(text) = self.text(name) else { return default };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let remedy = format!("must be a whole number from {} to {}", range.start(), range.end());
                self.faults.push(FieldError::parameter(name, remedy));
                default
            }
        }
    }

    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let time = self.text(name)?.parse::<Timestamp>();
        time.map_err(|_| self.faults.push(FieldError::parameter(name, "must be a time such as 2026-01-31T12:00:00Z")))
            .ok()
    }

    /// Statuses by comma, or by several parameters of this name; none where there is none.
    pub fn statuses(&mut self, name: &'static str) -> Vec<Status> {
        let texts = self.pairs.iter().filter(|(known, _)| known == name).flat_map(|(_, text)| text.split(','));
        match texts.map(|status| Status::parse(status.trim())).collect() {
            Ok(statuses) => statuses,
            Err(remedy) => {
                self.faults.push(FieldError::parameter(name, remedy));
                Vec::new()
            }
        }
    }

    /// One of these words, if it is there.
    pub fn one_of(&mut self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(name)?;
        let word = words.iter().find(|word| **word == text).copied();
        if word.is_none() {
            self.faults.push(FieldError::parameter(name, format!("must be one of {}", words.join(", "))));
        }
        word
    }

    /// A text that a filter looks for.
    pub fn part(&self, name: &str) -> Option<String> {
        self.text(name).map(str::trim).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    }

    pub fn limit(&mut self) -> usize {
        self.number("limit", DEFAULT_LIMIT, 1..=MAX_LIMIT)
    }

    /// What [`cursor`] made.
    pub fn cursor<T: FromStr>(&mut self) -> Option<T> {
        let text = self.text("cursor")?;
        let place = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        if place.is_none() {
            self.faults.push(FieldError::parameter("cursor", "must be a nextCursor of this list"));
        }
        place
    }

    /// # Errors
    /// Everything that was found wrong.
    pub fn finish(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}

/// A time of a body that must lie ahead.
///
/// # Errors
/// The remedy.
pub fn future(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let time = text
        .parse::<Timestamp>()
        .map_err(|_| "must be a time such as 2030-01-31T12:00:00Z, before the last days of 9999".to_owned())?;
    if time > now { Ok(time) } else { Err("must be in the future".into()) }
}

/// A place in a list, opaque to clients.
pub fn cursor(place: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(place.to_string())
}

/// The page of `all`, sorted by id, that the query asks for.
pub fn page_of<T, I>(all: Vec<T>, after: Option<I>, limit: usize, id: impl Fn(&T) -> I) -> (Vec<T>, Option<String>)
where
    I: Ord + Display,
{
    let mut rest = all.into_iter().filter(|item| after.as_ref().is_none_or(|after| id(item) > *after));
    let page: Vec<T> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last().map(|last| cursor(id(last))));
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri = format!("/x?{query}").parse().unwrap();
        Params { pairs: Query::try_from_uri(&uri).map(|Query(pairs)| pairs).unwrap(), faults: Vec::new() }
    }

    #[test]
    fn everything_wrong_is_said_at_once_and_not_repeated() {
        let mut query = params("limit=sk-planted&status=RUNNING,sk-planted&since=sk-planted&cursor=sk-planted");
        assert_eq!((query.limit(), query.statuses("status"), query.time("since")), (50, vec![], None));
        assert_eq!(query.cursor::<u64>(), None);
        let problem = query.finish().unwrap_err().body("/", "r");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 4);
        assert!(!problem.to_string().contains("sk-planted"));
    }

    #[test]
    fn a_filter_may_be_written_once_or_for_each_status() {
        let both = [Status::Running, Status::Error];
        assert_eq!(params("status=RUNNING,ERROR").statuses("status"), both);
        assert_eq!(params("status=RUNNING&status=ERROR").statuses("status"), both);
        assert_eq!(params("limit=1").statuses("status"), []);
    }

    #[test]
    fn good_ones_are_read() {
        let mut query = params("limit=200&status=RUNNING,ERROR&verbose&follow=false&cursor=Nw");
        assert_eq!(query.limit(), 200);
        assert_eq!(query.statuses("status"), [Status::Running, Status::Error]);
        assert!(query.flag("verbose") && !query.flag("follow") && !query.flag("other"));
        assert_eq!((query.cursor::<u64>(), cursor(7)), (Some(7), "Nw".to_owned()));
        query.finish().unwrap();
    }

    #[test]
    fn a_page_ends_with_a_cursor_only_if_there_is_more() {
        let (first, next) = page_of(vec![1, 2, 3], None, 2, |n| *n);
        assert_eq!((first, next), (vec![1, 2], Some(cursor(2))));
        let (rest, next) = page_of(vec![1, 2, 3], Some(2), 2, |n| *n);
        assert_eq!((rest, next), (vec![3], None));
    }
}
