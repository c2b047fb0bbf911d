//! A WebSocket to a platform, over the HTTP client that everything else uses: its TLS roots, its proxy.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use crate::gateway::outbound::{HttpClients, OutboundError};

/// Longest message that is read, in bytes.
const MESSAGE: usize = 4 << 20;
/// Both platforms send something at least twice a minute, if only a ping. A socket that is silent longer is dead.
const SILENCE: Duration = Duration::from_secs(150);
const CONNECT: Duration = Duration::from_secs(30);

pub(super) struct Socket(WebSocketStream<reqwest::Upgraded>);

#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("the platform named an address that is no WebSocket")]
    Address,
    #[error(transparent)]
    NoClient(#[from] OutboundError),
    /// Without its URL, which holds a ticket on some platforms.
    #[error("the platform's socket cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the platform's socket was refused with {0}")]
    Refused(u16),
    #[error("the platform closed the socket{}", .0.map(|code| format!(" with {code}")).unwrap_or_default())]
    Closed(Option<u16>),
    #[error("the platform's socket is silent")]
    Silent,
    #[error("the platform's socket broke")]
    Broken(#[source] Box<tokio_tungstenite::tungstenite::Error>),
}

impl Socket {
    /// Connects to a `ws:` or `wss:` URL.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub(super) async fn connect(http: &HttpClients, url: &str) -> Result<Self, SocketError> {
        // The same connection with another scheme: a WebSocket begins as an HTTP request.
        let rest = url.strip_prefix("ws").ok_or(SocketError::Address)?;
        let url = format!("http{rest}");
        let unreachable = |error: reqwest::Error| SocketError::Unreachable(error.without_url());
        let request = http
            .client(&url)?
            .get(&url)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key());
        let response = tokio::time::timeout(CONNECT, request.send()).await.map_err(|_| SocketError::Silent)?;
        let response = response.map_err(unreachable)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(SocketError::Refused(response.status().as_u16()));
        }
        let stream = response.upgrade().await.map_err(unreachable)?;
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
        Ok(Self(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await))
    }

    /// The next JSON message; others are passed over, pings are answered.
    ///
    /// # Errors
    /// [`SocketError::Closed`] or [`SocketError::Broken`].
    pub(super) async fn next(&mut self) -> Result<Value, SocketError> {
        loop {
            match tokio::time::timeout(SILENCE, self.0.next()).await.map_err(|_| SocketError::Silent)? {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(value) = serde_json::from_str(&text) {
                        return Ok(value);
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(SocketError::Closed(frame.map(|frame| frame.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(SocketError::Broken(Box::new(error))),
                None => return Err(SocketError::Closed(None)),
            }
        }
    }

    /// # Errors
    /// [`SocketError::Broken`].
    pub(super) async fn send(&mut self, value: &Value) -> Result<(), SocketError> {
        let sent = self.0.send(Message::Text(value.to_string().into())).await;
        sent.map_err(|error| SocketError::Broken(Box::new(error)))
    }
}
