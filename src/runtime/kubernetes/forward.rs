//! Ways to Pods from outside the cluster: a port of the loopback for each run, forwarded through the API server.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Cluster;
use crate::domain::RunId;
use crate::runtime::{RuntimeError, RuntimeResult};
use crate::zeroclaw::profile::GATEWAY_PORT;

/// After a listener failed to accept: it may be out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The ways that are open. One is closed when another run takes its place, or with the runtime.
#[derive(Default)]
pub(super) struct Forwards(Mutex<HashMap<String, Forward>>);

struct Forward {
    run: RunId,
    address: SocketAddr,
    _listener: Arc<AbortOnDropHandle<()>>,
}

impl Forwards {
    /// Where this run is reached.
    pub(super) async fn address(&self, cluster: &Cluster, pod: &str, run: &RunId) -> RuntimeResult<SocketAddr> {
        let known = |open: &HashMap<String, Forward>| {
            open.get(pod).filter(|forward| forward.run == *run).map(|forward| forward.address)
        };
        if let Some(address) = known(&self.lock()) {
            return Ok(address);
        }
        let failed = |error: std::io::Error| RuntimeError::Failed(format!("cannot listen for a forwarding: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = AbortOnDropHandle::new(tokio::spawn(accept(cluster.clone(), pod.to_owned(), listener)));
        let mut open = self.lock();
        // Another look may have been faster.
        if let Some(address) = known(&open) {
            return Ok(address);
        }
        open.insert(pod.to_owned(), Forward { run: run.clone(), address, _listener: Arc::new(task) });
        Ok(address)
    }

    pub(super) fn close(&self, pod: &str) {
        self.lock().remove(pod);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Forward>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(cluster: Cluster, pod: String, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let (cluster, pod) = (cluster.clone(), pod.clone());
                tokio::spawn(async move {
                    if let Err(error) = carry(&cluster, &pod, connection).await {
                        tracing::debug!(pod, %error, "a forwarded connection has ended");
                    }
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn carry(
    cluster: &Cluster,
    pod: &str,
    mut connection: TcpStream,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut forwarder = cluster.pods().portforward(pod, &[GATEWAY_PORT]).await?;
    let mut stream = forwarder.take_stream(GATEWAY_PORT).ok_or("it has no such port")?;
    tokio::io::copy_bidirectional(&mut connection, &mut stream).await?;
    Ok(())
}
