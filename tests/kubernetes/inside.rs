//! The control plane as a Pod of the cluster, with the Role that is shipped, and without a verb of it.

use serde_json::{Value, json};

use crate::cluster::{self, API_SERVER, Cluster, ZEROCLAW, ZEROONE};
use crate::model::{ANSWER, Model};
use crate::world::{World, until};

/// The rules of `deploy/kubernetes/agents/role.yaml`.
fn rules() -> Vec<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes/agents/role.yaml");
    let text = cluster::ok(&["kubectl", "create", "--dry-run=client", "--output=json", "-f", file]);
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
    let role = documents.flat_map(|found| match found["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![found],
    });
    let role = role.into_iter().find(|object| object["kind"] == "Role").expect("there is a Role");
    role["rules"].as_array().unwrap().clone()
}

fn grant(world: &World, rules: &[Value]) {
    let of = |kind: &str, group: &str| json!({ "apiVersion": group, "kind": kind, "metadata": { "name": "zeroone", "namespace": world.namespace } });
    let rbac = "rbac.authorization.k8s.io/v1";
    let mut role = of("Role", rbac);
    role["rules"] = json!(rules);
    let mut binding = of("RoleBinding", rbac);
    binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "zeroone" });
    binding["subjects"] = json!([{ "kind": "ServiceAccount", "name": "zeroone", "namespace": world.namespace }]);
    cluster::apply(&json!({ "apiVersion": "v1", "kind": "List",
        "items": [of("ServiceAccount", "v1"), role, binding] }));
}

/// A Pod with the control plane; the test cluster has no proxy for services, so it is told where the API server is.
fn control_plane(world: &World) -> Value {
    let env = |name: &str, value: &str| json!({ "name": name, "value": value });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "zeroone", "namespace": world.namespace },
        "spec": {
            "serviceAccountName": "zeroone", "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "zeroone", "image": ZEROONE, "imagePullPolicy": "IfNotPresent",
                "args": ["serve", "--data", "/data/zeroone", "--bind", "0.0.0.0:3001"],
                "env": [
                    env("KUBERNETES_SERVICE_HOST", API_SERVER.0),
                    env("KUBERNETES_SERVICE_PORT", &API_SERVER.1.to_string()),
                    env("ZEROONE_SERVER__PUBLIC_BIND", "true"),
                    env("ZEROONE_KUBERNETES__NAMESPACE", &world.namespace),
                    env("ZEROONE_KUBERNETES__IMAGE", ZEROCLAW[0]),
                    env("ZEROONE_KUBERNETES__STAGE_IMAGE", ZEROONE),
                ],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }],
        },
    })
}

pub(crate) async fn with_the_role_that_is_shipped_and_no_other(world: &World) {
    let rules = rules();
    grant(world, &rules);
    let account = format!("system:serviceaccount:{}:zeroone", world.namespace);
    let may = |what: &[&str]| world.kubectl(&[&["auth", "can-i", "--as", &account], what].concat()).is_ok();
    assert!(may(&["create", "pods"]) && may(&["get", "pods", "--subresource=log"]));
    for refused in [
        ["create", "pods", "--subresource=exec"].as_slice(),
        &["create", "pods", "--subresource=portforward"],
        &["update", "secrets"],
        &["get", "nodes"],
        &["get", "secrets", "--namespace=kube-system"],
    ] {
        assert!(!may(refused), "{refused:?}");
    }

    cluster::apply(&control_plane(world));
    let at = until("it has an address", async || {
        let pod = world.get(&["pod", "zeroone"]);
        let runs = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
        pod["status"]["podIP"].as_str().filter(|_| runs).map(|ip| format!("http://{ip}:3001"))
    })
    .await;
    let client = crate::http_client::http_client(std::time::Duration::from_secs(60));
    until("it is ready", async || client.get(format!("{at}/readyz")).send().await.ok().filter(|a| a.status() == 200))
        .await;
    let key = admin_key(world);
    let model = Model::start().await;
    let body =
        json!({ "name": "Ada", "provider": "openai", "model": "m", "apiKey": "sk-test", "providerUrl": model.url });
    let created: Value = client
        .post(format!("{at}/api/agents"))
        .bearer_auth(&key)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let agent = format!("{at}/api/agents/{}", created["id"].as_str().unwrap_or_else(|| panic!("{created}")));
    until("it runs", async || {
        let found: Value = client.get(&agent).bearer_auth(&key).send().await.ok()?.json().await.ok()?;
        (found["status"] == "RUNNING").then_some(())
    })
    .await;
    let said = json!({ "message": "hi" });
    let answer: Value = client
        .post(format!("{agent}/message"))
        .bearer_auth(&key)
        .json(&said)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["response"], ANSWER, "{answer}");
    let export = client.get(format!("{agent}/export")).bearer_auth(&key).send().await.unwrap();
    assert_eq!(export.status(), 200, "{}", export.text().await.unwrap());
    client.delete(&agent).bearer_auth(&key).send().await.unwrap();
    until("nothing is left", async || world.left().is_empty().then_some(())).await;

    // Without one verb it says which.
    let without: Vec<Value> = rules
        .iter()
        .cloned()
        .map(|mut rule| {
            if rule["resources"] == json!(["persistentvolumeclaims"]) {
                rule["verbs"] = json!(["get", "create", "delete"]);
            }
            rule
        })
        .collect();
    grant(world, &without);
    world.kubectl(&["delete", "pod", "zeroone", "--grace-period=1"]).unwrap();
    cluster::apply(&control_plane(world));
    let said = until("it names the verb", async || {
        let pod = world.get(&["pod", "zeroone"]);
        let at = pod["status"]["podIP"].as_str()?.to_owned();
        let answer = client
            .get(format!("http://{at}:3001/readyz?verbose"))
            .bearer_auth(admin_key(world))
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        answer.contains("persistentvolumeclaims").then_some(answer)
    })
    .await;
    assert!(said.contains("may not patch persistentvolumeclaims"), "{said}");
}

/// Its data is a folder of the node, which is this machine.
fn admin_key(world: &World) -> String {
    let uid = world.get(&["pod", "zeroone"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let cluster = Cluster::kubeconfig();
    let cluster = cluster.parent().and_then(std::path::Path::parent).unwrap();
    let volume = format!("kubelet/root/pods/{uid}/volumes/kubernetes.io~empty-dir/data");
    let key = std::fs::read_to_string(cluster.join(volume).join("zeroone/admin.key"));
    key.unwrap_or_default().trim().to_owned()
}
