//! What administrators hand to people so that they get in: invitations, and one-time links.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{EmptyBody, JsonBody};
use super::idempotency::HoldsSecret;
use super::params::{Params, future, page_of};
use super::problem::Problem;
use super::schema;
use super::state::Api;
use super::users::{parse, parse_email};
use crate::domain::{Plan, Problems, TicketId, Timestamp, later};
use crate::store::{TicketKind, TicketRecord};

/// How long an invitation is good for where nothing else is said.
const INVITATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a link is: it is handed over and used.
const LINK: Duration = Duration::from_secs(24 * 60 * 60);

/// An invitation, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    #[schema(value_type = uuid::Uuid)]
    id: TicketId,
    /// The only address that may use it; null: any.
    email: Option<String>,
    #[schema(schema_with = schema::plan)]
    plan: Plan,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// A new invitation: the only time that its secret is shown.
#[derive(Serialize, ToSchema)]
pub struct CreatedInvitation {
    /// `zt_…`, to be sent to the person.
    invitation: String,
    #[serde(flatten)]
    record: Invitation,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvitationPage {
    data: Vec<Invitation>,
    next_cursor: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewInvitationBody {
    /// The only address that may use it; any, by default.
    #[schema(max_length = 254)]
    email: Option<String>,
    /// `free`, by default.
    #[schema(required = false, schema_with = schema::plan)]
    plan: Option<String>,
    /// In a week, by default.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

/// A link that signs a user in once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignInLink {
    /// `zt_…`, for `POST /api/auth/link`.
    token: String,
    /// Where a browser takes it, below the service's address.
    path: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// A link that signs a user in once within a day, for one who has lost their password.
#[utoipa::path(
    post, path = "/api/admin/users/{id}/sign-in-link", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 201, body = SignInLink))
)]
pub async fn sign_in_link(state: State<Api>, id: Path<String>, _: EmptyBody) -> Result<Response, Problem> {
    let (ticket, secret) = state.plane.sign_in_link(parse(&id)?, LINK).await?;
    let path = format!("/sign-in#link={}", secret.expose());
    Ok(secretly(SignInLink { token: secret.expose().clone(), path, expires_at: ticket.expires_at }))
}

/// Open invitations, oldest first.
#[utoipa::path(
    get, path = "/api/admin/invitations", tag = "admin",
    params(("limit" = Option<u8>, Query, minimum = 1, maximum = 200), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = InvitationPage))
)]
pub async fn list_invitations(state: State<Api>, mut params: Params) -> Result<Json<InvitationPage>, Problem> {
    let (limit, after) = (params.limit(), params.cursor::<TicketId>());
    params.finish()?;
    let open = state.plane.accounts().invitations(state.plane.now());
    let (open, next_cursor) = page_of(open, after, limit, |ticket| ticket.id);
    Ok(Json(InvitationPage { data: open.into_iter().filter_map(Invitation::of).collect(), next_cursor }))
}

/// Invites somebody to make an account, where registration is `invite` or `open`.
#[utoipa::path(
    post, path = "/api/admin/invitations", tag = "admin",
    request_body = NewInvitationBody,
    responses((status = 201, body = CreatedInvitation))
)]
pub async fn create_invitation(state: State<Api>, body: JsonBody<NewInvitationBody>) -> Result<Response, Problem> {
    let now = state.plane.now();
    let mut problems = Problems::default();
    let email = body.0.email.and_then(|email| problems.keep("/email", parse_email(&email)));
    let plan = body.0.plan.and_then(|plan| problems.keep("/plan", Plan::parse(&plan)));
    let expires_at = body.0.expires_at.and_then(|time| problems.keep("/expiresAt", future(&time, now)));
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let expires_at = expires_at.unwrap_or_else(|| later(now, INVITATION));
    let (ticket, secret) = state.plane.invite(email, plan.unwrap_or(Plan::Free), expires_at).await?;
    let record = Invitation::of(ticket).ok_or_else(Problem::not_found)?;
    Ok(secretly(CreatedInvitation { invitation: secret.expose().clone(), record }))
}

/// Withdraws an invitation.
#[utoipa::path(
    delete, path = "/api/admin/invitations/{id}", tag = "admin",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 204))
)]
pub async fn delete_invitation(state: State<Api>, id: Path<String>) -> Result<StatusCode, Problem> {
    state.plane.withdraw_invitation(id.parse().map_err(|_| Problem::not_found())?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 201, and not kept for a retry.
fn secretly(body: impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    response.extensions_mut().insert(HoldsSecret);
    response
}

impl Invitation {
    fn of(ticket: TicketRecord) -> Option<Self> {
        let TicketRecord { id, opens, created_at, expires_at, hash: _ } = ticket;
        match opens {
            TicketKind::Invitation { email, plan } => Some(Self { id, email, plan, created_at, expires_at }),
            TicketKind::SignIn { .. } => None,
        }
    }
}
