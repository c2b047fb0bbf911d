//! A socket between the runtime and the engine that can be cut, can hang, and can lose answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// All connections end, new ones end at once.
    Cut,
    /// Connections are taken and nothing is passed on, nor on those that are open, also not later.
    Hang,
    /// The call whose request begins like this reaches the engine, its answer does not come back.
    Lose(&'static str),
    /// Calls whose first line holds one of these words are answered with this status and message, and go no further.
    Refuse(&'static [&'static str], u16, &'static str),
    /// The first call whose first line begins like this is answered so; after it everything passes.
    RefuseOnce(&'static str, u16, &'static str),
    /// The first call whose first line holds this word is done and answered so, as if somebody else had done it a moment before;
    /// after it everything passes.
    Overtake(&'static str, u16, &'static str),
}

/// The first lines of the requests that came through.
type CommandReply = Arc<Mutex<Vec<String>>>;

pub(crate) struct Proxy {
    mode: Arc<watch::Sender<Mode>>,
    hanging: Arc<AtomicUsize>,
    asked: CommandReply,
    folder: TempDir,
}

impl Proxy {
    pub(crate) fn before(engine: String) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let hanging = Arc::new(AtomicUsize::new(0));
        let asked = CommandReply::default();
        let (told, counter, lines) = (Arc::downgrade(&mode), Arc::clone(&hanging), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(mode) = told.upgrade() else { return };
                counter.fetch_add(usize::from(*mode.borrow() == Mode::Hang), Ordering::SeqCst);
                tokio::spawn(serve(client, engine.clone(), mode, Arc::clone(&lines)));
            }
        });
        Self { mode, hanging, asked, folder }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/engine.sock", self.folder.path().display())
    }

    /// How many connections were opened while it hung.
    pub(crate) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    /// The calls that came through: method and path, each once.
    pub(crate) fn calls(&self) -> BTreeSet<(String, String)> {
        let asked = self.asked.lock().unwrap();
        let calls = asked.iter().filter_map(|line| {
            let (method, target) = line.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
            Some((method.to_owned(), target.split('?').next()?.to_owned()))
        });
        calls.collect()
    }

    /// How often a call was asked for whose first line holds this word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(word)).count()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(mut client: UnixStream, engine: String, set: Arc<watch::Sender<Mode>>, asked: CommandReply) {
    // Only the one who made the proxy keeps it.
    let (mut mode, set) = (set.subscribe(), Arc::downgrade(&set));
    let now = mode.borrow_and_update().clone();
    if now == Mode::Cut {
        return;
    }
    if now == Mode::Hang {
        let _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
        return;
    }
    // The runtime's client opens a connection for each call.
    let mut request = vec![0; 64 * 1024];
    let length = client.read(&mut request).await.unwrap_or(0);
    request.truncate(length);
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    let refusal = match now {
        Mode::Refuse(words, status, message) if words.iter().any(|word| line.contains(word)) => Some((status, message)),
        Mode::RefuseOnce(start, status, message) if line.starts_with(start) => {
            if let Some(set) = set.upgrade() {
                set.send_replace(Mode::Pass);
            }
            Some((status, message))
        }
        Mode::Overtake(word, status, message) if line.contains(word) => {
            if let Some(set) = set.upgrade() {
                set.send_replace(Mode::Pass);
            }
            let mut upstream = UnixStream::connect(&engine).await.unwrap();
            upstream.write_all(&request).await.unwrap();
            let _ = upstream.read(&mut [0; 1]).await;
            Some((status, message))
        }
        _ => None,
    };
    if let Some((status, message)) = refusal {
        asked.lock().unwrap().push(line);
        let body = format!("{{\"message\":{message:?}}}");
        let head = format!("HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nConnection: close\r\n");
        let _ = client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        return;
    }
    let mut upstream = UnixStream::connect(&engine).await.unwrap();
    upstream.write_all(&request).await.unwrap();
    if matches!(now, Mode::Lose(call) if line.starts_with(call)) {
        // The engine must be done before the caller hears of it.
        let _ = upstream.read(&mut [0; 1]).await;
        return;
    }
    asked.lock().unwrap().push(line);
    let mut later = mode.clone();
    let stopped = later.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Hang));
    let hangs = tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => false,
        stopped = stopped => stopped.is_ok_and(|mode| *mode == Mode::Hang),
    };
    if hangs {
        let _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
    }
}
