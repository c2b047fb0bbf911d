//! A socket between the runtime and the engine that can be cut, can hang, and can lose answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}

pub(crate) struct Proxy {
    mode: Arc<watch::Sender<Mode>>,
    hanging: Arc<AtomicUsize>,
    folder: TempDir,
}

impl Proxy {
    pub(crate) fn before(engine: String) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let hanging = Arc::new(AtomicUsize::new(0));
        let (told, counter) = (Arc::downgrade(&mode), Arc::clone(&hanging));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(mode) = told.upgrade() else { return };
                counter.fetch_add(usize::from(*mode.borrow() == Mode::Hang), Ordering::SeqCst);
                tokio::spawn(serve(client, engine.clone(), mode.subscribe()));
            }
        });
        Self { mode, hanging, folder }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/engine.sock", self.folder.path().display())
    }

    /// How many connections were opened while it hung.
    pub(crate) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(mut client: UnixStream, engine: String, mut mode: watch::Receiver<Mode>) {
    let now = mode.borrow_and_update().clone();
    match now {
        Mode::Cut => {}
        Mode::Hang => {
            let _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
        }
        Mode::Pass => {
            let mut upstream = UnixStream::connect(&engine).await.unwrap();
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
        Mode::Lose(call) => {
            let mut upstream = UnixStream::connect(&engine).await.unwrap();
            let mut request = vec![0; 64 * 1024];
            let length = client.read(&mut request).await.unwrap();
            request.truncate(length);
            let loses = request.starts_with(call.as_bytes());
            upstream.write_all(&request).await.unwrap();
            if loses {
                // The engine must be done before the caller hears of it.
                let _ = upstream.read(&mut [0; 1]).await;
            } else {
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            }
        }
    }
}
