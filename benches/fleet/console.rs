//! The console's pages beside ten thousand agents: what a browser with an empty cache gets, and how long the server takes for
//! each thing that a page asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Each is asked for so often; the median counts.
const ROUNDS: usize = 20;

/// Every page, and what its module asks the API for before it is complete. `{id}` is an agent, `{from}` some weeks ago.
const PAGES: &[(&str, &[&str])] = &[
    ("/", &["/api/agents?limit=50", "/api/agents?limit=50&search=Agent%209999", "/api/agents?limit=50&status=ERROR"]),
    ("/agents/new", &[]),
    ("/agents/import", &[]),
    ("/agents/{id}", &["/api/agents/{id}", "/api/agents/{id}/explain", "/api/agents/{id}/incidents?limit=10"]),
    ("/agents/{id}/chat", &["/api/agents/{id}"]),
    ("/agents/{id}/logs", &["/api/agents/{id}/logs?tail=500"]),
    ("/agents/{id}/usage", &["/api/agents/{id}/usage?from={from}&step=10800s"]),
    ("/agents/{id}/settings", &["/api/agents/{id}"]),
    ("/agents/{id}/channels", &["/api/agents/{id}"]),
    ("/agents/{id}/manage", &["/api/agents/{id}"]),
    ("/account", &["/api/keys?limit=200"]),
    ("/admin/users", &["/api/admin/users?limit=50", "/api/admin/invitations?limit=200"]),
    ("/admin/agents", &["/api/admin/agents?limit=50", "/api/admin/agents?limit=50&search=Agent%209999"]),
    ("/admin/service", &["/readyz?verbose", "/api/admin/runtime", "/api/admin/usage?from={from}&step=10800s"]),
    ("/admin/orphans", &["/api/admin/orphans?limit=50"]),
    ("/admin/audit", &["/api/admin/audit?limit=50"]),
    ("/sign-in", &["/api/auth"]),
    ("/api/docs", &[]),
];

struct Visitor<'a> {
    at: SocketAddr,
    key: &'a str,
    agent: String,
    from: String,
}

/// Prints a line for each page.
pub async fn measure(at: SocketAddr, key: &str, agent: String, from: String) {
    let visitor = Visitor { at, key, agent, from };
    let mut sizes = BTreeMap::new();
    for (page, calls) in PAGES {
        let mut files = BTreeSet::new();
        visitor.files(page, &mut files).await;
        let mut bytes = 0;
        for file in &files {
            if !sizes.contains_key(file) {
                sizes.insert(file.clone(), visitor.get(file, true).await.len());
            }
            bytes += sizes[file];
        }
        let mut slowest = (Duration::ZERO, *page);
        for path in calls.iter().chain([page]) {
            let took = visitor.p50(path).await;
            slowest = slowest.max((took, path));
        }
        let (took, slow) = slowest;
        println!("console: {page}: {} KiB in {} files, slowest {took:.1?} ({slow})", bytes.div_ceil(1024), files.len());
    }
}

impl Visitor<'_> {
    /// The page and all files that it leads to, also by imports of its modules.
    async fn files(&self, page: &str, found: &mut BTreeSet<String>) {
        let asset = Regex::new(r#"/assets/[0-9a-f]+/[a-z.-]+|(?:from|import) "\./([a-z-]+\.js)""#).expect("it is one");
        let mut open = vec![page.to_owned()];
        while let Some(path) = open.pop() {
            let text = String::from_utf8_lossy(&self.get(&path, false).await).into_owned();
            for name in asset.captures_iter(&text) {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let file =
                    name.get(1).map_or_else(|| name[0].to_owned(), |module| format!("{folder}/{}", module.as_str()));
                if !found.contains(&file) {
                    open.push(file);
                }
            }
            found.insert(path);
        }
    }

    async fn p50(&self, path: &str) -> Duration {
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            self.get(path, true).await;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        times[ROUNDS / 2]
    }

    /// Everything that comes over the wire, head and body.
    async fn get(&self, path: &str, packed: bool) -> Vec<u8> {
        let Self { at, key, agent, from } = self;
        let path = path.replace("{id}", agent).replace("{from}", from);
        let encoding = if packed { "accept-encoding: gzip, deflate, br\r\n" } else { "" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\n{encoding}connection: close\r\n\r\n"
        );
        let mut connection = TcpStream::connect(at).await.expect("a connection");
        connection.write_all(request.as_bytes()).await.expect("it takes the request");
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
        answer
    }
}
