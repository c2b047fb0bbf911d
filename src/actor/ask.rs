//! Questions to actors, always with a deadline.

use std::time::Duration;

use ractor::{ActorRef, Message, MessagingErr, RpcReplyPort};

/// Why an actor did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It lives, but has too much to do.
    #[error("the actor is busy")]
    Busy,
    /// It is gone, or was rebuilt while it worked on the question: the outcome is unknown.
    #[error("the actor is gone")]
    Gone,
}

/// Asks an actor and waits at most `within`. The one way to do so: ractor's own `call!` waits for ever.
///
/// A question that timed out may still be acted on, so commands are idempotent.
pub async fn ask<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
    within: Duration,
) -> Result<T, AskError> {
    use ractor::rpc::CallResult;
    match actor.call(message, Some(within)).await {
        Ok(CallResult::Success(answer)) => Ok(answer),
        Ok(CallResult::Timeout) => Err(AskError::Busy),
        Ok(CallResult::SenderError) => Err(AskError::Gone),
        Err(MessagingErr::SendErr(_) | MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => {
            Err(AskError::Gone)
        }
    }
}
