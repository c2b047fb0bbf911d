//! One live control plane for each installation and engine, whatever data folders there are.

use std::collections::HashMap;

use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
use futures_util::future::join_all;
use zeroone::control::StartError;
use zeroone::runtime::{ContainerRuntime, LeaseAnswer, LeasePurpose, LeaseRequest};

use crate::world::World;

fn request(holder: &str, purpose: LeasePurpose) -> LeaseRequest {
    LeaseRequest::new(holder, format!("test {holder}"), purpose)
}

async fn claim(world: &World, holder: &str, take_over: bool) -> LeaseAnswer {
    world.runtime.lease(&request(holder, LeasePurpose::Claim { take_over })).await.unwrap()
}

fn epoch(answer: LeaseAnswer) -> u64 {
    match answer {
        LeaseAnswer::Held { epoch } => epoch,
        LeaseAnswer::InUse(holder) => panic!("in use by {holder:?}"),
    }
}

async fn volumes(world: &World) -> Vec<String> {
    let filter = HashMap::from([("name", vec![format!("zeroclaw-{}", world.options.installation)])]);
    let all = ListVolumesOptionsBuilder::default().filters(&filter).build();
    let volumes = world.docker.list_volumes(Some(all)).await.unwrap().volumes.unwrap_or_default();
    volumes.into_iter().map(|volume| volume.name).collect()
}

pub(crate) async fn is_refused_to_a_second_holder_until_it_is_given_back_or_taken_over(world: &World) {
    let first = epoch(claim(world, "a", false).await);
    assert!(matches!(claim(world, "b", false).await, LeaseAnswer::InUse(holder) if holder.holder == "a"));
    assert_eq!(epoch(claim(world, "a", false).await), first + 1, "its own claim of before has ended");

    let taken = epoch(claim(world, "b", true).await);
    let late = request("a", LeasePurpose::Renew { epoch: first + 1 });
    assert!(matches!(world.runtime.lease(&late).await.unwrap(), LeaseAnswer::InUse(holder) if holder.holder == "b"));

    let released = request("b", LeasePurpose::Release { epoch: taken });
    assert_eq!(epoch(world.runtime.lease(&released).await.unwrap()), taken);
    assert!(epoch(claim(world, "c", false).await) > taken);
    assert_eq!(volumes(world).await.len(), 1, "older records are removed");
}

pub(crate) async fn has_one_holder_of_many_who_claim_at_once(world: &World) {
    let holders: Vec<String> = (0..12).map(|n| format!("holder {n}")).collect();
    let answers = join_all(holders.iter().map(|holder| {
        let request = request(holder, LeasePurpose::Claim { take_over: false });
        async move { world.runtime.lease(&request).await }
    }))
    .await;
    let held = answers.iter().filter(|answer| matches!(answer, Ok(LeaseAnswer::Held { .. }))).count();
    assert_eq!(held, 1, "{answers:#?}");
}

pub(crate) async fn is_renewed_many_times_and_after_a_prune(world: &World) {
    let epoch_held = epoch(claim(world, "a", false).await);
    let renewal = request("a", LeasePurpose::Renew { epoch: epoch_held });
    for _ in 0..20 {
        assert_eq!(epoch(world.runtime.lease(&renewal).await.unwrap()), epoch_held, "the ring goes round");
    }
    for volume in volumes(world).await {
        let force = RemoveVolumeOptionsBuilder::default().force(true).build();
        world.docker.remove_volume(&volume, Some(force)).await.unwrap();
    }
    assert_eq!(epoch(world.runtime.lease(&renewal).await.unwrap()), epoch_held);
    assert!(matches!(claim(world, "b", false).await, LeaseAnswer::InUse(_)));
}

pub(crate) async fn keeps_a_copied_store_from_starting(world: &World) {
    let service = crate::service::Service::new(world).await;
    let agent = service.running().await;
    let run = service.container(&agent).await.state.unwrap().started_at;
    let started = service.start_copy().await;
    assert!(matches!(started, Err(StartError::InUse(_))), "a copy started beside the original");
    assert_eq!(service.container(&agent).await.state.unwrap().started_at, run, "nothing was done to its agents");
}
