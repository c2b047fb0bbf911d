//! The Kubernetes runtime against a real cluster: real API server, scheduler, controller manager and kubelet, and the real
//! ZeroClaw.
//!
//! `scripts/kubernetes up` makes one; without it these tests show as ignored, because a suite that is not there must not look
//! like one that passed. Every test has a namespace of its own, and leaves nothing behind. Tests that meddle with the cluster
//! itself run alone, after all others.

#[path = "kubernetes/cells.rs"]
mod cells;
#[path = "kubernetes/chaos.rs"]
mod chaos;
#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "support/http_client.rs"]
mod http_client;
#[path = "kubernetes/inside.rs"]
mod inside;
#[path = "kubernetes/life.rs"]
mod life;
#[path = "kubernetes/model.rs"]
mod model;
#[path = "kubernetes/moves.rs"]
mod moves;
#[path = "support/service.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod serve;
#[path = "kubernetes/subject.rs"]
mod subject;
#[path = "kubernetes/twins.rs"]
mod twins;
#[path = "kubernetes/world.rs"]
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::sync::RwLock;

use cluster::Cluster;
use world::World;

/// No test may hang the suite.
const TEST_DEADLINE: Duration = Duration::from_secs(400);

/// Tests that run at a time: most of each is waiting for the cluster.
const SIDE_BY_SIDE: usize = 6;

/// Whether a test leaves the cluster as it is. One that does not has it for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cluster_ {
    Shared,
    Alone,
}

type Test = fn(Arc<World>) -> LocalBoxFuture<'static, ()>;

macro_rules! tests {
    ($($use:ident $module:ident::$name:ident;)*) => {
        [$((
            concat!(stringify!($module), "::", stringify!($name)),
            Cluster_::$use,
            (|world| Box::pin(async move { $module::$name(&world).await })) as Test,
        )),*]
    };
}

macro_rules! conformance_tests {
    (=> $($behaviour:ident),+) => {
        [$((
            concat!("conformance::", stringify!($behaviour)),
            Cluster_::Shared,
            (|world| {
                Box::pin(async move {
                    let subject = subject::KubernetesSubject::new(&world).await;
                    zeroone::testkit::conformance::$behaviour(&subject).await;
                })
            }) as Test,
        )),+]
    };
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == subject::WORD) {
        return subject::act(&arguments[2..]);
    }
    let tests = tests! {
        Shared life::from_creation_to_removal;
        Shared life::of_an_older_zeroclaw;
        Shared life::changes_of_one_run_wake_and_are_told;
        Shared inside::with_the_role_that_is_shipped_and_no_other;
        Shared chaos::a_killed_container_comes_back;
        Shared chaos::a_pod_that_was_deleted_by_hand_comes_back;
        Shared chaos::a_missing_image_is_told;
        Shared chaos::a_quota_that_is_used_up_is_told;
        Shared chaos::a_control_plane_that_is_killed_goes_on_at_every_step;
        Shared moves::an_eviction_is_followed_by_another_pod;
        Shared moves::a_volume_that_never_comes_is_told;
        Shared moves::an_end_for_want_of_memory_is_told_apart;
        Shared moves::a_second_control_plane_is_refused;
        Shared life::data_is_exported_copied_and_imported;
        Shared life::an_upgrade_is_rehearsed_and_done;
        Shared life::from_outside_by_forwarded_ports;
        Shared life::a_model_on_the_loopback_is_refused;
        Shared cells::the_manifests_make_three_cells_and_one_that_dies_harms_no_other;
        Alone moves::a_drained_node_gives_its_agents_away;
        Alone chaos::an_api_server_that_is_killed_or_stopped_harms_nobody;
        Alone chaos::a_node_that_is_lost_gets_no_second_pod;
    };
    let tests = tests.into_iter().chain(zeroone::testkit::conformance::behaviours! { [conformance_tests] });

    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(SIDE_BY_SIDE));
    let there = Cluster::is_up();
    let prepared = Arc::new(std::sync::OnceLock::new());
    let alone = Arc::new(RwLock::new(()));
    let trials = tests
        .map(|(name, use_, test)| {
            let (alone, prepared) = (Arc::clone(&alone), Arc::clone(&prepared));
            Trial::test(name, move || run(use_, test, &alone, &prepared)).with_ignored_flag(!there)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(
    use_: Cluster_,
    test: Test,
    alone: &RwLock<()>,
    prepared: &std::sync::OnceLock<()>,
) -> Result<(), libtest_mimic::Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (_shared, _alone) = match use_ {
            Cluster_::Shared => (Some(alone.read().await), None),
            Cluster_::Alone => (None, Some(alone.write().await)),
        };
        prepared.get_or_init(Cluster::prepare);
        let world = Arc::new(World::new().await);
        let tested = tokio::time::timeout(TEST_DEADLINE, AssertUnwindSafe(test(Arc::clone(&world)))).await;
        world.end().await;
        tested.map_err(|_| libtest_mimic::Failed::from("not within its time"))
    })
}
