//! What an instance uses of its machine.

use serde::Serialize;

use crate::domain::Timestamp;

/// What an instance uses now, as far as the engine can tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// Percent of one core since the sample before; 0 in the first one.
    pub cpu_percent: f64,
    /// MiB in use, without the file cache that the kernel would give up first.
    pub memory_mb: f64,
    /// MiB that it may use; `None` where the engine tells none.
    pub memory_limit_mb: Option<f64>,
    /// Processes and threads; `None` where the engine does not count them.
    pub pids: Option<u64>,
    /// Bytes received in this run; `None` where the engine does not count them.
    pub network_rx_bytes: Option<u64>,
    /// Bytes sent in this run; `None` where the engine does not count them.
    pub network_tx_bytes: Option<u64>,
    /// When it was measured.
    pub at: Timestamp,
}

impl Usage {
    /// Without the figures that not every engine has.
    pub const fn new(at: Timestamp, cpu_percent: f64, memory_mb: f64) -> Self {
        Self {
            cpu_percent,
            memory_mb,
            memory_limit_mb: None,
            pids: None,
            network_rx_bytes: None,
            network_tx_bytes: None,
            at,
        }
    }

    setters! {
        with_memory_limit_mb(memory_limit_mb: impl Into<Option<f64>> => memory_limit_mb.into());
        with_pids(pids: impl Into<Option<u64>> => pids.into());
        with_network_rx_bytes(network_rx_bytes: impl Into<Option<u64>> => network_rx_bytes.into());
        with_network_tx_bytes(network_tx_bytes: impl Into<Option<u64>> => network_tx_bytes.into());
    }
}
