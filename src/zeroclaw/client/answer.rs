//! A gateway's answer, read whole.

use bytes::{Bytes, BytesMut};
use http::Response;
use http::response::Parts;
use hyper::body::Incoming;

use super::GatewayError;
use super::cause::chain;
use super::connections::Lease;

/// Reads an answer of at most so many bytes.
///
/// # Errors
/// It is longer, or it broke off.
pub(super) async fn read<B>(
    response: Response<Incoming>,
    lease: &mut Lease<B>,
    longest: usize,
) -> Result<(Parts, Bytes), GatewayError> {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = lease.frame(&mut body).await {
        let frame = frame.map_err(|error| GatewayError::Unknown(chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > longest {
            return Err(GatewayError::Garbage(format!("{} with more than {longest} bytes", head.status)));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((head, bytes.freeze()))
}
