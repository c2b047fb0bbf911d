//! Data that comes from elsewhere, put into an agent that was never started.

use super::{JobInput, instance_spec, open_credentials, runtime_failure};
use crate::actor::Services;
use crate::domain::{HostPort, Software, StagedFile};
use crate::lifecycle::Failure;
use crate::store::AgentRecord;

/// Makes the agent's instance with these files in its data; it is not started. The key of its model may be missing yet: the
/// instance is made anew with it, on the same data, when the agent is started.
pub async fn place(
    services: &Services,
    record: &AgentRecord,
    port: Option<HostPort>,
    software: Option<&Software>,
    files: &[StagedFile],
) -> Result<(), Failure> {
    let credentials = open_credentials(services, record)?;
    let limits = services.accounts.limits_of(record.user);
    let input = JobInput { record: record.clone(), port, limits, stage: true, token: None, run: None };
    let spec = instance_spec(services, &input, &credentials, software);
    services.runtime.ensure_created(&spec).await.map_err(|error| runtime_failure(&error))?;
    services.runtime.write_data(&spec.key, files).await.map_err(|error| runtime_failure(&error))
}
