//! `/api/admin/users`: who may have agents, and how many.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::JsonBody;
use super::guard::Admitted;
use super::params::{Params, page_of};
use super::problem::{Code, Problem};
use super::schema;
use super::state::Api;
use crate::control::{NewUser, UserChange};
use crate::domain::{Limits, Patch, Plan, Problems, Timestamp, UserId, UserStatus};
use crate::store::UserRecord;

/// A user: plan, what it gives, and how much of it is used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[schema(value_type = uuid::Uuid)]
    id: UserId,
    email: String,
    #[schema(schema_with = schema::plan)]
    plan: Plan,
    #[schema(value_type = PlanLimits)]
    limits: Limits,
    /// Whether the limits are others than the plan's own.
    custom_limits: bool,
    /// Agents that exist, whatever their status.
    used: u32,
    /// Whether there are more than the limits allow, after a change of the plan. They stay; no more can be added.
    over_limit: bool,
    #[schema(schema_with = schema::user_status)]
    status: UserStatus,
    /// Whether they may do everything once they have signed in.
    administrator: bool,
    /// Whether they can sign in by password.
    has_password: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPage {
    data: Vec<User>,
    next_cursor: Option<String>,
}

/// How many agents, and what each of them may take.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanLimits {
    /// `null`: as many as there are ports.
    #[schema(minimum = 1)]
    max_agents: Option<u32>,
    /// Cores of an agent.
    #[schema(minimum = 0.05, maximum = 64)]
    cpu: Option<f64>,
    /// MiB of an agent.
    #[schema(minimum = 16, maximum = 1048576)]
    memory_mb: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUserBody {
    #[schema(required = true, max_length = 254)]
    email: Option<String>,
    #[schema(required = true, schema_with = schema::plan)]
    plan: Option<String>,
    /// Of the plan enterprise only.
    limits: Option<PlanLimits>,
}

/// `limits: null` goes back to the plan's own; a change to another plan does so, too.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserPatchBody {
    #[serde(default)]
    #[schema(required = false, schema_with = schema::plan)]
    plan: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<PlanLimits>)]
    limits: Patch<PlanLimits>,
    /// `suspended`: keys are refused and agents are stopped, all data is kept. `active`: keys work again; agents stay stopped
    /// until they are started.
    #[serde(default)]
    #[schema(required = false, schema_with = schema::wanted_user_status)]
    status: Patch<String>,
    /// Whether they may do everything once they have signed in. Their keys stay as they are.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    administrator: Patch<bool>,
}

/// All users, oldest first.
#[utoipa::path(
    get, path = "/api/admin/users", tag = "admin",
    params(
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query),
        ("email" = Option<String>, Query, description = "Only the user with this address")
    ),
    responses((status = 200, body = UserPage))
)]
pub async fn list_users(state: State<Api>, mut params: Params) -> Result<Json<UserPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<UserId>());
    let email = params.text("email").map(str::to_lowercase);
    params.finish()?;
    let mut users = state.plane.accounts().users();
    users.retain(|user| email.as_ref().is_none_or(|email| user.email == *email));
    let (users, next_cursor) = page_of(users, after, limit, |user| user.id);
    let mut data = Vec::with_capacity(users.len());
    for user in users {
        data.push(User::of(&state, user).await?);
    }
    Ok(Json(UserPage { data, next_cursor }))
}

/// A new user.
#[utoipa::path(
    post, path = "/api/admin/users", tag = "admin",
    request_body = NewUserBody,
    responses((status = 201, body = User, headers(("Location" = String))))
)]
pub async fn create_user(state: State<Api>, body: JsonBody<NewUserBody>) -> Result<Response, Problem> {
    let new = body.0.check()?;
    let _turn = state.turn().await?;
    let user = state.plane.create_user(new).await?;
    let location = HeaderValue::try_from(format!("/api/admin/users/{}", user.id));
    let mut response = (StatusCode::CREATED, Json(User::of(&state, user).await?)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[utoipa::path(
    get, path = "/api/admin/users/{id}", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = User))
)]
pub async fn get_user(state: State<Api>, id: Path<String>) -> Result<Json<User>, Problem> {
    User::find(&state, parse(&id)?).await.map(Json)
}

/// Another plan, other limits, or another status. Agents beyond the limits stay; no more can be added.
#[utoipa::path(
    patch, path = "/api/admin/users/{id}", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    request_body = UserPatchBody,
    responses((status = 200, body = User))
)]
pub async fn patch_user(
    state: State<Api>,
    caller: Admitted,
    id: Path<String>,
    body: JsonBody<UserPatchBody>,
) -> Result<Json<User>, Problem> {
    let user = state.plane.accounts().user(parse(&id)?).ok_or_else(Problem::not_found)?;
    let change = body.0.check(&user)?;
    if change.status == Some(UserStatus::Suspended) && user.id == caller.0.user {
        return Err(Problem::new(Code::Forbidden, "Nobody can suspend themselves."));
    }
    let _turn = state.turn().await?;
    let user = state.plane.change_user(user.id, change).await?;
    User::of(&state, user).await.map(Json)
}

/// Removes a user with all keys; with `agents=delete` with all agents, which goes on in the background.
#[utoipa::path(
    delete, path = "/api/admin/users/{id}", tag = "admin",
    params(
        ("id" = uuid::Uuid, Path),
        ("agents" = Option<String>, Query, description = "`delete`: their agents, too; else a user with agents is kept")
    ),
    responses((status = 204), (status = 202, body = User, description = "Their agents are being deleted"))
)]
pub async fn delete_user(
    state: State<Api>,
    caller: Admitted,
    id: Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    let with_agents = params.one_of("agents", &["delete"]).is_some();
    params.finish()?;
    let user = parse(&id)?;
    if user == caller.0.user {
        return Err(Problem::new(Code::Forbidden, "Nobody can delete themselves."));
    }
    let _turn = state.turn().await?;
    if !with_agents || state.plane.used(user).await? == 0 {
        state.plane.remove_user(user).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let user = state.plane.remove_user_with_agents(user).await?;
    Ok((StatusCode::ACCEPTED, Json(User::of(&state, user).await?)).into_response())
}

pub fn parse(id: &str) -> Result<UserId, Problem> {
    id.parse().map_err(|_| Problem::not_found())
}

impl User {
    pub async fn find(api: &Api, id: UserId) -> Result<Self, Problem> {
        Self::of(api, api.plane.accounts().user(id).ok_or_else(Problem::not_found)?).await
    }

    pub async fn of(api: &Api, user: UserRecord) -> Result<Self, Problem> {
        let (limits, used) = (user.effective_limits(), api.plane.used(user.id).await?);
        Ok(Self {
            id: user.id,
            limits,
            custom_limits: user.limits.is_some(),
            used,
            over_limit: limits.max_agents.is_some_and(|max| used > max),
            administrator: user.administrator,
            has_password: user.password.is_some(),
            email: user.email,
            plan: user.plan,
            created_at: user.created_at,
            status: user.status,
        })
    }
}

impl NewUserBody {
    fn check(self) -> Result<NewUser, Problem> {
        let mut problems = Problems::default();
        let required = |value: Option<String>| value.ok_or_else(|| "is required".to_owned());
        let email = problems.keep("/email", required(self.email).and_then(|email| parse_email(&email)));
        let plan = problems.keep("/plan", required(self.plan).and_then(|plan| Plan::parse(&plan)));
        let limits = self.limits.and_then(|limits| limits.check(plan, &mut problems));
        match (email, plan) {
            (Some(email), Some(plan)) if problems.is_empty() => Ok(NewUser { email, plan, limits }),
            _ => Err(problems.into()),
        }
    }
}

/// The new value of something that cannot be removed.
fn kept<T>(sent: Patch<T>, pointer: &str, problems: &mut Problems) -> Option<T> {
    if matches!(sent, Patch::Clear) {
        problems.push(pointer, "cannot be removed");
    }
    sent.into_value()
}

impl UserPatchBody {
    fn check(self, user: &UserRecord) -> Result<UserChange, Problem> {
        let mut problems = Problems::default();
        let plan = kept(self.plan, "/plan", &mut problems);
        let plan = plan.and_then(|plan| problems.keep("/plan", Plan::parse(&plan)));
        let status = kept(self.status, "/status", &mut problems);
        let status = status.and_then(|status| problems.keep("/status", UserStatus::parse(&status)));
        let administrator = kept(self.administrator, "/administrator", &mut problems);
        let limits = match self.limits {
            Patch::Keep => None,
            Patch::Clear => Some(None),
            Patch::Set(limits) => Some(limits.check(Some(plan.unwrap_or(user.plan)), &mut problems)),
        };
        if problems.is_empty() {
            Ok(UserChange { plan, limits, status, administrator, identity: None })
        } else {
            Err(problems.into())
        }
    }
}

impl PlanLimits {
    /// What is not said is as the plan has it.
    fn check(self, plan: Option<Plan>, problems: &mut Problems) -> Option<Limits> {
        let plan = plan?;
        if plan != Plan::Enterprise {
            problems.push("/limits", "can be set for the plan enterprise only");
        }
        let own = plan.limits();
        let limits = Limits {
            max_agents: self.max_agents,
            cpu: self.cpu.unwrap_or(own.cpu),
            memory_mb: self.memory_mb.unwrap_or(own.memory_mb),
        };
        if limits.max_agents == Some(0) {
            problems.push("/limits/maxAgents", "must be 1 or more, or null");
        }
        if !(0.05..=64.0).contains(&limits.cpu) {
            problems.push("/limits/cpu", "must be 0.05 to 64");
        }
        if !(16..=1_048_576).contains(&limits.memory_mb) {
            problems.push("/limits/memoryMb", "must be 16 to 1048576");
        }
        Some(limits)
    }
}

/// An address as it is kept: in lower case, because mail servers do not tell the difference. Only mail that arrives
/// proves more than this.
pub fn parse_email(text: &str) -> Result<String, String> {
    let remedy = || "must be an e-mail address such as ada@example.org".to_owned();
    let (local, domain) = text.rsplit_once('@').ok_or_else(remedy)?;
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"@<>(),;:\"\\[]".contains(c))
    };
    let dots = |part: &str| part.split('.').all(|label| !label.is_empty());
    if text.len() <= 254 && plain(local) && plain(domain) && dots(local) && dots(domain) {
        Ok(text.to_lowercase())
    } else {
        Err(remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_care() {
        for text in ["a@b.c", "Ada.Lovelace+x@Example.org", "ä@bücher.example", "root@localhost"] {
            assert_eq!(parse_email(text), Ok(text.to_lowercase()));
        }
        for text in ["", "a", "@", "a@", "@b", "a b@c.d", "a@b..c", "<a@b.c>", "a@b.c\n", "a@b@c", &"a".repeat(255)] {
            assert!(parse_email(text).is_err(), "{text:?}");
        }
    }
}
