//! `zeroone audit`: who did what.

use clap::Args;

use super::client::Client;
use super::outcome::Failure;
use super::output::Column;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Your own, and what others did to what is yours; else everybody's, which needs the admin scope.
    #[arg(long)]
    own: bool,
    /// Only what this user did, by id or e-mail address.
    #[arg(long, conflicts_with = "own")]
    user: Option<String>,
    /// Only what has this in its action, e.g. DELETE or /api/keys.
    #[arg(long)]
    action: Option<String>,
    /// Only what has this in its target, e.g. an agent's id.
    #[arg(long)]
    target: Option<String>,
    /// Only `done`, `refused` or `failed`.
    #[arg(long)]
    outcome: Option<String>,
    /// Only from then on, e.g. 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The newest so many, at most 200; all with `--all`.
    #[arg(long, default_value_t = 50, conflicts_with = "all")]
    limit: u8,
    #[arg(long)]
    all: bool,
}

const COLUMNS: [Column; 6] = [
    ("TIME", "time"),
    ("WHO", "email"),
    ("FROM", "address"),
    ("ACTION", "action"),
    ("TARGET", "target"),
    ("OUTCOME", "outcome"),
];

pub(super) async fn run(args: AuditArgs, client: &Client) -> Result<(), Failure> {
    let path = if args.own { "/api/audit" } else { "/api/admin/audit" };
    let wanted = [
        ("user", &args.user),
        ("action", &args.action),
        ("target", &args.target),
        ("outcome", &args.outcome),
        ("since", &args.since),
    ];
    let query = wanted.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
    let path = format!("{path}?{}", query.collect::<Vec<_>>().join("&"));
    if args.all {
        return client.output.many(&COLUMNS, &client.list(&path).await?);
    }
    let mut page = client.get(&format!("{path}&limit={}", args.limit)).await?;
    match page["data"].take() {
        serde_json::Value::Array(rows) => client.output.many(&COLUMNS, &rows),
        _ => Err(Failure::said("the service's answer is no list")),
    }
}

/// For a query, whatever it is.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
