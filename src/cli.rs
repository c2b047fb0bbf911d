//! The command line: the service itself, its demonstration, and verbs that are thin over its HTTP API.
//!
//! ```text
//! serve, demo ──► service ──► engine (which runtime), first_start (the admin), then http
//! route ──► crate::router, before several services
//! agent, user, key ──► client ──► the API of a running service
//! login, context ──► contexts, which client looks up
//! chaos ──► client, and hands on the instances beside it          recover ──► engine, and a new store
//! config ──► settings          gateway ──► crate::gateway, a program of its own
//! ```
//! Nothing here reads the environment: `main` hands it in.

mod account;
mod admin_link;
mod agent;
mod audit;
mod backup;
mod carry;
mod chaos;
mod client;
mod confirm;
mod contexts;
mod demo;
mod descriptors;
mod doctor;
mod engine;
mod first_start;
mod login;
mod manual;
mod message;
mod model_key;
mod orphan;
mod outcome;
mod output;
mod password;
mod private_file;
mod recover;
mod route;
mod serve;
mod service;
mod settings;
mod signals;
mod stage;
mod stand_in;
mod supervised;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::client::{Client, ClientArgs, variable};
use self::outcome::Failure;

/// The environment as `main` found it.
pub type Environment = Vec<(String, String)>;

/// ZeroClaw as a service: every AI agent a supervised actor that owns one ZeroClaw instance.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 not reachable.\n\
    The verbs agent, user and key talk to ZEROONE_URL (http://127.0.0.1:3001) with ZEROONE_API_KEY, or to the service and \
    with the key of `zeroone login`, or with the key in ./zeroone-data/admin.key where there is one.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the service.
    Serve(serve::ServeArgs),
    /// Send requests to the one of several services, the cells, that each belongs to. They need no more than this: keys, ids and
    /// host names tell the cell.
    Route(route::RouteArgs),
    /// Make a lost store anew from what the runtime still has.
    Recover(recover::RecoverArgs),
    /// Do faults to agents of a running service, and report how each of them recovered.
    Chaos(chaos::ChaosArgs),
    /// See the whole job once, with nothing installed: service, agent, model, answer.
    Demo(demo::DemoArgs),
    /// Agents: create, message, watch, stop, delete.
    #[command(subcommand)]
    Agent(agent::AgentVerb),
    /// Put another version in place of what agents run, in waves; a version that fails is taken back.
    Upgrade(agent::UpgradeArgs),
    /// Users, for those with the admin scope.
    #[command(subcommand)]
    User(account::UserVerb),
    /// API keys.
    #[command(subcommand)]
    Key(account::KeyVerb),
    /// Print a one-time link that signs an administrator in, for whoever has the data folder and has lost everything else.
    AdminLink(admin_link::AdminLinkArgs),
    /// What the runtime has of this installation and no agent claims, for those with the admin scope.
    #[command(subcommand)]
    Orphan(orphan::OrphanVerb),
    /// Who did what, newest first.
    Audit(audit::AuditArgs),
    /// Make a new master key and seal everything with it, while the service runs.
    RotateKey,
    /// Copy everything that a running service keeps into a file: all but the master key.
    Backup(backup::BackupArgs),
    /// Put a backup into an empty data folder.
    Restore(backup::RestoreArgs),
    /// Check everything that a service needs: configuration, data folder, keys, disk, limits, ports, engine, the service
    /// itself, and the model addresses of its agents.
    Doctor(doctor::DoctorArgs),
    /// The configuration: check it, or show what is in force.
    #[command(subcommand)]
    Config(settings::ConfigVerb),
    /// Keep a service's URL and API key, so that the other verbs need neither. The key comes from --key-file,
    /// ZEROONE_API_KEY, a pipe, or is asked for.
    Login(login::LoginArgs),
    /// Forget a login.
    Logout {
        /// Which; the current one by default.
        name: Option<String>,
    },
    /// The services that you have logged in to.
    #[command(subcommand)]
    Context(login::ContextVerb),
    /// Print the version of this program and of the service.
    Version,
    /// Print the OpenAPI document.
    Openapi,
    /// Print the completion script of a shell, e.g. for bash: source <(zeroone completion bash)
    Completion { shell: clap_complete::Shell },
    /// Print the manual page, or write those of all verbs into a folder.
    Man {
        #[arg(long, value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },
    /// Put an agent's files into its volume; the first container of each agent's Pod runs it.
    #[command(hide = true)]
    Stage(stage::StageArgs),
    /// Give out the files of an agent's volume, and take files for it; a Pod of its own runs it for a while.
    #[command(hide = true)]
    Carry(carry::CarryArgs),
    /// Run the embedded agent gateway alone; HOME says where its .zeroclaw/config.toml is. `gateway pair` prints a code
    /// that pairs one more device with a running one, `gateway status` is its health check. `daemon` and `channel start`
    /// run the gateway as well, as in ZeroClaw's compose files.
    #[command(visible_alias = "daemon")]
    Gateway {
        /// `pair` or `status`, of a gateway that runs on this machine; nothing to run one.
        action: Option<String>,
        /// Port to listen on; 42617 unless configured otherwise.
        #[arg(long, short)]
        port: Option<u16>,
        /// Address to listen on.
        #[arg(long)]
        host: Option<String>,
        /// Folder of config.toml.
        #[arg(long)]
        config_dir: Option<String>,
    },
}

/// Runs a command line and says how it went.
pub fn run(arguments: Vec<OsString>, environment: Environment) -> ExitCode {
    // Before anything else: an agent should cost next to nothing, not even the parser of the other verbs.
    if let Some((action, arguments)) = gateway_command(&arguments) {
        return outcome::exit_code(gateway(action, arguments), false);
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let json = cli.client.is_json();
    outcome::exit_code(dispatch(cli, &environment), json)
}

fn dispatch(cli: Cli, environment: &Environment) -> Result<(), Failure> {
    if let (true, Some(flag)) = (cli.verb.is_alone(), cli.client.meaningless()) {
        return Err(Failure::Usage(format!("{flag} means nothing to this verb: it talks to no service")));
    }
    let client = |environment| Client::new(&cli.client, environment);
    // Verbs that know a data folder take its key only where there is no other.
    let beside = |environment| Client::new(&cli.client.without_data(), environment);
    match cli.verb {
        Verb::Serve(args) => serve::run(args, environment),
        Verb::Route(args) => route::run(&args, environment),
        Verb::Chaos(args) => chaos::run(args, environment, beside(environment)?),
        Verb::Recover(args) => recover::run(args, environment, cli.client.output(environment)),
        Verb::Demo(args) => demo::run(args, environment),
        Verb::Agent(verb) => one_thread(agent::run(verb, &client(environment)?, environment)),
        Verb::Upgrade(args) => one_thread(agent::upgrade(args, &client(environment)?)),
        Verb::User(verb) => one_thread(account::run_user(verb, &client(environment)?)),
        Verb::Key(verb) => one_thread(account::run_key(verb, &client(environment)?)),
        Verb::AdminLink(args) => one_thread(admin_link::run(args, environment, cli.client.output(environment))),
        Verb::Orphan(verb) => one_thread(orphan::run(verb, &client(environment)?)),
        Verb::Audit(args) => one_thread(audit::run(args, &client(environment)?)),
        Verb::RotateKey => one_thread(account::rotate_key(&client(environment)?)),
        Verb::Backup(args) => one_thread(backup::backup(args, &client(environment)?)),
        Verb::Restore(args) => backup::restore(&args, environment, cli.client.output(environment)),
        Verb::Doctor(args) => one_thread(doctor::run(&args, beside(environment)?, environment)),
        Verb::Config(verb) => settings::run(verb, environment),
        Verb::Login(args) => {
            let client = Client::new(&cli.client.at_url(args.service.clone()), environment)?;
            one_thread(login::login(args, &client, environment))
        }
        Verb::Logout { name } => login::logout(name.as_deref(), cli.client.output(environment), environment),
        Verb::Context(verb) => login::context(verb, cli.client.output(environment), environment),
        Verb::Version => one_thread(version::run(&client(environment)?)),
        Verb::Openapi => output::json(&crate::http::openapi()),
        Verb::Completion { shell } => manual::completion(shell),
        Verb::Stage(args) => stage::run(&args),
        Verb::Carry(args) => one_thread(carry::run(&args)),
        Verb::Man { dir } => manual::pages(dir.as_deref()),
        // Where it comes first it was taken before.
        Verb::Gateway { .. } => Err(Failure::Usage("the gateway's own verbs take no flags before them".into())),
    }
}

impl Verb {
    /// Whether it talks to no service: where one is and how its answers are printed means nothing to it.
    const fn is_alone(&self) -> bool {
        matches!(
            self,
            Self::Serve(_)
                | Self::Route(_)
                | Self::Demo(_)
                | Self::Config(_)
                | Self::Openapi
                | Self::Completion { .. }
                | Self::Man { .. }
                | Self::Stage(_)
                | Self::Carry(_)
        )
    }
}

/// A client's verb waits for one answer at a time.
fn one_thread<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// What is wanted of the embedded gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatewayAction {
    Run,
    /// Run what a compose file for ZeroClaw describes.
    RunAsZeroclaw,
    /// A code for one more device.
    Pair,
    /// The health check of a container.
    Status,
}

/// The gateway's own command lines, in zeroone's words and in ZeroClaw's, unless they ask for help.
fn gateway_command(arguments: &[OsString]) -> Option<(GatewayAction, Vec<String>)> {
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    let [_, words @ ..] = arguments else { return None };
    let words: Vec<String> = words.iter().map(text).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return None;
    }
    let first: Vec<&str> = words.iter().take(2).map(String::as_str).collect();
    let (action, taken) = match first.as_slice() {
        ["gateway", "pair" | "get-paircode", ..] => (GatewayAction::Pair, 2),
        ["gateway", "status", ..] => (GatewayAction::Status, 2),
        ["gateway", "start", ..] => (GatewayAction::Run, 2),
        ["gateway", ..] => (GatewayAction::Run, 1),
        ["channel", "start", ..] => (GatewayAction::RunAsZeroclaw, 2),
        ["daemon", ..] => (GatewayAction::RunAsZeroclaw, 1),
        ["status", ..] => (GatewayAction::Status, 1),
        _ => return None,
    };
    Some((action, without_meaningless(action, words.into_iter().skip(taken))))
}

/// The words without the flags of ZeroClaw's that say what is so anyway.
fn without_meaningless(action: GatewayAction, words: impl Iterator<Item = String>) -> Vec<String> {
    let (mut rest, mut words) = (Vec::new(), words.peekable());
    while let Some(word) = words.next() {
        match (action, word.as_str()) {
            (GatewayAction::Pair, "--new") => {}
            (GatewayAction::Status, "--format") => drop(words.next_if(|value| !value.starts_with('-'))),
            (GatewayAction::Status, format) if format.starts_with("--format=") => {}
            _ => rest.push(word),
        }
    }
    rest
}

fn gateway(action: GatewayAction, arguments: Vec<String>) -> Result<(), Failure> {
    let options = crate::gateway::Options::from_env(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    match action {
        GatewayAction::Pair => {
            let code = crate::gateway::new_code(&options).map_err(Failure::of)?;
            println!("Pairing code: {code}\nSend within ten minutes: POST /pair with header X-Pairing-Code: {code}");
            return Ok(());
        }
        GatewayAction::Status => {
            let address = crate::gateway::check_health(&options).map_err(Failure::of)?;
            println!("the gateway at {address} is healthy");
            return Ok(());
        }
        // A compose file mounts its settings or sets variables; with neither, the verb was a guess.
        GatewayAction::RunAsZeroclaw if !options.is_set_up() => {
            return Err(Failure::Usage(format!(
                "there is no {} and no variable that names a provider, so there is nothing to run; `zeroone gateway` starts \
                 a gateway without settings",
                options.config_path().display()
            )));
        }
        GatewayAction::Run | GatewayAction::RunAsZeroclaw => {}
    }
    let runtime = crate::gateway::runtime()?;
    let ended = runtime.block_on(crate::gateway::run(options)).map_err(Failure::of);
    // Everything that must be saved was waited for; a disk that hangs must not keep the program from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Option<(GatewayAction, String)> {
        let words: Vec<OsString> =
            std::iter::once("zeroone").chain(line.split_whitespace()).map(OsString::from).collect();
        gateway_command(&words).map(|(action, rest)| (action, rest.join(" ")))
    }

    #[test]
    fn the_verbs_of_zeroclaws_compose_files_lead_to_the_gateway() {
        for (line, action, rest) in [
            ("gateway --port 1", GatewayAction::Run, "--port 1"),
            ("daemon", GatewayAction::RunAsZeroclaw, ""),
            ("channel start", GatewayAction::RunAsZeroclaw, ""),
            ("gateway start --host ::", GatewayAction::Run, "--host ::"),
            ("gateway pair --port 1", GatewayAction::Pair, "--port 1"),
            ("gateway get-paircode --new", GatewayAction::Pair, ""),
            ("status --format=exit-code", GatewayAction::Status, ""),
            ("status --format exit-code", GatewayAction::Status, ""),
            ("gateway status --format exit-code --port 1", GatewayAction::Status, "--port 1"),
            ("status --format --port=1", GatewayAction::Status, "--port=1"),
            ("status --formatted", GatewayAction::Status, "--formatted"),
            ("gateway status", GatewayAction::Status, ""),
        ] {
            assert_eq!(command(line), Some((action, rest.into())), "{line}");
        }
        for line in ["serve", "channel", "gateway --help", "agent list", ""] {
            assert_eq!(command(line), None, "{line}");
        }
    }
}
