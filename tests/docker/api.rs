//! The API of a service of these tests.

use reqwest::{Client, Method, RequestBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zeroone::control::{AgentHandle, NewKey};
use zeroone::domain::Scopes;
use zeroone::http::{HttpOptions, ServeOptions, router, serve};

use crate::http_client::http_client;
use crate::service::{PATIENCE, Service};

/// The service's API on a loopback port, with a key of its user.
pub(crate) struct Api {
    /// Of the agents.
    pub(crate) url: String,
    pub(crate) key: String,
    client: Client,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Api {
    pub(crate) async fn of(service: &Service<'_>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/agents", listener.local_addr().unwrap());
        let http = HttpOptions::default();
        let closing = http.closing.clone();
        let app = router(service.plane.clone(), http);
        let server = tokio::spawn(serve(listener, app, closing, ServeOptions::default()));
        let key = NewKey::new(Scopes::user());
        let key = service.plane.create_key(service.user, key).await.unwrap().1.expose().clone();
        Self { url, key, client: http_client(PATIENCE), server }
    }

    pub(crate) fn get(&self, agent: &AgentHandle, path: &str) -> RequestBuilder {
        self.request(Method::GET, agent, path)
    }

    pub(crate) fn request(&self, method: Method, agent: &AgentHandle, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/{}{path}", self.url, agent.id())).bearer_auth(&self.key)
    }

    /// A request below the service's root.
    pub(crate) fn at(&self, method: Method, path: &str) -> RequestBuilder {
        let root = self.url.trim_end_matches("/api/agents");
        self.client.request(method, format!("{root}{path}")).bearer_auth(&self.key)
    }
}
