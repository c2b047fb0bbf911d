//! A WebSocket of our own to a gateway, for what its versions can do nowhere else.
//!
//! Opening one changes nothing at the gateway, so that it is tried again until the agent's wait is over. What is sent over
//! it may have been read.

use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::Proxy;
use super::forward::{ForwardError, Way};
use super::headers::{self, Client, Mount};
use super::limits::Place;
use crate::control::{AgentHandle, DeliveryError};
use crate::domain::UserId;
use crate::zeroclaw::client::expect::Sent;

/// Longest message that is read, in bytes: a whole answer of a model.
const MESSAGE: usize = 4 << 20;

/// JSON messages, one at a time.
pub struct Socket {
    stream: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    _place: Place,
}

impl Proxy {
    /// Opens a WebSocket with the agent's token, as soon as the agent runs.
    ///
    /// # Errors
    /// See [`ForwardError`]; nothing was done.
    pub async fn open_socket(
        &self,
        agent: &AgentHandle,
        user: UserId,
        path: &PathAndQuery,
        client: &Client,
        hold: std::time::Duration,
        deadline: Instant,
    ) -> Result<Socket, ForwardError> {
        let place = self.limits.enter(agent.id(), user)?;
        let way = Way { proxy: self, agent, deadline, hold };
        let mount = Mount::Path(String::new());
        let mut refused_in = None;
        loop {
            let (access, mut lease) = way.connection(refused_in).await?;
            let mut headers = headers::to_gateway(&HeaderMap::new(), client, &mount, lease.host(), &access.token);
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            if let Ok(key) = HeaderValue::try_from(generate_key()) {
                headers.insert(header::SEC_WEBSOCKET_KEY, key);
            }
            let (path, _) = headers::replace_socket_token(&mut headers, path, &access.token);
            let mut request = Request::new(());
            *request.method_mut() = Method::GET;
            *request.uri_mut() = Uri::from(path);
            *request.headers_mut() = headers;
            match way.send(&mut lease, &access, (request, Body::empty()), &mut None).await {
                Sent::Answered(response, _) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    let upgraded = hyper::upgrade::on(response).await;
                    let Ok(upgraded) = upgraded else {
                        way.pause().await?;
                        continue;
                    };
                    let config =
                        WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
                    let io = TokioIo::new(upgraded);
                    let stream = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
                    return Ok(Socket { stream, _place: place });
                }
                Sent::Answered(response, _) if response.status() == StatusCode::UNAUTHORIZED => {
                    if refused_in.is_some() || !agent.is_token_refused(&access).await {
                        return Err(DeliveryError::Unauthorized.into());
                    }
                    refused_in = Some(access.attempt);
                }
                Sent::Answered(response, _) => {
                    return Err(DeliveryError::Garbage(format!("{} instead of a WebSocket", response.status())).into());
                }
                Sent::Not(..) | Sent::Unknown(_) => way.pause().await?,
                Sent::Late => return Err(DeliveryError::TimedOut.into()),
            }
        }
    }
}

impl Socket {
    /// The next message that is JSON; others are passed over, pings are answered. `None` when the socket is closed or broken.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Text(text)) => {
                    if let Ok(value) = serde_json::from_str(&text) {
                        return Some(value);
                    }
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends a message. `None` when the socket is closed or broken: whether the message was read is unknown.
    pub async fn send(&mut self, message: &Value) -> Option<()> {
        self.stream.send(Message::Text(message.to_string().into())).await.ok()
    }
}
