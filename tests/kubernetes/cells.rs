//! The manifests of `deploy/kubernetes/cells` as they are: three cells behind two routers.
//!
//! What they say of a real cluster is put in them as it is here: the images' names, the way to the API server, the cells'
//! addresses where no service has a name, and a model server in a private network.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::cluster::{self, API_SERVER, HOST, ZEROCLAW, ZEROONE};
use crate::http_client::http_client;
use crate::life::pod_of;
use crate::model::{ANSWER, Model};
use crate::world::{World, until};

const CELLS: usize = 3;
const SYSTEM: &str = "zeroone-system";
const ROUTER: &str = "zeroone-router";
const OPERATOR: &str = "zo_all_5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// What has to go again, whatever becomes of the test.
struct Cells;

impl Drop for Cells {
    fn drop(&mut self) {
        for number in 0..CELLS {
            let _ = within(&agents_of(number), &["delete", "pods", "--all", "--grace-period=1", "--wait=false"]);
            let _ = cluster::tried(&["kubectl", "delete", "namespace", &agents_of(number), "--wait=false"]);
        }
        let _ = cluster::tried(&["kubectl", "delete", "namespace", SYSTEM, "--wait=false"]);
    }
}

fn agents_of(cell: usize) -> String {
    format!("zeroone-{cell}-agents")
}

fn within(namespace: &str, arguments: &[&str]) -> Result<String, String> {
    cluster::tried(&[&["kubectl", "--namespace", namespace], arguments].concat())
}

fn get(namespace: &str, what: &[&str]) -> Value {
    within(namespace, &[&["get", "--output", "json"], what].concat())
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What kustomize makes of them; the cluster's own kubectl is too old for that.
fn manifests() -> Vec<Value> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut made = Command::new(format!("{root}/scripts/kube-tools"));
    let made = made.args(["kubectl", "kustomize", &format!("{root}/deploy/kubernetes/cells")]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    let text = text.replace("ghcr.io/zeroone/zeroone:latest", ZEROONE);
    let text = text.replace("ghcr.io/zeroclaw-labs/zeroclaw:v0.8.7", ZEROCLAW[0]);
    // It came after 1.20.
    let has = cluster::ok(&["kubectl", "api-versions"]).lines().any(|version| version == "policy/v1");
    let text = if has { text } else { text.replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n") };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let json = ["kubectl", "create", "--dry-run=client", "--output=json", "-f", file.path().to_str().unwrap()];
    let text = cluster::ok(&json);
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap);
    let all = documents.flat_map(|found| match found["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![found],
    });
    all.collect()
}

fn apply(objects: &[Value]) {
    cluster::apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }));
}

fn is(object: &Value, kind: &str) -> bool {
    object["kind"] == kind
}

/// As the manifests' comments say: namespaces, the two Secrets, and everything else.
async fn install(manifests: &mut Vec<Value>) {
    let secret = |name: &str, key: &str, value: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": SYSTEM }, "stringData": { key: value } });
    let namespaces: Vec<Value> = manifests.extract_if(.., |object| is(object, "Namespace")).collect();
    assert_eq!(namespaces.len(), CELLS + 1);
    until("those of an earlier run are gone", async || {
        let list = get("default", &["namespaces"]);
        let ending = |it: &Value| {
            it["status"]["phase"] == "Terminating"
                && namespaces.iter().any(|own| own["metadata"]["name"] == it["metadata"]["name"])
        };
        list["items"].as_array().filter(|all| !all.iter().any(ending)).map(drop)
    })
    .await;
    apply(&namespaces);
    apply(&[
        secret("zeroone-master-key", "master.key", &"5".repeat(64)),
        secret("zeroone-operator-key", "operator.key", OPERATOR),
    ]);
    let model = format!("{}/32", Ipv4Addr::from(HOST));
    for object in manifests.iter_mut().filter(|object| is(object, "NetworkPolicy")) {
        if let Some(ways_out) = object["spec"]["egress"].as_array_mut() {
            ways_out.push(json!({ "to": [{ "ipBlock": { "cidr": model } }] }));
        }
    }
    // No proxy for services: the account finds the API server by its address.
    for object in manifests.iter_mut().filter(|object| is(object, "StatefulSet")) {
        let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        env.push(json!({ "name": "KUBERNETES_SERVICE_HOST", "value": API_SERVER.0 }));
        env.push(json!({ "name": "KUBERNETES_SERVICE_PORT", "value": API_SERVER.1.to_string() }));
    }
    apply(manifests);
}

/// The addresses of the Pods of these labels, as soon as so many are ready.
async fn addresses(selector: &str, count: usize) -> Vec<(String, String)> {
    until(&format!("{count} Pods of {selector} are ready"), async || {
        let list = get(SYSTEM, &["pods", "--selector", selector]);
        let pods = list["items"].as_array()?.iter();
        let ready = pods.filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
        });
        let mut found: Vec<_> = ready
            .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?.into(), pod["status"]["podIP"].as_str()?.into())))
            .collect();
        found.sort_unstable();
        (found.len() == count).then_some(found)
    })
    .await
}

/// Every request goes to a router, none to a cell.
struct Router {
    url: String,
    client: Client,
}

struct Tenant {
    cell: usize,
    key: String,
    id: String,
}

impl Router {
    async fn ask(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        cell: Option<usize>,
    ) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(key);
        if let Some(cell) = cell {
            request = request.header("zeroone-cell", cell);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(answer) => (answer.status().as_u16(), answer.json().await.unwrap_or_default()),
            Err(error) => (0, json!({ "error": error.to_string() })),
        }
    }

    async fn get(&self, key: &str, path: &str) -> (u16, Value) {
        self.ask(key, Method::GET, path, None, None).await
    }

    async fn post(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask(key, Method::POST, path, Some(body), None).await
    }

    /// A user whom the operator puts into this cell, with an agent that is about to run.
    async fn tenant(&self, cell: usize, model: &Model) -> Tenant {
        let body = json!({ "email": format!("tenant{cell}@example.org"), "plan": "pro" });
        let (status, user) = self.ask(OPERATOR, Method::POST, "/api/admin/users", Some(&body), Some(cell)).await;
        assert_eq!(status, 201, "{user}");
        let keys = format!("/api/admin/users/{}/keys", user["id"].as_str().unwrap());
        let (status, key) = self.post(OPERATOR, &keys, &json!({})).await;
        assert_eq!(status, 201, "{key}");
        let key = key["key"].as_str().unwrap().to_owned();
        assert!(key.starts_with(&format!("zo_{cell}_")), "its number is in the key");
        let body =
            json!({ "name": "Ada", "provider": "openai", "model": "m", "apiKey": "sk-test", "providerUrl": model.url });
        let (status, agent) = self.post(&key, "/api/agents", &body).await;
        assert_eq!(status, 202, "{agent}");
        Tenant { cell, key, id: agent["id"].as_str().unwrap().to_owned() }
    }

    async fn runs(&self, tenant: &Tenant) {
        until(&format!("the agent of cell {} runs", tenant.cell), async || {
            let (_, agent) = self.get(&tenant.key, &format!("/api/agents/{}", tenant.id)).await;
            (agent["status"] == "RUNNING").then_some(())
        })
        .await;
    }

    async fn talk(&self, tenant: &Tenant) {
        let path = format!("/api/agents/{}/message", tenant.id);
        let (status, answer) = self.post(&tenant.key, &path, &json!({ "message": "hi" })).await;
        assert_eq!((status, answer["response"].as_str()), (200, Some(ANSWER)), "cell {}: {answer}", tenant.cell);
    }

    async fn cell_answers(&self, cell: usize, answers: bool) {
        until(&format!("cell {cell} answers: {answers}"), async || {
            (self.get("none", "/readyz").await.1["cells"][cell]["answers"] == answers).then_some(())
        })
        .await;
    }
}

/// The cells first: where there is no name of a service, a router has to be told their addresses.
async fn installed(client: Client) -> Router {
    let mut manifests = manifests();
    let mut routers: Vec<Value> =
        manifests.extract_if(.., |object| is(object, "Deployment") && object["metadata"]["name"] == ROUTER).collect();
    install(&mut manifests).await;
    let cells = addresses("app=zeroone", CELLS).await;
    let aliases = cells.iter().map(|(name, ip)| json!({ "ip": ip, "hostnames": [format!("{name}.zeroone")] }));
    routers[0]["spec"]["template"]["spec"]["hostAliases"] = aliases.collect();
    apply(&routers);
    let routers = addresses("app=zeroone-router", 2).await;
    Router { url: format!("http://{}:3001", routers[0].1), client }
}

pub(crate) async fn the_manifests_make_three_cells_and_one_that_dies_harms_no_other(_: &World) {
    let _cells = Cells;
    let router = installed(http_client(Duration::from_secs(60))).await;
    let model = Model::start().await;
    let mut tenants = Vec::new();
    for cell in 0..CELLS {
        router.cell_answers(cell, true).await;
        tenants.push(router.tenant(cell, &model).await);
    }
    for tenant in &tenants {
        router.runs(tenant).await;
        router.talk(tenant).await;
        let pod = get(&agents_of(tenant.cell), &["pod", &pod_of(&tenant.id)]);
        assert_eq!(pod["metadata"]["name"], pod_of(&tenant.id), "each cell has a namespace of its own");
    }
    let (status, agents) = router.get(OPERATOR, "/api/admin/agents").await;
    assert_eq!((status, agents["data"].as_array().map(Vec::len)), (200, Some(CELLS)), "{agents}");
    for cell in 0..CELLS {
        let ready = router.ask(OPERATOR, Method::GET, "/api/admin/runtime", None, Some(cell)).await;
        assert_eq!(ready.0, 200, "{}", ready.1);
    }

    // The one account of all of them reaches the agents' namespaces, not the master key.
    let may = |namespace: &str| {
        let account = format!("system:serviceaccount:{SYSTEM}:zeroone");
        within(namespace, &["auth", "can-i", "--as", &account, "get", "secrets"]).is_ok()
    };
    assert!((0..CELLS).all(|cell| may(&agents_of(cell))) && !may(SYSTEM) && !may("default"));

    // Its process, as a node's kernel would for want of memory; its Pod and its address stay.
    let uid = || get(&agents_of(1), &["pod", &pod_of(&tenants[1].id)])["metadata"]["uid"].clone();
    let before = uid();
    let label = |name: &str, value: &str| format!("label=io.kubernetes.{name}={value}");
    let (pod, namespace) = (label("pod.name", "zeroone-1"), label("pod.namespace", SYSTEM));
    let name = label("container.name", "zeroone");
    let filters = ["--filter", &pod, "--filter", &namespace, "--filter", &name];
    let container = cluster::ok(&[&["docker", "ps", "--quiet"], filters.as_slice()].concat());
    cluster::ok(&["docker", "kill", &container]);
    let path = format!("/api/agents/{}", tenants[1].id);
    until("the router names the cell", async || {
        let (status, refused) = router.get(&tenants[1].key, &path).await;
        (status >= 500 && refused["cell"] == 1).then_some(())
    })
    .await;
    for tenant in [&tenants[0], &tenants[2]] {
        router.talk(tenant).await;
    }
    router.cell_answers(1, true).await;
    router.runs(&tenants[1]).await;
    router.talk(&tenants[1]).await;
    assert_eq!(uid(), before, "its agents went on");

    for tenant in &tenants {
        router.ask(&tenant.key, Method::DELETE, &format!("/api/agents/{}", tenant.id), None, None).await;
    }
    until("nothing is left", async || {
        let left = |cell| get(&agents_of(cell), &["pods,persistentvolumeclaims"])["items"].as_array().map(Vec::len);
        (0..CELLS).all(|cell| left(cell) == Some(0)).then_some(())
    })
    .await;
}
