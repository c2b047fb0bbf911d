//! What is made on the engine: the container, its files, its volume, its network, and what is not touched.

use std::collections::HashMap;
use std::io::Read;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
    RenameContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use zeroone::domain::{AgentId, Profile};
use zeroone::runtime::docker::{Isolation, Reach, Subnets, Traefik};
use zeroone::runtime::{ContainerRuntime, DataPolicy, ImageChoice, InstanceSpec, InstanceState, RuntimeError};
use zeroone::testkit::conformance::started;

use crate::assert_error;
use crate::world::{World, answers, answers_soon, file, prepare, software, spec, until};

pub(crate) async fn is_what_was_asked_for(world: &World) {
    let runtime = world.with(|options| {
        options.traefik = Some(Traefik::new("websecure", "letsencrypt"));
    });
    let spec = spec(&["gateway"]).with_generation(7).with_host_name("a.example.org");
    runtime.ensure_created(&spec).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    let name = format!("zeroclaw-{}", spec.key.slug);
    let made = inspect(world, &name).await;

    let config = made.config.unwrap();
    assert_eq!(config.image.as_deref(), Some(world.options.image.as_str()));
    assert_eq!(config.cmd, Some(vec!["gateway".into()]));
    assert_eq!(config.user.as_deref(), Some("65534:65534"));
    assert!(config.env.unwrap().contains(&"API_KEY=sk-test".into()));
    let labels = config.labels.unwrap();
    for (label, value) in [
        ("zeroone.installation", world.options.installation.to_string()),
        ("zeroone.agent", spec.key.agent.to_string()),
        ("zeroone.slug", spec.key.slug.to_string()),
        ("zeroone.generation", "7".into()),
        ("zeroone.spec", spec.hash()),
        ("traefik.enable", "true".into()),
        (&format!("traefik.http.routers.{name}.rule"), "Host(`a.example.org`)".into()),
        (&format!("traefik.http.routers.{name}.entrypoints"), "websecure".into()),
        (&format!("traefik.http.routers.{name}.tls.certresolver"), "letsencrypt".into()),
        (&format!("traefik.http.services.{name}.loadbalancer.server.port"), "42617".into()),
    ] {
        assert_eq!(labels.get(label), Some(&value), "{label}");
    }

    let host = made.host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(128 << 20), Some(128 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(500_000_000), Some(256)));
    assert_eq!((host.init, host.readonly_rootfs), (Some(true), Some(true)));
    assert_eq!(host.cap_drop, Some(vec!["ALL".into()]));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".into()]));
    assert!(host.tmpfs.unwrap().contains_key("/tmp"));
    assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "unless-stopped");
    assert_eq!(runtime.caps().host, Some("host.docker.internal"));
    assert_eq!(host.extra_hosts, Some(vec!["host.docker.internal:host-gateway".into()]));
    assert_eq!(host.network_mode.as_deref(), Some(world.options.network.as_str()));
    let rotation = host.log_config.unwrap();
    assert_eq!(rotation.typ.as_deref(), Some("json-file"));
    assert_eq!(rotation.config.unwrap()["max-size"], "10m");

    let binding = made.network_settings.unwrap().ports.unwrap().remove("42617/tcp").unwrap().unwrap().remove(0);
    assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(binding.host_port, spec.port.map(|port| port.to_string()));
    let mount = made.mounts.unwrap().remove(0);
    assert_eq!(mount.destination.as_deref(), Some("/zeroclaw-data"));
    assert_eq!(mount.name, Some(format!("zeroclaw-{}", spec.key.agent)));
}

pub(crate) async fn gets_its_files_before_its_first_start(world: &World) {
    let files = vec![file(".zeroclaw/config.toml", "a = 1\n", 0o600), file("workspace/SOUL.md", "soul", 0o644)];
    let spec = spec(&["gateway"]).with_files(files);
    let made = world.runtime.ensure_created(&spec).await.unwrap();
    assert_eq!((made.state, made.created_now), (InstanceState::Created, true));
    let expected = |config: &str| {
        [
            (".zeroclaw", 65_534, 0o755, String::new()),
            (".zeroclaw/config.toml", 65_534, 0o600, config.to_owned()),
            ("workspace", 65_534, 0o755, String::new()),
            ("workspace/SOUL.md", 65_534, 0o644, "soul".to_owned()),
        ]
        .map(|(path, owner, mode, content)| (path.to_owned(), owner, mode, content))
        .to_vec()
    };
    assert_eq!(data(world, &made.engine_id).await, expected("a = 1\n"));

    // Whoever made it may have died before it staged the files.
    let again = spec.clone().with_files(vec![file(".zeroclaw/config.toml", "a = 2\n", 0o600)]);
    let adopted = world.runtime.ensure_created(&again).await.unwrap();
    assert_eq!((adopted.engine_id, adopted.created_now), (made.engine_id.clone(), false));
    assert_eq!(data(world, &made.engine_id).await, expected("a = 2\n"));

    world.runtime.start(&spec.key).await.unwrap();
    let busy = world.runtime.stage(&spec.key, &[file(".zeroclaw/config.toml", "a = 3\n", 0o600)]).await;
    assert_error!(busy, RuntimeError::Conflict(_));
    assert!(!world.runtime.ensure_created(&spec).await.unwrap().created_now, "what runs is left alone");
    world.runtime.kill(&spec.key).await.unwrap();
    world.runtime.stage(&spec.key, &[file(".zeroclaw/config.toml", "a = 4\n", 0o600)]).await.unwrap();
    assert_eq!(data(world, &made.engine_id).await, expected("a = 4\n"));
    assert_error!(world.runtime.stage(&spec_of_nobody().key, &[]).await, RuntimeError::NotFound);
}

pub(crate) async fn is_adopted_or_made_anew(world: &World) {
    let first = spec(&["gateway"]);
    let run = world.launch(&first).await;
    let same = first.clone().with_generation(2);
    let adopted = world.runtime.ensure_created(&same).await.unwrap();
    assert_eq!(adopted.run(), Some(&run), "another generation of the same spec is the same instance");
    assert_eq!(
        world.runtime.start(&first.key).await.unwrap(),
        InstanceState::Running(run.clone()),
        "a start of what runs is none"
    );

    let other = first.clone().with_memory_mb(64);
    let made = world.runtime.ensure_created(&other).await.unwrap();
    assert_eq!((made.state, made.created_now, made.spec_hash), (InstanceState::Created, true, other.hash()));
    assert_ne!(made.engine_id, adopted.engine_id);
    assert_eq!(world.runtime.list_owned().await.unwrap().len(), 1);

    // Other settings of the installation do not end what runs, but are taken up by what does not.
    let moved = world.with(|options| options.log_files = 5);
    assert_ne!(moved.ensure_created(&other).await.unwrap().engine_id, made.engine_id);
    moved.start(&other.key).await.unwrap();
    let kept = world.runtime.ensure_created(&other).await.unwrap();
    assert!(kept.run().is_some() && !kept.created_now);
}

pub(crate) async fn keeps_its_data_until_it_is_told_otherwise(world: &World) {
    let spec = spec(&["gateway"]).with_files(vec![file("workspace/SOUL.md", "soul", 0o644)]);
    world.launch(&spec).await;
    world.runtime.remove(&spec.key, DataPolicy::Keep).await.unwrap();
    assert_eq!(world.observed(&spec.key).await, None);

    let bare = spec.clone().with_files(vec![]);
    let id = world.runtime.ensure_created(&bare).await.unwrap().engine_id;
    assert!(
        data(world, &id).await.iter().any(|entry| entry.0 == "workspace/SOUL.md"),
        "the data outlived its container"
    );

    let volume = format!("zeroclaw-{}", spec.key.agent);
    world.docker.inspect_volume(&volume).await.unwrap();
    world.runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert!(world.docker.inspect_volume(&volume).await.is_err());
    world.runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(world.runtime.list_owned().await.unwrap(), []);
}

pub(crate) async fn neighbours_cannot_reach_each_other(world: &World) {
    let gateway = spec(&["gateway"]);
    world.launch(&gateway).await;
    let direct = world.with(|options| options.reach = Reach::Container);
    let address = direct.observe(&gateway.key).await.unwrap().unwrap().run().unwrap().endpoint;
    answers_soon(address).await;

    let neighbour = spec(&["reach", &address.to_string()]);
    world.launch(&neighbour).await;
    let verdict = world.line_when(&neighbour.key, |line| line.starts_with("blocked") || line == "reached").await;
    assert!(verdict.starts_with("blocked"), "{verdict}");
    assert!(answers(address).await, "while the control plane gets through");

    // The same attempt from the host's side of the network, where it succeeds: so it was the network that blocked it.
    let here = plain_container(world, &["reach", &address.to_string()], Some("host")).await;
    let said = until("a verdict", async || log_of(world, &here).await.lines().next().map(String::from)).await;
    assert_eq!(said, "reached");
}

pub(crate) async fn networks_of_their_own_are_joined_and_removed(world: &World) {
    let control = plain_container(world, &["gateway"], None).await;
    let runtime = world.with(|options| {
        let subnets = Subnets::parse("10.237.0.0/16").unwrap();
        options.isolation = Isolation::PerAgent { joined: vec![control.clone()], subnets };
        options.reach = Reach::Container;
    });
    let (one, two) = (spec(&["gateway"]), spec(&["gateway"]));
    let mut addresses = Vec::new();
    for spec in [&one, &two] {
        runtime.ensure_created(spec).await.unwrap();
        addresses.push(started(&runtime, &spec.key).await.endpoint);
    }
    let networks = || async {
        let made = inspect(world, &control).await;
        let mut joined: Vec<String> = made.network_settings.unwrap().networks.unwrap().into_keys().collect();
        joined.retain(|network| network.starts_with(&world.options.network));
        joined.sort();
        joined
    };
    let mut expected = [&one, &two].map(|spec| format!("{}-{}", world.options.network, spec.key.agent));
    expected.sort();
    assert_eq!(networks().await, expected);
    answers_soon(addresses[0]).await;

    // From within the first agent's network, the second one is out of reach.
    let inside = format!("container:zeroclaw-{}", one.key.slug);
    let verdict = |address: String| {
        let inside = inside.clone();
        async move {
            let tries = plain_container(world, &["reach", &address], Some(&inside)).await;
            until("a verdict", async || log_of(world, &tries).await.lines().next().map(String::from)).await
        }
    };
    assert_eq!(verdict(addresses[0].to_string()).await, "reached");
    // While another network is made, as by a test beside this one, the engine lifts its barrier for some milliseconds;
    // without a barrier, none of these would be blocked.
    let mut blocked = false;
    for _ in 0..3 {
        blocked |= verdict(addresses[1].to_string()).await.starts_with("blocked");
    }
    assert!(blocked);

    // A control plane whose container was recreated is put back into all of them.
    let leave = bollard::models::NetworkDisconnectRequest { container: control.clone(), force: None };
    world.docker.disconnect_network(&expected[0], leave).await.unwrap();
    runtime.attach().await.unwrap();
    assert_eq!(networks().await, expected);

    runtime.remove(&two.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(networks().await.len(), 1);
    let gone = format!("{}-{}", world.options.network, two.key.agent);
    assert!(world.docker.inspect_network(&gone, None::<InspectNetworkOptions>).await.is_err());
}

pub(crate) async fn a_network_without_isolation_is_refused(world: &World) {
    let name = world.options.network.clone();
    let request = bollard::models::NetworkCreateRequest { name, ..Default::default() };
    world.docker.create_network(request).await.unwrap();
    let (prepared, _) = prepare(&world.runtime).await;
    assert_error!(prepared, RuntimeError::Invalid(_));
    assert_error!(world.runtime.ensure_created(&spec(&["gateway"])).await, RuntimeError::Invalid(_));
}

pub(crate) async fn one_network_is_made_by_many(world: &World) {
    let runtimes = [(); 4].map(|()| world.with(|_| {}));
    let prepared = futures_util::future::join_all(runtimes.iter().map(prepare)).await;
    assert!(prepared.iter().all(|(result, _)| result.is_ok()), "{prepared:?}");
    // The engine would refuse an ambiguous name.
    world.docker.inspect_network(&world.options.network, None::<InspectNetworkOptions>).await.unwrap();
}

pub(crate) async fn strangers_are_left_alone(world: &World) {
    let spec = spec(&["gateway"]);
    let name = format!("zeroclaw-{}", spec.key.slug);
    let stranger = named_container(world, &name).await;
    let before = inspect(world, &stranger).await;

    assert_error!(world.runtime.ensure_created(&spec).await, RuntimeError::NotOwned(_));
    assert_eq!(world.observed(&spec.key).await, None);
    assert_error!(world.runtime.start(&spec.key).await, RuntimeError::NotFound);
    world.runtime.stop(&spec.key, std::time::Duration::from_secs(1)).await.unwrap();
    world.runtime.kill(&spec.key).await.unwrap();
    world.runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(world.runtime.list_owned().await.unwrap(), []);
    let after = inspect(world, &stranger).await;
    assert_eq!((after.id, after.state), (before.id, before.state));

    // Another installation's agent, with the same id as ours.
    let other = crate::world::spec(&["gateway"]);
    let theirs = world.of_others();
    let made = theirs.ensure_created(&other).await.unwrap();
    world.runtime.remove(&other.key, DataPolicy::Remove).await.unwrap();
    assert_error!(world.runtime.ensure_created(&other).await, RuntimeError::NotOwned(_));
    assert_eq!(theirs.observe(&other.key).await.unwrap().unwrap().engine_id, made.engine_id);

    // Somebody's volume under the name of an agent's data.
    let third = crate::world::spec(&["gateway"]);
    let request = bollard::models::VolumeCreateRequest {
        name: Some(format!("zeroclaw-{}", third.key.agent)),
        labels: Some(HashMap::from([test_label(world)])),
        ..Default::default()
    };
    let volume = world.docker.create_volume(request).await.unwrap();
    assert_error!(world.runtime.ensure_created(&third).await, RuntimeError::NotOwned(_));
    world.runtime.remove(&third.key, DataPolicy::Remove).await.unwrap();
    world.docker.inspect_volume(&volume.name).await.unwrap();
}

pub(crate) async fn a_renamed_one_is_found(world: &World) {
    let spec = spec(&["gateway"]);
    let run = world.launch(&spec).await;
    let rename = RenameContainerOptionsBuilder::default().name(&format!("mine-{}", spec.key.agent)).build();
    world.docker.rename_container(&format!("zeroclaw-{}", spec.key.slug), rename).await.unwrap();
    assert_eq!(world.observed(&spec.key).await.unwrap().run(), Some(&run));
    assert_eq!(world.runtime.ensure_created(&spec).await.unwrap().run(), Some(&run));
    world.runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
    assert_eq!(world.observed(&spec.key).await, None);
}

pub(crate) async fn a_missing_image_is_told_with_its_remedy(world: &World) {
    // No registry answers on this port, so that the pull ends at once wherever the test runs.
    let image = "127.0.0.1:1/nobody/nothing:0.6.9".to_owned();
    let runtime = world.with(|options| options.image.clone_from(&image));
    let (prepared, said) = prepare(&runtime).await;
    match prepared {
        // An outage, which passes.
        Err(RuntimeError::Failed(why)) => assert!(why.contains(&image) && why.contains("tried again"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(said.contains(&format!("pulling image {image}")), "{said:?}");
    assert_error!(runtime.ensure_created(&spec(&["gateway"])).await, RuntimeError::Failed(_));
    assert_eq!(runtime.list_owned().await.unwrap(), []);
    assert_error!(software(&runtime, ImageChoice::Default).await, RuntimeError::Failed(_));
    let labelled = software(&world.runtime, ImageChoice::Default).await.unwrap();
    assert_eq!(labelled.profile, Profile::V01, "by its label");

    let (prepared, said) = prepare(&world.runtime).await;
    prepared.unwrap();
    assert_eq!(said, Vec::<String>::new(), "what is there is not pulled");
}

fn spec_of_nobody() -> InstanceSpec {
    spec(&["gateway"])
}

async fn inspect(world: &World, name: &str) -> ContainerInspectResponse {
    world.docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap()
}

/// What is in a container's data folder: path, owner, mode, content.
async fn data(world: &World, container: &str) -> Vec<(String, u64, u32, String)> {
    let options = DownloadFromContainerOptionsBuilder::default().path("/zeroclaw-data/.").build();
    let chunks = world.docker.download_from_container(container, Some(options));
    let bytes =
        chunks.try_fold(Vec::new(), |all, chunk| async move { Ok([all, chunk.to_vec()].concat()) }).await.unwrap();
    let mut entries = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
        let (owner, mode) = (entry.header().uid().unwrap(), entry.header().mode().unwrap() & 0o777);
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if !path.is_empty() {
            entries.push((path, owner, mode, content));
        }
    }
    entries.sort();
    entries
}

async fn log_of(world: &World, container: &str) -> String {
    let options = bollard::query_parameters::LogsOptionsBuilder::default().stdout(true).build();
    let frames = world.docker.logs(container, Some(options));
    frames.map(|frame| frame.unwrap().to_string()).collect::<Vec<_>>().await.concat()
}

pub(crate) fn test_label(world: &World) -> (String, String) {
    ("zeroone.test".into(), world.options.installation.to_string())
}

/// A running container that is not the runtime's.
pub(crate) async fn plain_container(world: &World, command: &[&str], network: Option<&str>) -> String {
    let body = ContainerCreateBody {
        image: Some(world.options.image.clone()),
        cmd: Some(command.iter().map(ToString::to_string).collect()),
        labels: Some(HashMap::from([test_label(world)])),
        host_config: Some(HostConfig { network_mode: network.map(Into::into), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let name = format!("zeroone-test-{}", AgentId::new());
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    world.docker.create_container(Some(options), body).await.unwrap();
    world.docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
    name
}

/// A container with a name of its own choice, not started.
async fn named_container(world: &World, name: &str) -> String {
    let body = ContainerCreateBody {
        image: Some(world.options.image.clone()),
        labels: Some(HashMap::from([test_label(world)])),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    world.docker.create_container(Some(options), body).await.unwrap();
    name.to_owned()
}
