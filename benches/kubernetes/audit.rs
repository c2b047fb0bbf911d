//! What the control plane asked of the API server, by the API server's own audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// The log is read from where it was read to.
pub struct Audit {
    file: PathBuf,
    read: u64,
}

/// Requests by what they were, e.g. `create pods` or `get pods/log`; a list of everything is a `list` without a name.
#[derive(Default)]
pub struct Requests(BTreeMap<String, usize>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    object_ref: Option<Object>,
    response_status: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    resource: String,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    code: u16,
}

impl Audit {
    pub const fn new(file: PathBuf) -> Self {
        Self { file, read: 0 }
    }

    /// Since this was last asked.
    pub fn requests(&mut self) -> Requests {
        let mut requests = Requests::default();
        let mut file = File::open(&self.file).expect("the API server writes it");
        file.seek(SeekFrom::Start(self.read)).expect("it only grows");
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        // The last one may be half written.
        while lines.read_line(&mut line).expect("it is text") > 0 && line.ends_with('\n') {
            self.read += line.len() as u64;
            requests.count(serde_json::from_str(&line).expect("each line is an entry"));
            line.clear();
        }
        requests
    }
}

impl Requests {
    fn count(&mut self, entry: Entry) {
        let what = match entry.object_ref {
            Some(Object { resource, subresource: Some(part) }) => format!("{} {resource}/{part}", entry.verb),
            Some(Object { resource, subresource: None }) => format!("{} {resource}", entry.verb),
            None => entry.verb,
        };
        let refused = entry.response_status.filter(|answer| answer.code >= 400);
        let what = refused.map_or(what.clone(), |answer| format!("{what} ({})", answer.code));
        *self.0.entry(what).or_default() += 1;
    }

    /// Of one verb, whatever became of them.
    pub fn of(&self, verb: &str) -> usize {
        self.0.iter().filter(|(what, _)| what.split(' ').next() == Some(verb)).map(|(_, count)| count).sum()
    }

    /// All that change something, but the lease of the installation, which is renewed by the clock.
    pub fn writes(&self) -> usize {
        let writes = |what: &str| {
            ["create ", "update ", "patch ", "delete "].iter().any(|verb| what.starts_with(verb))
                && !["leases", "selfsubjectaccessreviews"].iter().any(|object| what.contains(object))
        };
        self.0.iter().filter(|(what, _)| writes(what)).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(&parts.join(", "))
    }
}
