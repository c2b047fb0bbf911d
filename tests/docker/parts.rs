//! Parts of an instance, and of the way to it, that others take away: networks, membership, images, and containers that
//! others add.

use bollard::models::{ContainerCreateBody, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt;
use zeroone::runtime::docker::{Isolation, Reach, Subnets};
use zeroone::runtime::{ContainerRuntime, DataPolicy, InstanceState, RuntimeError};

use crate::assert_error;
use crate::containers::plain_container;
use crate::world::{World, answers_soon, file, prepare, running, spec, until};

/// CHAOS.md 1: `docker network rm` while an agent is stopped.
pub(crate) async fn a_container_whose_network_was_removed_is_created_again_on_its_data(world: &World) {
    let spec = spec(&["gateway"]).with_files(vec![file("workspace/SOUL.md", "soul", 0o644)]);
    world.launch(&spec).await;
    let bare = spec.clone().with_files(vec![]);
    for made_again_by_others in [false, true] {
        world.runtime.stop(&spec.key, std::time::Duration::from_secs(1)).await.unwrap();
        let before = world.observed(&spec.key).await.unwrap().engine_id;
        world.docker.remove_network(&world.options.network).await.unwrap();
        if made_again_by_others {
            prepare(&world.runtime).await.0.unwrap();
        }
        let made = world.runtime.ensure_created(&bare).await.unwrap();
        assert!(made.created_now && made.engine_id != before, "a container cannot change its network's id");
        let run = world.launch(&bare).await;
        answers_soon(run.endpoint).await;
        assert_eq!(world.read(&made.engine_id, "workspace/SOUL.md").await.as_deref(), Some(b"soul".as_slice()));
    }

    // The network goes between the look at it and the start: the container goes, and the next attempt makes another one.
    world.runtime.stop(&spec.key, std::time::Duration::from_secs(1)).await.unwrap();
    world.docker.remove_network(&world.options.network).await.unwrap();
    assert_error!(world.runtime.start(&spec.key).await, RuntimeError::Conflict(_));
    assert_eq!(world.observed(&spec.key).await, None);
    answers_soon(world.launch(&bare).await.endpoint).await;
}

/// What tools do that replace a container: they rename it and start a copy of it, labels and volume included.
pub(crate) async fn a_second_running_container_of_an_agent_is_removed(world: &World) {
    let spec = spec(&["gateway"]);
    let mut wakes = world.runtime.watch();
    let run = world.launch(&spec).await;
    let name = format!("zeroclaw-{}", spec.key.slug);
    let observed = world.observed(&spec.key).await.unwrap();
    let inspected = world.docker.inspect_container(&observed.engine_id, None).await.unwrap();
    let rename = RenameContainerOptionsBuilder::default().name(&format!("{name}-old")).build();
    world.docker.rename_container(&observed.engine_id, rename).await.unwrap();
    let mut host_config = inspected.host_config.unwrap();
    host_config.port_bindings = None;
    let config = inspected.config.unwrap();
    let body = ContainerCreateBody {
        image: config.image,
        cmd: config.cmd,
        labels: config.labels,
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let copy = world.docker.create_container(Some(options), body).await.unwrap().id;
    world.docker.start_container(&copy, None::<StartContainerOptions>).await.unwrap();

    // The event of its start is what makes the runtime look for more than one.
    let seen = until("the one that was there first", async || {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), wakes.next()).await;
        let observed = world.observed(&spec.key).await?;
        world.docker.inspect_container(&copy, None).await.is_err().then_some(observed)
    })
    .await;
    assert_eq!(seen.run(), Some(&run), "its run goes on undisturbed");
    assert_eq!(world.runtime.list_owned().await.unwrap().len(), 1);
}

/// B1: after its container was recreated, the control plane is in none of the agents' networks.
pub(crate) async fn a_control_plane_that_left_a_network_joins_it_again_before_it_judges(world: &World) {
    let control = plain_container(world, &["gateway"], None).await;
    let runtime = world.with(|options| {
        let subnets = Subnets::parse("10.238.0.0/16").unwrap();
        options.isolation = Isolation::PerAgent { joined: vec![control.clone()], subnets };
        // This process stands on the machine, which is in no network of a container whose address it does not know.
        options.reach = Reach::Auto;
    });
    let spec = spec(&["gateway"]);
    runtime.ensure_created(&spec).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    let network = format!("{}-{}", world.options.network, spec.key.agent);
    let is_member = async || {
        let inspected = world.docker.inspect_container(&control, None).await.unwrap();
        inspected.network_settings.unwrap().networks.unwrap().contains_key(&network)
    };
    assert!(is_member().await);
    let leave = NetworkDisconnectRequest { container: control.clone(), force: None };
    world.docker.disconnect_network(&network, leave).await.unwrap();
    assert!(!is_member().await);
    runtime.attach().await.unwrap();
    assert!(is_member().await);

    // A member that is gone is named, and is a matter of the moment.
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    world.docker.remove_container(&control, Some(options)).await.unwrap();
    match runtime.attach().await {
        Err(RuntimeError::Failed(why)) => assert!(why.contains(&control) && why.contains("docker.joined"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_error!(runtime.ensure_created(&self::spec(&["gateway"])).await, RuntimeError::Failed(_));
}

/// B2: side by side, some create and some delete.
pub(crate) async fn a_deletion_does_not_fail_a_neighbours_creation(world: &World) {
    let control = plain_container(world, &["gateway"], None).await;
    let runtime = world.with(|options| {
        let subnets = Subnets::parse("10.239.0.0/16").unwrap();
        options.isolation = Isolation::PerAgent { joined: vec![control.clone()], subnets };
    });
    let one = async |_: usize| {
        for _ in 0..4 {
            let spec = spec(&["gateway"]);
            prepare(&runtime).await.0.unwrap();
            runtime.ensure_created(&spec).await.unwrap();
            runtime.attach().await.unwrap();
            runtime.remove(&spec.key, DataPolicy::Remove).await.unwrap();
        }
    };
    futures_util::future::join_all((0..3).map(one)).await;
    assert_eq!(runtime.list_owned().await.unwrap(), []);
}

/// A removed tag and a registry that is away do not turn one crash into an ERROR.
pub(crate) async fn a_running_agent_is_adopted_without_its_image(world: &World) {
    let spec = spec(&["gateway"]);
    let tag = format!("zeroone-test:{}", spec.key.agent);
    let (name, version) = tag.split_once(':').unwrap();
    let options = bollard::query_parameters::TagImageOptionsBuilder::default().repo(name).tag(version).build();
    world.docker.tag_image(&world.options.image, Some(options)).await.unwrap();
    let runtime = world.with(|options| options.image.clone_from(&tag));
    runtime.ensure_created(&spec).await.unwrap();
    runtime.start(&spec.key).await.unwrap();
    world.docker.remove_image(&tag, None::<bollard::query_parameters::RemoveImageOptions>, None).await.unwrap();
    runtime.kill(&spec.key).await.unwrap();
    let said = std::sync::Mutex::new(Vec::new());
    let said = std::sync::Arc::new(said);
    let hear = std::sync::Arc::clone(&said);
    runtime.prepare(&spec.key, std::sync::Arc::new(move |text| hear.lock().unwrap().push(text))).await.unwrap();
    assert_eq!(*said.lock().unwrap(), Vec::<String>::new());
    assert!(!runtime.ensure_created(&spec).await.unwrap().created_now);
    runtime.start(&spec.key).await.unwrap();
    let state = runtime.observe(&spec.key).await.unwrap().unwrap().state;
    assert!(running(&state).is_some() || matches!(state, InstanceState::Exited(_)));
}
