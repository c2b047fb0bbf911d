//! Schemas of domain types for the OpenAPI document, made from the types' own lists.

use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::domain::{Plan, Status, UserStatus};
use crate::incident::{Kind, State};

pub fn status() -> Object {
    one_of(Status::ALL.iter().map(|status| status.as_str()))
}

pub fn plan() -> Object {
    one_of([Plan::Free, Plan::Pro, Plan::Enterprise].map(Plan::as_str))
}

pub fn user_status() -> Object {
    one_of([UserStatus::Active, UserStatus::Suspended, UserStatus::Deleting].map(UserStatus::as_str))
}

pub fn wanted_user_status() -> Object {
    one_of([UserStatus::Active, UserStatus::Suspended].map(UserStatus::as_str))
}

pub fn log_stream() -> Object {
    one_of(["stdout", "stderr"])
}

pub fn incident_kind() -> Object {
    one_of(Kind::ALL.iter().map(|kind| kind.as_str()))
}

pub fn incident_state() -> Object {
    one_of([State::Open, State::Recovered, State::Abandoned].map(State::as_str))
}

fn one_of(values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(values)).build()
}

/// Shapes that are only documented: what serves them is the domain's own type.
pub mod shown {
    use utoipa::ToSchema;

    /// What an agent uses now.
    #[derive(ToSchema)]
    #[schema(rename_all = "camelCase")]
    #[expect(dead_code, reason = "documentation")]
    pub struct Usage {
        /// Percent of one core.
        pub cpu_percent: f64,
        pub memory_mb: f64,
        pub memory_limit_mb: Option<f64>,
        pub pids: Option<u64>,
        pub network_rx_bytes: Option<u64>,
        pub network_tx_bytes: Option<u64>,
        #[schema(format = DateTime)]
        pub at: String,
    }

    /// RFC 9457 problem details.
    #[derive(ToSchema)]
    #[schema(rename_all = "camelCase")]
    #[expect(dead_code, reason = "documentation")]
    pub struct Problem {
        /// `/problems/<code>`.
        pub r#type: String,
        pub title: String,
        pub status: u16,
        pub detail: String,
        /// The path of the request.
        pub instance: String,
        #[schema(schema_with = code)]
        pub code: String,
        pub request_id: String,
        /// Whether the same request may go better later.
        pub retryable: bool,
        /// What is wrong with the request, of `invalid`.
        #[schema(required = false)]
        pub errors: Vec<super::super::problem::FieldError>,
        /// The plan's limit, of `quota-exceeded`.
        #[schema(required = false)]
        pub limit: u32,
        /// How many there are, of `quota-exceeded`.
        #[schema(required = false)]
        pub used: u32,
        /// The agent's status, of `illegal-transition` and `agent-not-ready`.
        #[schema(required = false, schema_with = super::status)]
        pub agent_status: String,
        /// The commands that are possible, of `illegal-transition`.
        #[schema(required = false)]
        pub allowed: Vec<String>,
        /// Why the model failed, of `model-error`: `status`, `code`, `message`, `retryAfter`.
        #[schema(required = false)]
        pub model: super::super::problem::ModelProblem,
        /// What the agent's gateway answered, of `gateway-error`.
        #[schema(required = false)]
        pub gateway_status: u16,
    }

    fn code() -> super::Object {
        use crate::http::problem::Code;
        super::one_of(Code::ALL.iter().map(|code| code.as_str()))
    }
}
