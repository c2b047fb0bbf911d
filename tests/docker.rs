//! The Docker runtime against a real engine.
//!
//! Without an engine these tests show as ignored: a suite that is not there must not look like one that passed. What they
//! need beside it, they make: their image holds this very program, which then plays the gateway (`standin`). The tests of
//! `real`, `plane`, `matrix` and `streams` take the real ZeroClaw and are ignored without its image, see
//! `scripts/zeroclaw-image`; some have an engine of their own (`own_engine`), which needs root and `dockerd`.
//!
//! Every test has an installation and a network of its own, and leaves nothing behind, also when it fails.

#[path = "docker/api.rs"]
mod api;
#[path = "docker/compose.rs"]
mod compose;
#[path = "docker/containers.rs"]
mod containers;
#[path = "docker/data_path.rs"]
mod data_path;
#[path = "docker/faults.rs"]
mod faults;
#[path = "support/http_client.rs"]
mod http_client;
#[path = "docker/lease.rs"]
mod lease;
#[path = "docker/matrix.rs"]
mod matrix;
#[path = "docker/model.rs"]
mod model;
#[path = "docker/output.rs"]
mod output;
#[path = "docker/own_engine.rs"]
mod own_engine;
#[path = "docker/parts.rs"]
mod parts;
#[path = "docker/plane.rs"]
mod plane;
#[path = "docker/program.rs"]
mod program;
#[path = "docker/proxy.rs"]
mod proxy;
#[path = "docker/real.rs"]
mod real;
#[path = "docker/refusals.rs"]
mod refusals;
#[path = "docker/runs.rs"]
mod runs;
#[path = "support/service.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod serve;
#[path = "docker/service.rs"]
mod service;
#[path = "support/sse.rs"]
mod sse;
#[path = "docker/standin.rs"]
mod standin;
#[path = "docker/streams.rs"]
mod streams;
#[path = "docker/subject.rs"]
mod subject;
#[path = "docker/upgrades.rs"]
mod upgrades;
#[path = "docker/versions.rs"]
mod versions;
#[path = "docker/world.rs"]
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};

use world::World;

/// No test may hang the suite.
const TEST_DEADLINE: Duration = Duration::from_secs(180);

/// How long what a test left running may take to end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Tests that run at a time. Each has a network, and an engine has room for about thirty.
const SIDE_BY_SIDE: usize = 6;

/// What a test needs beside an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Standin,
    RealZeroClaw,
    /// The real ZeroClaw, every version of it in turn.
    EachVersion,
    /// The same, as `gateway` and as `daemon`.
    EachCommand,
    /// The same, on an engine that is the test's alone.
    OwnEngine,
    /// ZeroClaw 0.8.7 alone.
    Native,
    NativeOnOwnEngine,
    /// ZeroClaw 0.1.7 and 0.8.7.
    TwoVersions,
}

type Test = fn(Arc<World>) -> LocalBoxFuture<'static, ()>;

macro_rules! tests {
    ($($needs:ident $module:ident::$name:ident;)*) => {
        [$((
            concat!(stringify!($module), "::", stringify!($name)),
            Needs::$needs,
            (|world| Box::pin(async move { $module::$name(&world).await })) as Test,
        )),*]
    };
}

macro_rules! conformance_tests {
    (=> $($behaviour:ident),+) => {
        [$((
            concat!("conformance::", stringify!($behaviour)),
            Needs::Standin,
            (|world| {
                Box::pin(async move { zeroone::testkit::conformance::$behaviour(&subject::DockerSubject::new(&world)).await })
            }) as Test,
        )),+]
    };
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == standin::WORD) {
        return standin::main(&arguments[2..]);
    }
    let tests = tests! {
        Standin containers::is_what_was_asked_for;
        Standin containers::gets_its_files_before_its_first_start;
        Standin containers::is_adopted_or_made_anew;
        Standin containers::keeps_its_data_until_it_is_told_otherwise;
        Standin containers::neighbours_cannot_reach_each_other;
        Standin containers::networks_of_their_own_are_joined_and_removed;
        Standin containers::a_network_without_isolation_is_refused;
        Standin containers::one_network_is_made_by_many;
        Standin containers::strangers_are_left_alone;
        Standin containers::a_renamed_one_is_found;
        Standin containers::a_missing_image_is_told_with_its_remedy;
        Standin runs::a_taken_port_is_told_and_the_container_used_again;
        Standin runs::a_stop_is_obeyed_or_enforced;
        Standin runs::a_paused_one_is_seen_and_goes_on;
        Standin runs::a_crash_loop_does_not_wait_for_the_engine;
        Standin runs::too_much_memory_ends_as_oom;
        Standin runs::every_change_wakes;
        Standin runs::faults_on_purpose_are_done_to_its_own_and_taken_back;
        Standin runs::many_start_side_by_side;
        Standin output::lines_of_one_run_only;
        Standin output::long_lines_are_joined_and_cut;
        Standin output::followed_across_rotation_each_line_once;
        Standin output::usage_is_measured;
        Standin output::a_flood_of_a_hundred_megabytes_is_bounded;
        Standin faults::an_engine_that_is_away_or_hangs_is_unavailable;
        Standin faults::a_lost_answer_is_unknown_and_can_be_repeated;
        Standin faults::a_broken_event_stream_is_a_gap;
        Standin parts::a_container_whose_network_was_removed_is_created_again_on_its_data;
        Standin parts::a_second_running_container_of_an_agent_is_removed;
        Standin parts::a_control_plane_that_left_a_network_joins_it_again_before_it_judges;
        Standin parts::a_deletion_does_not_fail_a_neighbours_creation;
        Standin parts::a_running_agent_is_adopted_without_its_image;
        Standin refusals::an_answer_is_never_an_absence;
        Standin refusals::a_call_that_is_not_allowed_is_named;
        Standin refusals::refused_events_are_asked_for_less_and_less_often;
        Standin refusals::a_name_that_only_the_engine_knows_is_told;
        Standin refusals::an_end_that_overtakes_a_removal_does_not_stop_it;
        Standin refusals::what_another_call_has_done_is_done;
        Standin refusals::an_outage_during_a_pull_passes_and_a_verdict_stays;
        Standin lease::is_refused_to_a_second_holder_until_it_is_given_back_or_taken_over;
        Standin lease::has_one_holder_of_many_who_claim_at_once;
        Standin lease::is_renewed_many_times_and_after_a_prune;
        RealZeroClaw lease::keeps_a_copied_store_from_starting;
        Standin compose::its_filter_lets_through_what_is_asked_and_little_else;
        RealZeroClaw real::pairs_once_and_keeps_its_token;
        RealZeroClaw real::a_known_token_needs_no_pairing;
        RealZeroClaw real::answers_through_a_model_of_our_own;
        RealZeroClaw real::channels_run_in_its_daemon;
        RealZeroClaw plane::answers_and_takes_every_change;
        EachVersion data_path::messages_and_conversations;
        EachVersion data_path::openais_endpoints;
        EachVersion data_path::the_gateway_as_it_is;
        EachCommand matrix::comes_back_from_a_restart_by_the_api;
        EachCommand matrix::comes_back_from_a_restart_by_hand;
        EachCommand matrix::comes_back_from_a_kill_by_hand;
        EachCommand matrix::comes_back_from_the_death_of_its_first_process;
        EachCommand matrix::comes_back_from_the_death_of_its_gateway;
        EachCommand matrix::comes_back_from_too_much_memory;
        EachCommand matrix::comes_back_from_a_stop_by_hand;
        EachCommand matrix::comes_back_from_a_removal_by_hand;
        EachCommand matrix::comes_back_from_a_pause_by_hand;
        EachCommand matrix::comes_back_from_an_emptied_config;
        EachCommand matrix::comes_back_from_a_deleted_config;
        EachCommand matrix::comes_back_from_a_config_that_knows_no_token;
        EachCommand matrix::comes_back_from_lost_data;
        EachCommand matrix::comes_back_from_a_token_that_is_lost;
        EachCommand matrix::runs_on_while_the_service_restarts;
        OwnEngine matrix::comes_back_from_a_restart_of_the_engine;
        OwnEngine matrix::comes_back_from_a_crash_of_the_engine;
        OwnEngine matrix::runs_on_through_a_crash_of_an_engine_that_lets_it;
        Native versions::configuration_of_an_older_schema_is_replaced_and_memory_kept;
        Native versions::installation_from_before_the_profile_is_healed_at_its_first_start;
        Native versions::each_setting_reaches_the_model_or_the_gateway;
        Native versions::no_secret_is_on_the_volume_or_in_a_label;
        TwoVersions versions::a_moved_tag_changes_no_agent;
        TwoVersions upgrades::memory_goes_up_through_the_versions_and_down_again;
        Native upgrades::rehearsal_catches_bad_images_and_the_agent_notices_nothing;
        NativeOnOwnEngine upgrades::rehearsal_without_room_is_refused_and_the_agent_notices_nothing;
        Native upgrades::version_that_fails_in_place_is_taken_back_with_its_memory;
        TwoVersions upgrades::export_is_brought_in_by_another_version;
        RealZeroClaw plane::stops_by_itself_and_leaves_nothing;
        RealZeroClaw plane::twenty_at_once_are_all_running;
        RealZeroClaw plane::a_foreign_listener_costs_only_its_port;
        RealZeroClaw streams::a_log_is_followed_over_a_restart_each_line_once;
        RealZeroClaw streams::samples_come_as_a_stream;
        RealZeroClaw program::dies_in_any_step_of_a_deployment_and_leaves_one_agent_that_runs;
        RealZeroClaw program::is_cut_off_from_the_engine_and_loses_nobody;
        RealZeroClaw program::ten_fast_kills_leave_one_token_and_no_lockout;
        RealZeroClaw program::a_crash_loop_ends_in_error_with_reason_count_and_next_attempt;
    };

    let engine = world::engine_answers();
    let present: Vec<&str> = real::IMAGES.into_iter().filter(|image| engine && world::image_is_there(image)).collect();
    let has = |image: &str| present.contains(&image);
    let own_engine = own_engine::is_possible();
    let conformance = zeroone::testkit::conformance::behaviours! { [conformance_tests] };
    let trials = tests.into_iter().chain(conformance).flat_map(|(name, needs, test)| {
        let of_each = |channels: bool, there: &dyn Fn(&str) -> bool| -> Vec<Trial> {
            let command = if channels { " daemon" } else { "" };
            real::IMAGES
                .map(|image| {
                    let name = format!("{name} ({}{command})", image.trim_start_matches("zeroclaw:"));
                    Trial::test(name, move || run(test, image, channels)).with_ignored_flag(!there(image))
                })
                .into()
        };
        let once =
            |image, there: bool| vec![Trial::test(name, move || run(test, image, false)).with_ignored_flag(!there)];
        let of_both = |there: &dyn Fn(&str) -> bool| {
            let mut both = of_each(false, there);
            both.extend(of_each(true, there));
            both
        };
        match needs {
            Needs::Standin => once(real::IMAGE, engine),
            Needs::RealZeroClaw => once(real::IMAGE, has(real::IMAGE)),
            Needs::Native => once(real::NATIVE, has(real::NATIVE)),
            Needs::NativeOnOwnEngine => once(real::NATIVE, own_engine && has(real::NATIVE)),
            Needs::TwoVersions => once(real::IMAGE, has(real::IMAGE) && has(real::NATIVE)),
            Needs::EachVersion => of_each(false, &has),
            Needs::EachCommand => of_both(&has),
            Needs::OwnEngine => of_both(&|image| own_engine && has(image)),
        }
    });
    let mut arguments = Arguments::from_args();
    // They wait for the engine far more than they compute.
    arguments.test_threads.get_or_insert(SIDE_BY_SIDE);
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // A runner that gives each test a process of its own would have the image made for each of them.
    if engine && !arguments.list && std::env::var_os("NEXTEST").is_none() {
        world::ask_engine(async |docker| standin::remove_unused(docker).await);
    }
    conclusion.exit();
}

/// Runs a test in a world of its own and cleans up behind it, whatever came of it.
fn run(test: Test, zeroclaw: &'static str, channels: bool) -> Result<(), libtest_mimic::Failed> {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut world = tokio.block_on(World::new());
    (world.zeroclaw, world.channels) = (zeroclaw, channels);
    let world = Arc::new(world);
    let tested = std::panic::catch_unwind(AssertUnwindSafe(|| {
        tokio.block_on(async { tokio::time::timeout(TEST_DEADLINE, test(Arc::clone(&world))).await })
    }));
    // Whatever still runs here would go on to mend what is now removed.
    tokio.shutdown_timeout(SHUTDOWN_PATIENCE);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(world.clean_up());
    match tested {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("not done within {} s", TEST_DEADLINE.as_secs()).into()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
