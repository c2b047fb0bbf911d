//! The client of a running service's API: one request, its answer or what the service says instead.

mod origin;
mod refusal;
mod unreachable;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;

pub(super) use self::origin::Key;
use self::origin::{Flags, Origin};
pub(super) use self::refusal::Refusal;
use self::unreachable::Reason;
use super::Environment;
use super::outcome::Failure;
use super::output::{self, Output, plain};

const EVENTS: &str = "text/event-stream";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For calls that the service answers from memory or with one commit, a deletion's 30 s included.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer, or line of a stream, that is read: logs of 5000 lines with 16 KiB each.
const ANSWER_LIMIT: usize = 96 << 20;
/// Most of a problem's text that is shown when it is no problem+json, e.g. a proxy's page.
const FOREIGN_TEXT: usize = 200;

#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// Where the service is; ZEROONE_URL.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// A service that `zeroone login` knows; ZEROONE_CONTEXT, else the current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// File that has the API key, instead of ZEROONE_API_KEY.
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Use the administrator's key of this data folder.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How answers are printed: wide tables have ids, too. Errors are JSON where answers are.
    #[arg(long, short, global = true, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
}

impl ClientArgs {
    pub(super) fn output(&self, environment: &Environment) -> Output {
        Output::new(self.output == Some(Format::Json), self.output == Some(Format::Wide), environment)
    }

    pub(super) fn is_json(&self) -> bool {
        self.output == Some(Format::Json)
    }

    /// As if `--url` had been given.
    pub(super) fn at_url(mut self, url: Option<String>) -> Self {
        self.url = url.or(self.url);
        self
    }

    /// For a verb whose own `--data` names the installation.
    pub(super) fn without_data(&self) -> Self {
        Self { data: None, ..self.clone() }
    }

    /// A flag that was given to a verb which talks to no service.
    pub(super) fn meaningless(&self) -> Option<&'static str> {
        let given = [
            ("--url", self.url.is_some()),
            ("--context", self.context.is_some()),
            ("--key-file", self.key_file.is_some()),
            ("--output", self.output.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

/// An answer that is written somewhere as it comes.
pub(super) struct Download(Response);

impl Download {
    pub(super) async fn write_to(self, to: &mut impl std::io::Write) -> Result<(), Failure> {
        let mut pieces = self.0.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Failure::said("the service broke its answer off; its log says why"))?;
            to.write_all(&piece)?;
        }
        to.flush().map_err(Failure::from)
    }
}

/// Talks to one service with one key.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<Key>,
    pub(super) output: Output,
}

impl Client {
    pub(super) fn new(args: &ClientArgs, environment: &Environment) -> Result<Self, Failure> {
        let flags = Flags {
            url: args.url.as_deref(),
            context: args.context.as_deref(),
            key_file: args.key_file.as_deref(),
            data: args.data.as_deref(),
        };
        let Origin { url, key } = Origin::find(flags, environment)?;
        Self::at(&url, key, args.output(environment))
    }

    /// With the key that `zeroone serve` made in this folder, where there is no other.
    pub(super) fn or_key_in(mut self, data: &Path) -> Self {
        self.key = self.key.or_else(|| origin::key_in(data));
        self
    }

    pub(super) fn at(url: &str, key: Option<Key>, output: Output) -> Result<Self, Failure> {
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
    pub(super) fn with_key(&self, key: Key) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    /// Where the service is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) const fn key(&self) -> Option<&Key> {
        self.key.as_ref()
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

    /// The start of an answer of any length.
    pub(super) async fn download(&self, path: &str) -> Result<Download, Failure> {
        self.send(self.request(Method::POST, path)).await.map(Download)
    }

    /// The answer to a GET as it came, whatever its status.
    pub(super) async fn look(&self, path: &str) -> Result<Value, Failure> {
        let response = self.request(Method::GET, path).timeout(ANSWER).send().await;
        body(response.map_err(|error| self.unsent(&error))?).await
    }

    /// The answer to a POST as it came, refusals included.
    pub(super) async fn ask(&self, path: &str, json: &Value, within: Duration) -> Result<(u16, Value), Failure> {
        let request = self.request(Method::POST, path).json(json).timeout(within);
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&text(response).await?).unwrap_or_default()))
    }

    /// An answer with its status, where that tells two kinds of success apart.
    pub(super) async fn post_told(&self, path: &str, json: &Value, within: Duration) -> Result<(u16, Value), Failure> {
        let response = self.send(self.request(Method::POST, path).json(json).timeout(within)).await?;
        Ok((response.status().as_u16(), body(response).await?))
    }

    /// The start of a file of any length.
    pub(super) async fn file(&self, path: &str, within: Duration) -> Result<Download, Failure> {
        self.send(self.request(Method::GET, path).timeout(within)).await.map(Download)
    }

    /// Sends a file of this type, and a secret in a header of this name.
    pub(super) async fn upload(
        &self,
        path: &str,
        (kind, file): (&str, Vec<u8>),
        secret: Option<(&str, String)>,
        within: Duration,
    ) -> Result<Value, Failure> {
        let mut request = self.request(Method::POST, path).header("content-type", kind).body(file).timeout(within);
        if let Some((name, secret)) = secret {
            request = request.header(name, secret);
        }
        body(self.send(request).await?).await
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

    /// Gives the data of each event of a stream to `each`, until that is `false`, the service ends it, or nobody reads what
    /// is printed.
    pub(super) async fn follow(&self, path: &str, mut each: impl FnMut(Value) -> bool) -> Result<(), Failure> {
        let request = self.request(Method::GET, path).header(ACCEPT, EVENTS);
        let response = self.send(request).await?;
        tokio::select! {
            ended = events(response, |_, data| each(data)) => ended,
            () = output::reader_gone() => Ok(()),
        }
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
            Some(key) => request.bearer_auth(&key.text),
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
        let Some(refusal) = Refusal::read(status, &text) else { return Err(self.not_zeroone(status, &text)) };
        Err(Failure::Service(Box::new(match status {
            StatusCode::UNAUTHORIZED => refusal.in_words(self.no_key()),
            _ => refusal,
        })))
    }

    fn unsent(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            return Failure::Unreachable(Reason::of(error).sentence(&self.url));
        }
        if error.is_timeout() {
            return Failure::said("the service did not answer in time");
        }
        if error.is_builder() {
            return Failure::Usage(format!("{} is not the URL of a service (--url, ZEROONE_URL)", plain(&self.url)));
        }
        Failure::said(format!(
            "the service at {} closed the connection before it had answered, as it does when it ends; it may have done what \
             was asked",
            plain(&self.url)
        ))
    }

    /// Something else answers at the URL, or a proxy whose service is away.
    fn not_zeroone(&self, status: StatusCode, text: &str) -> Failure {
        let start: String = text.chars().take(FOREIGN_TEXT).collect();
        let start = plain(start.lines().next().unwrap_or_default());
        Failure::Unreachable(format!("what answers at {} is not a zeroone service: HTTP {status} {start}", self.url))
    }

    fn no_key(&self) -> String {
        match &self.key {
            Some(key) => format!(
                "the service at {} does not know the API key from {}: it may be revoked, expired, or another service's",
                self.url, key.origin
            ),
            None => format!(
                "the service at {} wants an API key: set ZEROONE_API_KEY, run `zeroone login`, or give --key-file or --data",
                self.url
            ),
        }
    }
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
                && !each(&kind, data)
            {
                return Ok(());
            }
        }
        if rest.len() > ANSWER_LIMIT {
            return Err(Failure::said("a line of the stream has no end"));
        }
    }
    Ok(())
}

/// A problem that came as an event of a stream.
pub(super) fn streamed_problem(problem: &Value) -> Failure {
    let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(502);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    match Refusal::read(status, &problem.to_string()) {
        Some(refusal) => Failure::Service(Box::new(refusal)),
        None => Failure::said("the agent failed, and the service does not say why"),
    }
}

/// The answer as JSON; `null` where it has no body.
async fn body(response: Response) -> Result<Value, Failure> {
    let text = text(response).await?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|_| {
        Failure::Unreachable("the answer is not JSON: what answers at this URL is not a zeroone service".into())
    })
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
        let folder = tempfile::TempDir::new().unwrap();
        let given = |text: &str| Key { text: text.into(), origin: "a test".into() };
        let client = |key: Option<Key>| Client::at("http://127.0.0.1:1", key, Output::default()).unwrap();
        let text = |client: Client| client.key.map(|key| key.text);
        assert_eq!(text(client(None).or_key_in(folder.path())), None);
        std::fs::write(folder.path().join("admin.key"), "zo_kept\n").unwrap();
        assert_eq!(text(client(None).or_key_in(folder.path())).as_deref(), Some("zo_kept"));
        assert_eq!(text(client(Some(given("zo_given"))).or_key_in(folder.path())).as_deref(), Some("zo_given"));
    }
}
