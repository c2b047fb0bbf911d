//! The lease of an installation: one Lease object, changed only as it was read.

use kube::api::PostParams;
use serde_json::json;

use super::KubernetesRuntime;
use super::cluster::{read, write};
use super::objects::INSTALLATION;
use crate::domain::Timestamp;
use crate::runtime::lease::decide;
use crate::runtime::{LeaseAnswer, LeaseRecord, LeaseRequest, RuntimeError, RuntimeResult};

const RECORD: &str = "zeroone.dev/lease";
/// Somebody else wrote in between: looked at again, but not for ever.
const TRIES: usize = 4;

impl KubernetesRuntime {
    pub(super) async fn ask_lease(&self, request: &LeaseRequest) -> RuntimeResult<LeaseAnswer> {
        let leases = self.cluster.leases();
        let name = format!("zeroone-{}", self.options.installation);
        for _ in 0..TRIES {
            let found = read(leases.get_opt(&name)).await?;
            let record: Option<LeaseRecord> = found
                .as_ref()
                .and_then(|lease| serde_json::from_str(lease.metadata.annotations.as_ref()?.get(RECORD)?).ok());
            let (written, answer) = decide(record.as_ref(), request, Timestamp::now());
            let Some(record) = written else { return Ok(answer) };
            let text = serde_json::to_string(&record).map_err(|error| RuntimeError::Failed(error.to_string()))?;
            let lease = serde_json::from_value(json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": name,
                    "labels": { INSTALLATION: self.options.installation.to_string() },
                    "annotations": { RECORD: text },
                    "resourceVersion": found.as_ref().and_then(|lease| lease.metadata.resource_version.clone()),
                },
                "spec": { "holderIdentity": record.holder },
            }))
            .map_err(|error| RuntimeError::Failed(error.to_string()))?;
            let params = PostParams::default();
            let done = match found {
                Some(_) => write(leases.replace(&name, &params, &lease)).await,
                None => write(leases.create(&params, &lease)).await,
            };
            match done {
                Ok(_) => return Ok(answer),
                Err(RuntimeError::Conflict(_) | RuntimeError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::Failed("the lease of this installation cannot be written: others write it too".into()))
    }
}
