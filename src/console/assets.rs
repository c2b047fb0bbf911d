//! The console's files, in the binary.
//!
//! All of them are below one folder that is named by their content, so that modules import each other by plain relative
//! names, and a browser keeps them for ever: other content is another folder.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal $kind:expr;)*) => {
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("assets/", $name))),)*];
    };
}

files! {
    "account.js" SCRIPT;
    "admin.js" SCRIPT;
    "agent.js" SCRIPT;
    "agents.js" SCRIPT;
    "api.js" SCRIPT;
    "audit.js" SCRIPT;
    "channels.js" SCRIPT;
    "chat.js" SCRIPT;
    "console.css" STYLE;
    "dom.js" SCRIPT;
    "fields.js" SCRIPT;
    "figures.js" SCRIPT;
    "icon.svg" IMAGE;
    "import.js" SCRIPT;
    "keys.js" SCRIPT;
    "logs.js" SCRIPT;
    "manage.js" SCRIPT;
    "markdown.js" SCRIPT;
    "new.js" SCRIPT;
    "orphans.js" SCRIPT;
    "overview.js" SCRIPT;
    "plot.js" SCRIPT;
    "service.js" SCRIPT;
    "settings.js" SCRIPT;
    "shell.js" SCRIPT;
    "sign-in.js" SCRIPT;
    "status.js" SCRIPT;
    "stream.js" SCRIPT;
    "table.js" SCRIPT;
    "usage.js" SCRIPT;
    "user.js" SCRIPT;
    "users.js" SCRIPT;
}

/// Names the content of all files.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (name, _, content) in FILES {
        hash.update(name);
        hash.update([0]);
        hash.update(content);
        hash.update([0]);
    }
    HEXLOWER.encode(&hash.finalize()[..8])
});

/// Where a file is, below the console's base.
pub(super) fn path(name: &str) -> String {
    debug_assert!(FILES.iter().any(|file| file.0 == name), "no file {name}");
    format!("/assets/{}/{name}", *VERSION)
}

/// `GET /assets/{version}/{file}`.
pub(super) async fn asset(Path((version, name)): Path<(String, String)>) -> Response {
    // A page that was loaded before an upgrade asks for files that are no more; it gets none, rather than others.
    if version != *VERSION {
        return StatusCode::NOT_FOUND.into_response();
    }
    file(&name, "public, max-age=31536000, immutable")
}

/// `GET /favicon.ico`, which browsers ask for by themselves.
pub(super) async fn icon() -> Response {
    file("icon.svg", "public, max-age=86400")
}

fn file(name: &str, caching: &'static str) -> Response {
    let Some((_, kind, content)) = FILES.iter().find(|file| file.0 == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
    ];
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_import_only_files_that_are_there_and_nothing_from_elsewhere() {
        for (name, kind, content) in FILES {
            if *kind != SCRIPT {
                continue;
            }
            for line in content.lines().filter(|line| line.starts_with("import ") || line.contains(" from \"")) {
                let Some((_, imported)) = line.split_once("from \"") else { continue };
                let imported = imported.trim_end_matches([';', '"']).trim_start_matches("./");
                assert!(FILES.iter().any(|file| file.0 == imported), "{name} imports {imported}");
            }
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!content.contains(sink), "{name} uses {sink}");
            }
        }
    }

    #[test]
    fn a_page_is_light() {
        let all: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(all < 140 * 1024, "all files together are {all} bytes: no page may weigh more than 150 KB");
    }
}
