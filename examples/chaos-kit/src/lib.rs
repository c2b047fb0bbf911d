//! Something that embeds the control plane: it asks several agents the same question and takes the first good answer.

use std::time::Duration;

use zeroone::control::{AgentHandle, Message};

/// How long each agent may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first answer of agents that are asked one after the other; `None` if none of them answers well.
pub async fn ask_any(agents: &[AgentHandle], body: &str) -> Option<String> {
    for agent in agents {
        let message =
            Message::json(body.as_bytes().to_vec()).with_hold(Duration::from_secs(2)).with_answer_within(PATIENCE);
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, agent.deliver(message)).await
            && answer.status == 200
        {
            return Some(String::from_utf8_lossy(&answer.body).into_owned());
        }
    }
    None
}
