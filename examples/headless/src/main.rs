//! The supervisor alone, in a program of one's own: one agent is created, killed, recovers, and is deleted.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use zeroone::control::{Agents, ControlPlane, NewAgent, NewUser};
use zeroone::domain::{Credentials, Plan, Provider, SpecPatch, Status};
use zeroone::runtime::ContainerRuntime;
use zeroone::runtime::process::{ProcessOptions, ProcessRuntime};
use zeroone::store::{EventKind, Store, StoreOptions};
use zeroone::vault::{MasterKey, MasterKeySource, Vault};
use zeroone::view::AgentView;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let program = std::env::args_os().nth(1).ok_or("usage: headless PATH-OF-ZEROONE")?;
    let data = tempfile::tempdir()?;

    let store = Store::open(data.path().join("agents.redb"), StoreOptions::default())?;
    let vault = Vault::new(&MasterKey::load(MasterKeySource::FileOrNew(data.path().join("master.key")))?);
    let options = ProcessOptions::new(store.installation(), data.path().join("agents"), program);
    let runtime: Arc<dyn ContainerRuntime> = Arc::new(ProcessRuntime::open(options)?);
    let plane = ControlPlane::builder(store, vault, Arc::clone(&runtime)).start().await?;

    let user = plane.create_user(NewUser::new("ada@example.org", Plan::Pro)).await?;
    let spec = SpecPatch::new("Ada", Provider::Ollama, "llama3.2").create()?.spec;
    let agent = plane.create_agent(user.id, NewAgent::new(spec, Credentials::default())).await?;
    let running = agent.wait(&[Status::Running], PATIENCE).await?;
    // Engines that give each agent an address of its own, such as a cluster, need no port.
    let port = running.port.map_or_else(|| "no port".to_owned(), |port| format!("port {port}"));
    println!("{} runs on {port}", running.record.slug);

    // Somebody kills it; the supervisor notices and starts it again.
    let restarts = |view: &AgentView| view.record.state.restart_count;
    let mut changes = agent.changes().ok_or("the agent is gone")?;
    let key = runtime.list_owned().await?.remove(0).key;
    runtime.kill(&key).await?;
    let recovered = changes.wait_for(|view| restarts(view) == 1 && view.status() == Status::Running);
    tokio::time::timeout(PATIENCE, recovered).await??;
    println!("it was killed, and runs again");

    agent.delete().await?;
    if !agent.gone(PATIENCE).await {
        return Err("the agent was not deleted in time".into());
    }
    let mut events = plane.events(0);
    while events.position() < plane.newest_event() {
        let Some(event) = events.next().await? else { break };
        match event.kind {
            EventKind::Created { entry } | EventKind::Changed { entry } => {
                println!("{:3}  {:9} {}", event.offset, entry.to, entry.cause);
            }
            _ => println!("{:3}  gone", event.offset),
        }
    }
    plane.shutdown(Agents::Leave).await;
    Ok(())
}
