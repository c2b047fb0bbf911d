//! `If-Match`: a change only if nobody else changed the agent since.

use axum::http::{HeaderMap, header};

use crate::http::error::{bad_header, stale};
use crate::http::problem::Problem;

/// The generation that the caller wants to change; `None` where any will do.
///
/// # Errors
/// 412 where it is another than `generation`, 400 for a header that is none.
pub fn if_match(headers: &HeaderMap, generation: u64) -> Result<Option<u64>, Problem> {
    let bad = || bad_header(&header::IF_MATCH, "must be * or entity tags such as \"3\"");
    let mut tags = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        tags.extend(value.to_str().map_err(|_| bad())?.split(',').map(str::trim));
    }
    if tags.is_empty() || tags == ["*"] {
        return Ok(None);
    }
    let mut matches = false;
    for tag in tags {
        // A weak tag is a tag, but never equal to a strong one.
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        let opaque = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(bad)?;
        matches |= !tag.starts_with("W/") && opaque == generation.to_string();
    }
    if matches { Ok(Some(generation)) } else { Err(stale(generation)) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::http::problem::Code;

    fn asked(value: &'static str) -> Result<Option<u64>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
        if_match(&headers, 3).map_err(|problem| problem.code())
    }

    #[test]
    fn only_the_present_generation_matches() {
        assert_eq!(if_match(&HeaderMap::new(), 3).unwrap(), None);
        for (value, outcome) in [
            ("*", Ok(None)),
            ("\"3\"", Ok(Some(3))),
            ("\"2\", \"3\"", Ok(Some(3))),
            ("\"2\"", Err(Code::PreconditionFailed)),
            ("W/\"3\"", Err(Code::PreconditionFailed)),
            ("3", Err(Code::Malformed)),
            ("\"3", Err(Code::Malformed)),
        ] {
            assert_eq!(asked(value), outcome, "{value}");
        }
    }
}
