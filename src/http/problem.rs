//! What the API says when it does not do what was asked: RFC 9457 `application/problem+json`, one table of codes.
//!
//! A handler answers with a [`Problem`]; the outermost layer ([`super::request`]) knows the request's id and path and
//! writes the body. A problem never repeats what was sent: it may have been a secret in the wrong place.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::Problems;
use crate::zeroclaw::client::ModelFailure;

pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($name:ident = $status:ident $code:literal $retryable:literal, $title:literal;)*) => {
        /// Every code there is, with its HTTP status and whether the same request may go better later.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

codes! {
    Malformed = BAD_REQUEST "malformed" false, "The request cannot be read";
    CellNeeded = BAD_REQUEST "cell-needed" false, "The request does not say which cell";
    Unauthorized = UNAUTHORIZED "unauthorized" false, "No valid credential";
    QuotaExceeded = FORBIDDEN "quota-exceeded" false, "The plan's quota is used up";
    Forbidden = FORBIDDEN "forbidden" false, "Not allowed";
    Suspended = FORBIDDEN "suspended" false, "The user is suspended";
    NotFound = NOT_FOUND "not-found" false, "Not found";
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed" false, "Method not allowed";
    Timeout = REQUEST_TIMEOUT "timeout" true, "Timed out";
    IllegalTransition = CONFLICT "illegal-transition" false, "Not possible in this status";
    ConfigurationManaged = CONFLICT "configuration-managed" false, "The configuration is managed by zeroone";
    NameTaken = CONFLICT "name-taken" false, "The name is taken";
    InProgress = CONFLICT "in-progress" true, "A request with this key is in progress";
    InstallationInUse = CONFLICT "installation-in-use" false, "The installation is in use";
    InUse = CONFLICT "in-use" false, "Still in use";
    LastAdministrator = CONFLICT "last-administrator" false, "The last administrator";
    AnswerNotKept = CONFLICT "answer-not-kept" false, "Done already, but the answer was not kept";
    Conflict = CONFLICT "conflict" true, "In conflict with its present state";
    PreconditionFailed = PRECONDITION_FAILED "precondition-failed" false, "Changed since it was read";
    TooLarge = PAYLOAD_TOO_LARGE "too-large" false, "Too large";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" false, "Not a kind of body that is read here";
    Invalid = UNPROCESSABLE_ENTITY "invalid" false, "Not valid";
    RateLimited = TOO_MANY_REQUESTS "rate-limited" true, "Too many requests";
    TooManyStreams = TOO_MANY_REQUESTS "too-many-streams" true, "Too many open streams to the agent";
    TooManyStreamsOfUser = TOO_MANY_REQUESTS "too-many-streams-of-user" true, "Too many open streams of the user";
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" false, "Headers too large";
    Internal = INTERNAL_SERVER_ERROR "internal" false, "The service failed";
    NotSupported = NOT_IMPLEMENTED "not-supported" false, "The agent's version cannot do this";
    ModelError = BAD_GATEWAY "model-error" true, "The agent's model failed";
    IdentityProvider = BAD_GATEWAY "identity-provider" true, "The identity provider failed";
    GatewayError = BAD_GATEWAY "gateway-error" true, "The agent failed";
    CellFailed = BAD_GATEWAY "cell-failed" false, "The cell gave no answer";
    DeliveryUnknown = BAD_GATEWAY "delivery-unknown" false, "Whether the message arrived is unknown";
    AgentNotReady = SERVICE_UNAVAILABLE "agent-not-ready" true, "The agent is not ready";
    CellUnavailable = SERVICE_UNAVAILABLE "cell-unavailable" true, "The cell does not answer";
    RuntimeUnavailable = SERVICE_UNAVAILABLE "runtime-unavailable" true, "The container engine does not answer";
    StoreUnavailable = SERVICE_UNAVAILABLE "store-unavailable" true, "The store does not answer";
    StreamClosed = SERVICE_UNAVAILABLE "stream-closed" true, "The stream was closed";
    OutcomeUnknown = SERVICE_UNAVAILABLE "outcome-unknown" true, "Whether it was done is unknown";
    NoCapacity = SERVICE_UNAVAILABLE "no-capacity" true, "No capacity";
    Overloaded = SERVICE_UNAVAILABLE "overloaded" true, "Overloaded";
    GatewayTimeout = GATEWAY_TIMEOUT "gateway-timeout" true, "The agent did not answer in time";
    StreamIdle = GATEWAY_TIMEOUT "stream-idle" true, "The stream was silent for too long";
}

/// Why a model failed, as far as its gateway tells.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProblem {
    /// What the model's server answered.
    pub status: Option<u16>,
    pub code: Option<String>,
    pub message: String,
    /// Seconds until a retry makes sense.
    pub retry_after: Option<u64>,
}

/// One thing that is wrong with a request: where it is, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) into the request body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of a query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<&'static str>,
    pub detail: String,
}

/// An error answer in the making.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    faults: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where the model is what failed.
    model: Option<Box<ModelFailure>>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let (faults, headers) = (Vec::new(), Vec::new());
        Self { code, detail: detail.into(), faults, members: Map::new(), headers, model: None }
    }

    /// 422 with everything that is wrong with a body.
    pub fn invalid(faults: Vec<FieldError>) -> Self {
        let detail = match faults.as_slice() {
            [fault] => format!("{}: {}", fault.place(), fault.detail),
            faults => format!("{} fields are not valid; see errors", faults.len()),
        };
        Self { faults, ..Self::new(Code::Invalid, detail) }
    }

    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "Not found, or not yours.")
    }

    /// Another member of the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn with_error(mut self, fault: FieldError) -> Self {
        self.faults.push(fault);
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The model is what failed.
    #[must_use]
    pub fn of_model(self, failure: &ModelFailure) -> Self {
        Self { model: Some(Box::new(failure.clone())), ..self }
    }

    /// Why the model failed, where that is the reason.
    pub fn model_failure(&self) -> Option<&ModelFailure> {
        self.model.as_deref()
    }

    /// A sentence more about what led to it.
    #[must_use]
    pub fn because(mut self, why: &str) -> Self {
        self.detail.push(' ');
        self.detail.push_str(why);
        self
    }

    #[must_use]
    pub fn retry_after(self, secs: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(secs))
    }

    /// The code and the sentence, for the log.
    pub fn cause(&self) -> (&'static str, &str) {
        (self.code.as_str(), &self.detail)
    }

    pub const fn code(&self) -> Code {
        self.code
    }

    /// The body in OpenAI's form, for the endpoints below `/v1`.
    pub fn openai_body(&self) -> Value {
        let kind = match self.code.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let code = self.members.get("openaiCode").cloned().unwrap_or_else(|| match self.code {
            Code::Unauthorized => "invalid_api_key".into(),
            code => code.as_str().replace('-', "_").into(),
        });
        let param = self.members.get("param").cloned().unwrap_or_default();
        json!({"error": {"message": self.detail, "type": kind, "param": param, "code": code}})
    }

    /// The body, with what only the request knows.
    pub fn body(&self, instance: &str, request_id: &str) -> Value {
        let mut body = json!({
            "type": format!("/problems/{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code.as_str(),
            "requestId": request_id,
            "retryable": self.code.retryable(),
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.members.clone());
            if !self.faults.is_empty() {
                body.insert("errors".into(), json!(self.faults));
            }
        }
        body
    }
}

impl FieldError {
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    pub fn parameter(name: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(name), detail: detail.into() }
    }

    fn place(&self) -> &str {
        match (&self.pointer, self.parameter) {
            (Some(pointer), _) if pointer.is_empty() => "the body",
            (Some(pointer), _) => pointer,
            (None, Some(parameter)) => parameter,
            (None, None) => "the request",
        }
    }
}

impl From<crate::domain::FieldError> for FieldError {
    fn from(error: crate::domain::FieldError) -> Self {
        Self::at(error.pointer, error.detail)
    }
}

impl From<Problems> for Problem {
    fn from(problems: Problems) -> Self {
        Self::invalid(problems.into_vec().into_iter().map(FieldError::from).collect())
    }
}

impl IntoResponse for Problem {
    /// Status and headers; the body comes from the layer that knows the request.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}
