//! Request bodies: bounded, JSON, and nothing in them that is not known.
//!
//! What is wrong is said without repeating what was sent: serde's own messages quote the value, which may be a secret.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::{Path, Segment};

use super::problem::{Code, FieldError, Problem};

/// The largest body that is read.
pub const MAX_BODY: usize = 1024 * 1024;
/// The largest file that is read.
pub const MAX_ARCHIVE: usize = 144 * 1024 * 1024;
/// What is read and thrown away of a body that is too large: a client that still sends when it is refused would else
/// see its connection break instead of the answer.
const MAX_DRAINED: usize = 32 * 1024 * 1024;
/// How long a client may take to send a body.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take to send a file.
const READ_FILE_WITHIN: Duration = Duration::from_secs(600);
/// Longest name of an unknown field that is repeated.
const MAX_SHOWN_NAME: usize = 64;

/// A JSON object as `T`, of at most `LIMIT` bytes.
pub struct JsonBody<T, const LIMIT: usize = MAX_BODY>(pub T);

/// A JSON object as `T`, or no body, which counts as an empty one.
pub struct Optional<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, MAX_BODY).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_kind(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// No body, or an empty JSON object.
pub struct EmptyBody;

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Self::read(&parts.headers, body).await
    }
}

impl<T: DeserializeOwned, const LIMIT: usize> JsonBody<T, LIMIT> {
    pub async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let bytes = read(headers, body, LIMIT).await?;
        if !is_json(headers) {
            return Err(not_json());
        }
        parse(&bytes).map(Self)
    }
}

/// For bodies that may be missing, and for clients of others: one without a kind is taken for JSON, one of another kind is refused.
pub fn check_kind(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_TYPE) && !is_json(headers) { Err(not_json()) } else { Ok(()) }
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "Send the body as application/json.")
}

impl<S: Send + Sync> FromRequest<S> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, MAX_BODY).await?;
        if !bytes.is_empty() {
            check_kind(&parts.headers)?;
            parse::<Empty>(&bytes)?;
        }
        Ok(Self)
    }
}

/// A whole body of at most `limit` bytes.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    // A file may take longer than a form.
    let within = if limit >= MAX_ARCHIVE { READ_FILE_WITHIN } else { READ_WITHIN };
    let coding =
        headers.get(header::CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coding.is_some() {
        return Err(Problem::new(Code::UnsupportedMediaType, "Send the body as it is, without Content-Encoding."));
    }
    let too_large = || Problem::new(Code::TooLarge, format!("The body may have at most {limit} bytes."));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit.max(MAX_DRAINED) as u64) {
        return Err(too_large());
    }
    let reading = tokio::time::timeout(within, gather(body, limit)).await;
    match reading {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::Malformed, "The body ended before its end.")),
        Err(_) => Err(Problem::new(Code::Timeout, "The body did not arrive in time.")),
    }
}

/// `None` where there is more than `limit`.
async fn gather(mut body: Body, limit: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut bytes = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        seen += data.len();
        if seen <= limit {
            bytes.extend_from_slice(&data);
        } else if seen > limit.max(MAX_DRAINED) {
            break;
        }
    }
    Ok((seen <= limit).then(|| bytes.freeze()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    let subtype = kind.get(.."application/".len()).filter(|kind| kind.eq_ignore_ascii_case("application/"));
    let json = |subtype: &str| subtype.eq_ignore_ascii_case("json") || subtype.to_ascii_lowercase().ends_with("+json");
    subtype.is_some() && json(&kind["application/".len()..])
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |what: &str| Problem::new(Code::Malformed, format!("The body {what}."));
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("is not UTF-8"))?;
    // First the syntax of all of it, so that a malformed body is 400 wherever the fault is.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(malformed(&format!("is not JSON: line {}, column {}", error.line(), error.column())));
    }
    // Serde would read a struct from an array, too.
    if !text.trim_start().starts_with('{') {
        return Err(Problem::invalid(vec![FieldError::at("", "must be a JSON object")]));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let message = error.inner().to_string();
        if error.inner().is_data() {
            Problem::invalid(vec![fault(error.path(), &message)])
        } else if message.starts_with("number out of range") {
            Problem::invalid(vec![FieldError::at(pointer(error.path()), "must be a number that fits into 64 bits")])
        } else {
            malformed("is nested too deep")
        }
    })
}

/// What is wrong, from a message of serde's that may quote what was sent.
fn fault(path: &Path, message: &str) -> FieldError {
    let pointer = pointer(path);
    let named = |message: &str| message.split('`').nth(1).unwrap_or_default().to_owned();
    // Messages begin with words of serde's own; what was sent comes later.
    if message.starts_with("unknown field") {
        return FieldError::at(pointer, "is not a known field");
    }
    if message.starts_with("missing field") {
        return FieldError::at(format!("{pointer}/{}", named(message)), "is required");
    }
    if message.starts_with("duplicate field") {
        return FieldError::at(format!("{pointer}/{}", named(message)), "is there twice");
    }
    // `…, expected WHAT at line 1 column 2`: what is expected is a word of ours, and the last one.
    let expected = message.rsplit_once(", expected ").map_or("", |(_, rest)| rest);
    let expected = expected.rsplit_once(" at line ").map_or(expected, |(expected, _)| expected);
    FieldError::at(pointer, format!("must be {}", in_json(expected)))
}

/// Serde's words for what it expected, in JSON's.
fn in_json(expected: &str) -> &str {
    match expected {
        "a string" => "a string",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a sequence" => "an array",
        text if text.starts_with("struct ") => "an object",
        _ => "of another type",
    }
}

fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.chars().take(MAX_SHOWN_NAME).collect(),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only errors are looked at")]
    struct Sample {
        name: Option<String>,
        temperature: Option<f64>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only errors are looked at")]
    struct Inner {
        token: crate::domain::Secret<String>,
        users: Option<Vec<String>>,
    }

    fn problem(body: &str) -> serde_json::Value {
        parse::<Sample>(body.as_bytes()).unwrap_err().body("/", "r")
    }

    #[test]
    fn faults_name_the_place_and_the_remedy_but_not_the_value() {
        for (body, pointer, detail) in [
            (r#"{"name": 5}"#, "/name", "must be a string"),
            (r#"{"temperature": "sk-planted, expected sk-planted"}"#, "/temperature", "must be a number"),
            (r#"{"inner": {"token": ["sk-planted"]}}"#, "/inner/token", "must be a string"),
            (r#"{"inner": {"token": "x", "users": [1]}}"#, "/inner/users/0", "must be a string"),
            (r#"{"inner": {}}"#, "/inner/token", "is required"),
            (r#"{"inner": "sk-planted"}"#, "/inner", "must be an object"),
            (r#"{"inner": {"a/b": 1}}"#, "/inner/a~1b", "is not a known field"),
            (r#"{"nmae": "x"}"#, "/nmae", "is not a known field"),
            (r#"{"temperature": 1e999}"#, "/temperature", "must be a number that fits into 64 bits"),
            (r#"{"name": "a", "name": "sk-planted"}"#, "/name", "is there twice"),
            ("[1]", "", "must be a JSON object"),
            ("\"sk-planted\"", "", "must be a JSON object"),
        ] {
            let problem = problem(body);
            assert_eq!(problem["status"], 422, "{body}: {problem}");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
            assert_eq!(problem["errors"][0]["detail"], detail, "{body}: {problem}");
            assert!(!problem.to_string().contains("sk-planted"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed_wherever_the_fault_is() {
        let deep = format!("{{\"inner\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
        for body in ["", "{", "nul", r#"{"name": 5, sk-planted}"#, "{} {}", "\u{feff}{}"] {
            assert_eq!(problem(body)["status"], 400, "{body}");
        }
        let problem = problem(&deep);
        assert!(problem["status"] == 400 || problem["status"] == 422, "{problem}");
    }

    #[test]
    fn json_is_json_whatever_its_parameters() {
        let is = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
            is_json(&headers)
        };
        assert!(is("application/json") && is("Application/JSON; charset=utf-8") && is("application/merge-patch+json"));
        assert!(!is("text/plain") && !is("application/jsonx") && !is("") && !is_json(&HeaderMap::new()));
    }
}
