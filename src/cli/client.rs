//! The client of a running service's API: one request, its answer or what the service says instead.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;

use super::Environment;
use super::outcome::Failure;
use super::output::{Output, plain};

const DEFAULT_URL: &str = "http://127.0.0.1:3001";
/// Where the key is looked for when nobody gives one: what `zeroone serve` made in this folder.
const DEFAULT_KEY_FILE: &str = "./zeroone-data/admin.key";
const EVENTS: &str = "text/event-stream";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For calls that the service answers from memory or with one commit, a deletion's 30 s included.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer, or line of a stream, that is read: logs of 5000 lines with 16 KiB each.
const ANSWER_LIMIT: usize = 96 << 20;
/// Most of a problem's text that is shown when it is no problem+json, e.g. a proxy's page.
const FOREIGN_TEXT: usize = 200;

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Where the service is; ZEROONE_URL.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// How answers are printed.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Talks to one service with one key.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
    pub(super) output: Output,
}

impl Client {
    pub(super) fn new(args: &ClientArgs, environment: &Environment) -> Result<Self, Failure> {
        let set = |name: &str| variable(environment, name).filter(|value| !value.is_empty());
        let url = args.url.as_deref().or(set("ZEROONE_URL")).unwrap_or(DEFAULT_URL);
        let key = set("ZEROONE_API_KEY").map(str::to_owned).or_else(|| key_in(Path::new(DEFAULT_KEY_FILE)));
        let colour = std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM") != Some("dumb");
        Self::at(url, key, Output { json: args.output == Format::Json, colour })
    }

    /// With the key that `zeroone serve` made in this folder, where there is no other.
    pub(super) fn or_key_in(mut self, data: &Path) -> Self {
        self.key = self.key.or_else(|| key_in(&data.join("admin.key")));
        self
    }

    pub(super) fn at(url: &str, key: Option<String>, output: Output) -> Result<Self, Failure> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Usage("the service's URL must begin with http:// or https://".into()));
        }
        Ok(Self {
            http: http_client(url.starts_with("https:"))?,
            url: url.trim_end_matches('/').to_owned(),
            key,
            output,
        })
    }

    /// The same service with another key.
    pub(super) fn with_key(&self, key: String) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        body(self.send(self.request(Method::GET, path).timeout(ANSWER)).await?).await
    }

    /// A command: a POST without a body.
    pub(super) async fn command(&self, path: &str) -> Result<Value, Failure> {
        body(self.send(self.request(Method::POST, path).timeout(ANSWER)).await?).await
    }

    pub(super) async fn post(&self, path: &str, json: &Value) -> Result<Value, Failure> {
        self.post_within(path, json, ANSWER).await
    }

    pub(super) async fn post_within(&self, path: &str, json: &Value, within: Duration) -> Result<Value, Failure> {
        body(self.send(self.request(Method::POST, path).json(json).timeout(within)).await?).await
    }

    /// The answer to a POST as it came, refusals included.
    pub(super) async fn ask(&self, path: &str, json: &Value, within: Duration) -> Result<(u16, Value), Failure> {
        let request = self.request(Method::POST, path).json(json).timeout(within);
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&text(response).await?).unwrap_or_default()))
    }

    pub(super) async fn patch(&self, path: &str, json: &Value) -> Result<Value, Failure> {
        body(self.send(self.request(Method::PATCH, path).json(json).timeout(ANSWER)).await?).await
    }

    /// Whether it is gone already; else it is going.
    pub(super) async fn delete(&self, path: &str) -> Result<bool, Failure> {
        let response = self.send(self.request(Method::DELETE, path).timeout(ANSWER)).await?;
        Ok(response.status() == StatusCode::NO_CONTENT)
    }

    pub(super) async fn get_within(&self, path: &str, within: Duration) -> Result<Value, Failure> {
        body(self.send(self.request(Method::GET, path).timeout(within)).await?).await
    }

    /// Everything in a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut rows, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let next = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
            let mut page = self.get(&format!("{path}{joint}limit=200{next}")).await?;
            match page["data"].take() {
                Value::Array(data) => rows.extend(data),
                _ => return Err(Failure::said("the service's answer is no list")),
            }
            match page["nextCursor"].take() {
                Value::String(next) => cursor = Some(next),
                _ => return Ok(rows),
            }
        }
    }

    /// Gives the data of each event of a stream to `each`, until that is `false` or the service ends it.
    pub(super) async fn follow(&self, path: &str, mut each: impl FnMut(Value) -> bool) -> Result<(), Failure> {
        let request = self.request(Method::GET, path).header(ACCEPT, EVENTS);
        events(self.send(request).await?, |_, data| each(data)).await
    }

    /// The same for the answer to a POST, with the kind of each event.
    pub(super) async fn post_events(
        &self,
        path: &str,
        json: &Value,
        within: Duration,
        each: impl FnMut(&str, Value) -> bool,
    ) -> Result<(), Failure> {
        let request = self.request(Method::POST, path).header(ACCEPT, EVENTS).json(json).timeout(within);
        events(self.send(request).await?, each).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The response, if the service did what was asked.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = text(response).await?;
        Err(refusal(status, &text, self.key.is_none()))
    }

    fn unsent(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            let url = &self.url;
            return Failure::Unreachable(format!("nobody answers at {url}; is `zeroone serve` running? (ZEROONE_URL)"));
        }
        if error.is_timeout() {
            return Failure::said("the service did not answer in time");
        }
        Failure::said(format!("the request failed: {error}"))
    }
}

fn key_in(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|key| key.trim().to_owned())
}

pub(super) fn variable<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Gives kind and data of each event of a stream to `each`, until that is `false` or the service ends it.
async fn events(response: Response, mut each: impl FnMut(&str, Value) -> bool) -> Result<(), Failure> {
    let mut pieces = response.bytes_stream();
    let (mut rest, mut kind) = (Vec::new(), String::new());
    while let Some(piece) = pieces.next().await {
        rest.extend_from_slice(&piece.map_err(|error| Failure::of(error.without_url()))?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(named) = line.strip_prefix("event:") {
                named.trim().clone_into(&mut kind);
            } else if let Some(data) =
                line.strip_prefix("data:").and_then(|data| serde_json::from_str(data.trim()).ok())
            {
                if !each(&kind, data) {
                    return Ok(());
                }
            }
        }
        if rest.len() > ANSWER_LIMIT {
            return Err(Failure::said("a line of the stream has no end"));
        }
    }
    Ok(())
}

/// What the service says instead of doing it, for people: its sentence, and what is wrong with each field.
pub(super) fn refusal(status: StatusCode, text: &str, without_key: bool) -> Failure {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let mut message = match problem["detail"].as_str().or(problem["title"].as_str()) {
        Some(detail) => format!("{} ({})", plain(detail), plain(problem["code"].as_str().unwrap_or(status.as_str()))),
        None => format!("HTTP {status}: {}", plain(&text.chars().take(FOREIGN_TEXT).collect::<String>())),
    };
    for fault in problem["errors"].as_array().into_iter().flatten() {
        let place = fault["pointer"].as_str().or(fault["parameter"].as_str()).unwrap_or_default();
        message.push_str(&format!("\n  {}: {}", plain(place), plain(fault["detail"].as_str().unwrap_or_default())));
    }
    if let Some(allowed) = problem["allowed"].as_array().filter(|allowed| !allowed.is_empty()) {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).map(plain).collect();
        message.push_str(&format!("\n  possible now: {}", allowed.join(", ")));
    }
    if status == StatusCode::UNAUTHORIZED && without_key {
        message.push_str(&format!("\n  set ZEROONE_API_KEY, or run where {DEFAULT_KEY_FILE} is"));
    }
    match status {
        StatusCode::NOT_FOUND => Failure::NotFound(message),
        StatusCode::REQUEST_TIMEOUT => Failure::said(message),
        status if status.is_client_error() => Failure::Refused(message),
        _ => Failure::said(message),
    }
}

/// The answer as JSON; `null` where it has no body.
async fn body(response: Response) -> Result<Value, Failure> {
    let text = text(response).await?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|_| Failure::said("the answer is no JSON: is this URL a zeroone service's?"))
}

async fn text(response: Response) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| Failure::of(error.without_url()))?);
        if bytes.len() > ANSWER_LIMIT {
            return Err(Failure::said("the answer is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn http_client(tls: bool) -> Result<reqwest::Client, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::of)?;
    let config = if tls {
        versions.with_platform_verifier().map_err(Failure::of)?.with_no_client_auth()
    } else {
        // Trusts nobody, and so needs not to load the system's certificates: plain HTTP only.
        versions.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .connect_timeout(CONNECT_TIMEOUT)
        // A proxy of the system's has no business between this and a service on loopback.
        .no_proxy()
        // A redirect would carry the key to a place that nobody named.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(Failure::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_data_folder_is_taken_where_there_is_no_other() {
        const OUTPUT: Output = Output { json: false, colour: false };
        let folder = tempfile::TempDir::new().unwrap();
        let client = |key: Option<&str>| Client::at(DEFAULT_URL, key.map(str::to_owned), OUTPUT).unwrap();
        assert_eq!(client(None).or_key_in(folder.path()).key, None);
        std::fs::write(folder.path().join("admin.key"), "zo_kept\n").unwrap();
        assert_eq!(client(None).or_key_in(folder.path()).key.as_deref(), Some("zo_kept"));
        assert_eq!(client(Some("zo_given")).or_key_in(folder.path()).key.as_deref(), Some("zo_given"));
    }

    #[test]
    fn a_problem_is_told_in_words_with_its_fields() {
        let problem = r#"{"title":"Not valid","detail":"2 fields","code":"invalid",
            "errors":[{"pointer":"/name","detail":"is required"},{"parameter":"limit","detail":"too large\u001b[2J"}]}"#;
        let Failure::Refused(message) = refusal(StatusCode::UNPROCESSABLE_ENTITY, problem, false) else {
            panic!("not refused")
        };
        assert_eq!(message, "2 fields (invalid)\n  /name: is required\n  limit: too large\u{fffd}[2J");
    }

    #[test]
    fn what_is_possible_instead_is_told() {
        let problem = r#"{"detail":"Not now.","code":"illegal-transition","allowed":["stop","delete"]}"#;
        let said = refusal(StatusCode::CONFLICT, problem, false).to_string();
        assert!(said.ends_with("possible now: stop, delete"), "{said}");
    }

    #[test]
    fn each_kind_of_answer_has_its_kind_of_failure() {
        assert!(matches!(refusal(StatusCode::NOT_FOUND, "", false), Failure::NotFound(_)));
        assert!(matches!(refusal(StatusCode::TOO_MANY_REQUESTS, "", false), Failure::Refused(_)));
        assert!(matches!(refusal(StatusCode::REQUEST_TIMEOUT, "", false), Failure::Failed(_)));
        assert!(matches!(refusal(StatusCode::BAD_GATEWAY, "<html>", false), Failure::Failed(_)));
        let said = refusal(StatusCode::UNAUTHORIZED, "{}", true).to_string();
        assert!(said.contains("set ZEROONE_API_KEY"), "{said}");
    }
}
