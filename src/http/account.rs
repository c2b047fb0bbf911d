//! `/api/me`: what a user sees of their own account.

use axum::Json;
use axum::extract::State;

use super::guard::Admitted;
use super::problem::Problem;
use super::state::Api;
use super::users::User;

/// The caller: plan, limits and what is used of them.
#[utoipa::path(get, path = "/api/me", tag = "account", responses((status = 200, body = User)))]
pub async fn me(state: State<Api>, caller: Admitted) -> Result<Json<User>, Problem> {
    User::find(&state, caller.0.user).await.map(Json)
}
