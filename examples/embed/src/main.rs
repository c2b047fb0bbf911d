//! A web service with users of its own. The agents' API is nested under `/agents`, behind the service's own sign-in, and a rule
//! of the service says who may have how many. Its figures and the agents' are in one registry.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::BodyExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tower::ServiceExt;
use zeroone::accounts::Caller;
use zeroone::control::{Agents, ControlPlane, CreationRule, Denied, NewUser};
use zeroone::domain::{Plan, Scopes};
use zeroone::http::{HttpOptions, Metrics, router};
use zeroone::runtime::process::{ProcessOptions, ProcessRuntime};
use zeroone::store::{Store, StoreOptions};
use zeroone::vault::{MasterKey, MasterKeySource, Vault};

/// What the service's own handlers share.
#[derive(Clone)]
struct Shop {
    plane: ControlPlane,
    members: Counter,
    agents: Metrics,
    registry: Arc<Registry>,
}

impl Shop {
    /// One registry has the service's own figures and the agents'.
    fn new(plane: ControlPlane) -> Self {
        let (members, agents, mut registry) = (Counter::default(), Metrics::default(), Registry::default());
        registry.register("shop_members", "Members who came", members.clone());
        agents.register(&mut registry);
        Self { plane, members, agents, registry: Arc::new(registry) }
    }
}

/// Who calls, by the service's own sign-in.
#[derive(Clone)]
struct Member(String);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let program = std::env::args_os().nth(1).ok_or("usage: embed PATH-OF-ZEROONE")?;
    let data = tempfile::tempdir()?;
    let store = Store::open(data.path().join("agents.redb"), StoreOptions::default())?;
    let vault = Vault::new(&MasterKey::load(MasterKeySource::FileOrNew(data.path().join("master.key")))?);
    let options = ProcessOptions::new(store.installation(), data.path().join("agents"), program);
    let plane = ControlPlane::builder(store, vault, Arc::new(ProcessRuntime::open(options)?))
        .creation_rule(CreationRule::new(|new| match new.agents_of_user {
            0 => Ok(()),
            _ => Err(Denied("Your membership includes one agent.".into())),
        }))
        .start()
        .await?;
    visit(app(plane.clone())).await?;
    // A real service would let its agents run on, `Agents::Leave`: the data of this one goes with it.
    let left = plane.shutdown(Agents::Stop { within: Duration::from_secs(30) }).await;
    expect("nothing is left running", left.is_empty())?;
    Ok(())
}

fn app(plane: ControlPlane) -> Router {
    let shop = Shop::new(plane);
    let options = HttpOptions::default().with_trust_callers(true).with_metrics(shop.agents.clone());
    let agents = router(shop.plane.clone(), options);
    Router::new()
        .route("/whoami", get(async |Extension(Member(name)): Extension<Member>| name))
        .nest("/agents", agents)
        .layer(from_fn_with_state(shop.clone(), sign_in))
        // Not behind the sign-in; a real service shows it on an address of its own.
        .route("/metrics", get(figures))
        .with_state(shop)
}

async fn figures(State(shop): State<Shop>) -> Response {
    shop.agents.refresh().await;
    let mut text = String::new();
    match encode(&mut text, &shop.registry) {
        Ok(()) => text.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The service's sign-in, as short as an example needs it. Members become users of the control plane when they first come.
async fn sign_in(State(shop): State<Shop>, mut request: Request, next: Next) -> Response {
    let cookie = request.headers().get(header::COOKIE).and_then(|cookie| cookie.to_str().ok());
    let Some(name) = cookie.and_then(|cookie| cookie.strip_prefix("member=")).map(str::to_owned) else {
        return (StatusCode::UNAUTHORIZED, "sign in first").into_response();
    };
    let email = format!("{name}@shop.example");
    let user = match shop.plane.accounts().user_by_email(&email) {
        Some(user) => user,
        None => match shop.plane.create_user(NewUser::new(email, Plan::Pro)).await {
            Ok(user) => {
                shop.members.inc();
                user
            }
            Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        },
    };
    request.extensions_mut().insert(Caller::new(user.id, Scopes::user()));
    request.extensions_mut().insert(Member(name));
    next.run(request).await
}

/// What two members do.
async fn visit(app: Router) -> Result<(), Box<dyn Error>> {
    let ask = async |member: &str, method: Method, path: &str, body: Option<Value>| {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        if !member.is_empty() {
            request = request.header(header::COOKIE, format!("member={member}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = app.clone().oneshot(request.body(body)?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let location = parts.headers.get(header::LOCATION).and_then(|at| at.to_str().ok()).map(str::to_owned);
        let json = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        Ok::<_, Box<dyn Error>>((parts.status.as_u16(), location, json))
    };
    let new = |name: &str| Some(json!({ "name": name, "provider": "ollama", "model": "llama3.2" }));

    let (status, ..) = ask("", Method::GET, "/agents/api/agents", None).await?;
    expect("a stranger is refused", status == 401)?;
    let (status, location, record) = ask("ada", Method::POST, "/agents/api/agents", new("Helper")).await?;
    let location = location.ok_or("a created agent has a place")?;
    expect("Ada gets an agent, and its place has the prefix", status == 202 && location.starts_with("/agents/api/"))?;
    let (status, _, waited) =
        ask("ada", Method::GET, &format!("{location}/wait?status=RUNNING&timeout=60"), None).await?;
    expect("it runs", status == 200 && waited["status"] == "RUNNING")?;
    let (status, _, problem) = ask("ada", Method::POST, "/agents/api/agents", new("Another")).await?;
    expect(
        "a second one is denied by the service's own rule",
        status == 403 && problem["detail"] == "Your membership includes one agent.",
    )?;
    let (status, ..) = ask("bob", Method::GET, &location, None).await?;
    expect("Bob does not see it", status == 404)?;
    let (status, _, text) = ask("", Method::GET, "/metrics", None).await?;
    let figures = text.as_str().unwrap_or_default();
    let there = |line: &str| figures.lines().any(|there| there == line);
    expect(
        "its figures are beside the agents'",
        status == 200 && there("shop_members_total 2") && there("zeroone_agents{status=\"RUNNING\"} 1"),
    )?;
    let (status, ..) = ask("ada", Method::DELETE, &location, None).await?;
    expect("Ada deletes it", status == 204)?;
    println!("the agent {} came and went", record["slug"]);
    Ok(())
}

fn expect(what: &str, holds: bool) -> Result<(), Box<dyn Error>> {
    println!("{} {what}", if holds { "yes:" } else { "NO: " });
    if holds { Ok(()) } else { Err(what.into()) }
}
