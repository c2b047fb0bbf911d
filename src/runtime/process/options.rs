//! What a process runtime runs, and where.

use std::path::PathBuf;

use super::users::Uids;
use crate::domain::InstallationId;

/// What a [`ProcessRuntime`](super::ProcessRuntime) runs, and where.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// Only processes of this installation are seen or touched.
    pub installation: InstallationId,
    /// Holds a folder for each agent; made if missing.
    pub root: PathBuf,
    /// A path, or a name that is looked for in the `PATH` of `environment`.
    pub program: PathBuf,
    /// Arguments before those of the spec.
    pub args_prefix: Vec<String>,
    /// What every instance gets besides its spec's environment. Nothing else of the service's own environment reaches it.
    pub environment: Vec<(String, String)>,
    /// Bytes of output that are kept of each of the last five runs of an agent; up to a quarter more on disk.
    pub log_limit_bytes: u64,
    /// Whether instances are kept to their own folder and from other processes, as far as the kernel can.
    pub walls: bool,
    /// With walls, and where the service is root: uids of which each agent gets one for itself. They must be nobody else's, nor
    /// another installation's. Others must get through the folders above `root`.
    pub uids: Option<Uids>,
    /// Files and folders that instances may read and run besides the system's and their program.
    pub readable: Vec<PathBuf>,
}

impl ProcessOptions {
    /// Instances of this program, e.g. `zeroone`, whose folders are in `root`; with no environment of the service's.
    pub fn new(installation: InstallationId, root: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            installation,
            root: root.into(),
            program: program.into(),
            args_prefix: Vec::new(),
            environment: Vec::new(),
            log_limit_bytes: Self::LOG_LIMIT_BYTES,
            walls: true,
            uids: Some(Uids::default()),
            readable: Vec::new(),
        }
    }

    setters! {
        with_installation(installation: InstallationId);
        with_root(root: impl Into<PathBuf> => root.into());
        with_program(program: impl Into<PathBuf> => program.into());
        with_args_prefix(args_prefix: Vec<String>);
        with_environment(environment: Vec<(String, String)>);
        with_log_limit_bytes(log_limit_bytes: u64);
        with_walls(walls: bool);
        with_uids(uids: impl Into<Option<Uids>> => uids.into());
        with_readable(readable: Vec<PathBuf>);
    }

    /// The variables of the service's own environment that instances need too: where programs and certificates are, and
    /// what language and time zone the machine has. Whoever reads the environment puts them into
    /// [`ProcessOptions::environment`].
    pub const INHERITED: &'static [&str] = &["PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    /// Some ten thousand lines.
    pub const LOG_LIMIT_BYTES: u64 = 2 * 1024 * 1024;
}
