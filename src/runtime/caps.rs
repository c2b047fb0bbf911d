//! What an engine can promise.

use std::collections::BTreeMap;

use serde::Serialize;

/// What an engine can promise, shown to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Caps {
    /// `docker`, `kubernetes`, `process`, or a test's own.
    pub name: &'static str,
    /// Each instance takes a port of the host. Where not, there may be more agents than ports.
    pub host_ports: bool,
    /// [`InstanceSpec::cpu`](super::InstanceSpec::cpu) is a limit that holds, not a wish.
    pub enforces_cpu: bool,
    /// [`InstanceSpec::memory_mb`](super::InstanceSpec::memory_mb) is a limit that holds, not a wish.
    pub enforces_memory: bool,
    /// What keeps instances from each other's network.
    pub isolates_network: NetworkIsolation,
    /// An instance that is held without having ended shows as [`InstanceState::Paused`](super::InstanceState::Paused).
    pub sees_pauses: bool,
    /// What is written to stdout and to stderr is told apart.
    pub splits_output: bool,
    /// Output and exit code of a run are there after its end, until the instance is removed.
    pub keeps_ended_runs: bool,
    /// Lines of output have times as exact as those of runs. Where they are whole seconds, a query by time or by run may give
    /// all lines of the second in which it begins, also those of a run before.
    pub exact_log_times: bool,
    /// A kill does not wait for a stop that gives the instance its grace.
    pub kills_while_stopping: bool,
    /// Files that are staged are in the data when the next run begins, not before.
    pub stages_at_start: bool,
    /// It can tell what an instance uses.
    pub measures_usage: bool,
    /// Data can be read and written beside the instance, see [`ContainerRuntime::read_data`](super::ContainerRuntime::read_data).
    pub carries_data: bool,
    /// What keeps an instance from the rest of the machine, by name.
    pub walls: Vec<&'static str>,
    /// Walls that the engine knows and that do not stand here, each with the reason.
    pub missing_walls: BTreeMap<&'static str, String>,
    /// The host name or address by which an instance reaches this machine, if it does.
    pub host: Option<&'static str>,
}

impl Caps {
    /// An engine that promises nothing: each instance takes a port of the host, and neither limits nor walls hold.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            host_ports: true,
            enforces_cpu: false,
            enforces_memory: false,
            isolates_network: NetworkIsolation::None,
            sees_pauses: false,
            splits_output: false,
            keeps_ended_runs: false,
            exact_log_times: false,
            kills_while_stopping: false,
            stages_at_start: false,
            measures_usage: false,
            carries_data: false,
            walls: Vec::new(),
            missing_walls: BTreeMap::new(),
            host: None,
        }
    }

    setters! {
        with_name(name: &'static str);
        with_host_ports(host_ports: bool);
        with_enforces_cpu(enforces_cpu: bool);
        with_enforces_memory(enforces_memory: bool);
        with_isolates_network(isolates_network: NetworkIsolation);
        with_sees_pauses(sees_pauses: bool);
        with_splits_output(splits_output: bool);
        with_keeps_ended_runs(keeps_ended_runs: bool);
        with_exact_log_times(exact_log_times: bool);
        with_kills_while_stopping(kills_while_stopping: bool);
        with_stages_at_start(stages_at_start: bool);
        with_measures_usage(measures_usage: bool);
        with_carries_data(carries_data: bool);
        with_walls(walls: Vec<&'static str>);
        with_missing_walls(missing_walls: BTreeMap<&'static str, String>);
        with_host(host: impl Into<Option<&'static str>> => host.into());
    }
}

/// What keeps instances from each other's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkIsolation {
    /// Each has a network of its own.
    Own,
    /// A policy says so, which somebody else enforces or not.
    ByPolicy,
    /// Nothing does.
    None,
}
