//! What the service account may do, asked of the API server itself, so that a missing verb has its name before it is needed.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::cluster::{Cluster, read};
use crate::runtime::{RuntimeError, RuntimeResult};

/// Group, resource, subresource and verb: what `deploy/kubernetes/agents/role.yaml` grants, and nothing else.
const NEEDED: &[(&str, &str, &str, &[&str])] = &[
    ("", "pods", "", &["get", "list", "watch", "create", "delete"]),
    ("", "pods", "log", &["get"]),
    ("", "secrets", "", &["get", "list", "watch", "create", "delete"]),
    ("", "persistentvolumeclaims", "", &["get", "create", "patch", "delete"]),
    ("coordination.k8s.io", "leases", "", &["get", "create", "update"]),
];
/// Only from outside the cluster.
const FORWARDING: (&str, &str, &str, &[&str]) = ("", "pods", "portforward", &["create"]);

/// # Errors
/// The first permission that is missing.
pub(super) async fn check(cluster: &Cluster, forwards: bool) -> RuntimeResult<()> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    for (group, resource, subresource, verbs) in NEEDED.iter().chain(forwards.then_some(&FORWARDING)) {
        for verb in *verbs {
            let review = serde_json::from_value(json!({
                "spec": { "resourceAttributes": {
                    "namespace": cluster.namespace, "group": group, "resource": resource,
                    "subresource": subresource, "verb": verb,
                } },
            }))
            .map_err(|error| RuntimeError::Failed(error.to_string()))?;
            let answer: SelfSubjectAccessReview = read(reviews.create(&PostParams::default(), &review)).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                let what =
                    if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
                return Err(RuntimeError::Invalid(format!(
                    "this account may not {verb} {what} in the namespace {}: apply deploy/kubernetes/agents/role.yaml",
                    cluster.namespace
                )));
            }
        }
    }
    Ok(())
}
