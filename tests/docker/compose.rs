//! The filter before the engine's socket in `docker-compose.yml`, against the calls that the runtime really makes.

use std::collections::HashMap;

use futures_util::StreamExt;
use regex::Regex;
use zeroone::runtime::docker::{DockerRuntime, Isolation, Subnets};
use zeroone::runtime::{ContainerRuntime, DataPolicy, ImageChoice, LogQuery};

use crate::proxy::Proxy;
use crate::world::{World, file, prepare, socket, software, spec, until};

/// What someone who took over the control plane must not get.
const REFUSED: [(&str, &str); 18] = [
    ("POST", "/containers/zeroclaw-a/exec"),
    ("POST", "/exec/0123abcd/start"),
    ("POST", "/containers/0123abcd/attach"),
    ("POST", "/containers/0123abcd/update"),
    ("POST", "/containers/0123abcd/rename"),
    ("POST", "/containers/prune"),
    ("GET", "/containers/0123abcd/export"),
    ("GET", "/containers/by-name/archive"),
    ("GET", "/images/zeroclaw:0.1.7/get"),
    ("DELETE", "/images/zeroclaw:0.1.7"),
    ("POST", "/images/zeroclaw/push"),
    ("POST", "/build"),
    ("POST", "/commit"),
    ("GET", "/volumes"),
    ("DELETE", "/volumes/someone-elses"),
    ("GET", "/secrets"),
    ("POST", "/swarm/init"),
    ("POST", "/plugins/pull"),
];

pub(crate) async fn its_filter_lets_through_what_is_asked_and_little_else(world: &World) {
    let filter = Filter::of("engine");
    let Some(socket) = socket() else { return };
    let proxy = Proxy::before(socket);
    let host = proxy.host();
    let member = crate::containers::plain_container(world, &["gateway"], None).await;
    everything(world, &world.with(|options| options.host.clone_from(&host))).await;
    let runtime = world.with(|options| {
        options.host.clone_from(&host);
        options.network.push_str("-own");
        let subnets = Subnets::parse("10.238.0.0/16").unwrap();
        options.isolation = Isolation::PerAgent { joined: vec![member], subnets };
    });
    everything(world, &runtime).await;
    let absent = world.with(|options| {
        options.host.clone_from(&host);
        options.image = "127.0.0.1:1/nobody/nothing:1".into();
    });
    prepare(&absent).await.0.unwrap_err();

    let calls = proxy.calls();
    for part in
        ["/start", "/stop", "/kill", "/unpause", "/archive", "/logs", "/stats", "/connect", "/disconnect", "/events"]
    {
        assert!(calls.iter().any(|(_, path)| path.ends_with(part)), "the test made no call of {part}");
    }
    let version = Regex::new(r"^/v1\.[0-9]+/").unwrap();
    for (method, path) in &calls {
        let path = version.replace(path, "/");
        let path = path.as_ref();
        assert!(filter.allows(method, path), "{method} {path} is not let through");
        assert!(filter.allows(method, &format!("/v1.41{path}")), "nor may it be with a version");
    }
    for (method, path) in REFUSED {
        assert!(!filter.allows(method, path) && !filter.allows(method, &format!("/v1.41{path}")), "{method} {path}");
    }
    let view = Filter::of("engine-view");
    assert!(view.allows("GET", "/v1.51/containers/0123abcd/json") && view.allows("HEAD", "/_ping"));
    assert!(calls.iter().filter(|(method, _)| method != "GET").all(|(method, path)| !view.allows(method, path)));
}

/// Makes every kind of call.
async fn everything(world: &World, runtime: &DockerRuntime) {
    prepare(runtime).await.0.unwrap();
    let mut wakes = runtime.watch();
    wakes.next().await.unwrap();
    let spec = spec(&["gateway"]).with_files(vec![file("workspace/SOUL.md", "soul", 0o644)]);
    runtime.ensure_created(&spec).await.unwrap();
    wakes.next().await.unwrap();
    runtime.read_data(&spec.key, "workspace").await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    runtime.usage(&spec.key).await.unwrap();
    runtime.logs(&spec.key, LogQuery::default()).await.unwrap().count().await;
    world.pause(&format!("zeroclaw-{}", spec.key.slug)).await;
    runtime.start(&spec.key).await.unwrap();
    runtime.stop(&spec.key, std::time::Duration::from_secs(1)).await.unwrap();
    runtime.stage(&spec.key, &spec.files).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    runtime.kill(&spec.key).await.unwrap();
    runtime.list_owned().await.unwrap();
    software(runtime, ImageChoice::Default).await.unwrap();
    prepare(runtime).await.0.unwrap();
    runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    until("its end", async || runtime.observe(&spec.key).await.unwrap().is_none().then_some(())).await;
}

/// The regular expressions of a filter, by HTTP method.
struct Filter(HashMap<String, Regex>);

impl Filter {
    /// Reads the service's `-allowMETHOD=expression` lines.
    fn of(service: &str) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml");
        let text = std::fs::read_to_string(path).unwrap();
        let begin = text.find(&format!("\n  {service}:\n")).unwrap() + 1;
        let lines = text[begin..].lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("    "));
        let rules = lines.filter_map(|line| line.trim().strip_prefix("- -allow")?.split_once('='));
        let methods = rules.filter(|(method, _)| method.bytes().all(|b| b.is_ascii_uppercase()));
        // The filter anchors them itself.
        Self(methods.map(|(method, rule)| (method.to_owned(), Regex::new(&format!("^({rule})$")).unwrap())).collect())
    }

    fn allows(&self, method: &str, path: &str) -> bool {
        self.0.get(method).is_some_and(|rule| rule.is_match(path))
    }
}
