//! Whether a gateway that is healthy would answer a message.

use std::net::SocketAddr;

use super::{HealthCheck, answer_within};
use crate::actor::Services;
use crate::domain::{AgentId, Secret};
use crate::lifecycle::{Cause, Code, Failure, FailureKind};
use crate::store::AgentRecord;
use crate::zeroclaw::usability::SelfReport;

/// Makes sure that the gateway of a start is usable; `token` is known to be valid.
pub(super) async fn require(
    services: &Services,
    record: &AgentRecord,
    at: SocketAddr,
    token: &Secret<String>,
) -> Result<(), Failure> {
    let limits = &services.settings.limits;
    let report = answer_within(limits.pairing, || services.gateway.self_report(at, token, limits.health)).await?;
    match objection(services, record, report) {
        None => Ok(()),
        Some(why) => Err(Failure { kind: FailureKind::Transient, cause: Cause::because(Code::Unusable, why) }),
    }
}

/// The same for an agent that runs, with the token that its messages are sent with.
pub(super) async fn check(services: &Services, agent: AgentId, at: SocketAddr) -> HealthCheck {
    let Some(view) = services.views.get(agent) else { return HealthCheck::Healthy };
    let Some(access) = view.access.as_ref().filter(|access| access.endpoint == at) else {
        return HealthCheck::Healthy;
    };
    let within = services.settings.limits.health;
    match services.gateway.accepts_token(at, &access.token, within).await {
        Ok(true) => {}
        Ok(false) => return HealthCheck::TokenRefused,
        // The health checks tell one that hangs.
        Err(_) => return HealthCheck::Healthy,
    }
    let Ok(report) = services.gateway.self_report(at, &access.token, within).await else {
        return HealthCheck::Healthy;
    };
    objection(services, &view.record, report).map_or(HealthCheck::Healthy, HealthCheck::Unusable)
}

fn objection(services: &Services, record: &AgentRecord, report: SelfReport) -> Option<String> {
    let profile = record.software.as_ref().map_or(services.profile, |software| software.profile);
    let objection = report.objection(&record.spec, profile);
    let now = services.clock.now();
    services.views.update_vitals(record.id, |vitals| {
        vitals.version = report.version;
        if objection.is_none() {
            vitals.usable_at = Some(now);
        }
    });
    objection
}
