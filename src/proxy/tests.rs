//! The way of a request to a gateway that refuses its token, or breaks off. The agent is one on fakes; its gateway is a listener
//! that answers as it was told.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use http::Request;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::actor::Settings;
use crate::control::{AgentHandle, DeliveryError, NewUser};
use crate::domain::{HostPort, Plan, PortRange, UserId};
use crate::testkit::{self, FakeDisk, Fakes, TestPlane};

#[test]
fn a_proxy_tells_the_bounds_that_it_was_given_and_the_calls_that_are_open() {
    let rate = NonZeroU32::new(7);
    let options = ProxyOptions::default()
        .with_per_agent(1)
        .with_per_user(2)
        .with_idle(Duration::from_secs(3))
        .with_max_body(4)
        .with_answer_within(Duration::from_secs(5))
        .with_bytes_per_sec(rate);
    let proxy = Proxy::new(options);
    let given = proxy.options();
    assert_eq!((given.per_agent, given.per_user, given.max_body), (1, 2, 4));
    assert_eq!((given.idle, given.answer_within), (Duration::from_secs(3), Duration::from_secs(5)));
    assert_eq!(given.bytes_per_sec, rate);
    assert_eq!(proxy.open(), 0);
    let user = UserId::new();
    let open = [proxy.limits.enter(AgentId::new(), user).ok(), proxy.limits.enter(AgentId::new(), user).ok()];
    assert_eq!((open.iter().flatten().count(), proxy.open()), (2, 2));
    drop(open);
    assert_eq!(proxy.open(), 0);
}

fn call(agent: &AgentHandle, body: Body, length: usize) -> Call {
    let parts = Request::post("/").header("content-length", length).body(()).unwrap().into_parts().0;
    let path = PathAndQuery::from_static("/x");
    Call::new(agent.clone(), parts, path, body, Client::new("http"), Mount::Path("/agents/a".into()))
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_agent_as_long_as_it_says() {
    let world = testkit::plane(7, Plan::Free).await;
    let agent = world.running("Ada").await;
    let at_once = call(&agent, Body::empty(), 0);
    assert_eq!((at_once.hold, at_once.deadline), (Duration::ZERO, Instant::now()));
    let held = at_once.held_for(Duration::from_secs(5));
    assert_eq!((held.hold, held.deadline), (Duration::from_secs(5), Instant::now() + Duration::from_secs(5)));
}

/// How a gateway answers a request.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Its data were wiped just now: no token of before is known.
    forgets: bool,
    /// Whether it reads the body before it answers.
    reads: bool,
    /// Nothing for one that ends instead.
    answer: &'static str,
}

const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
const SOCKET: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

const fn turn(answer: &'static str) -> Turn {
    Turn { forgets: false, reads: true, answer }
}

const fn forgetting(answer: &'static str) -> Turn {
    Turn { forgets: true, ..turn(answer) }
}

struct World {
    plane: TestPlane,
    agent: AgentHandle,
    user: UserId,
    proxy: Proxy,
    listener: Arc<TcpListener>,
}

/// What came to the gateway.
#[derive(Debug, Default)]
struct Came {
    /// Tokens, one for each request.
    tokens: Vec<String>,
    /// Lengths of the bodies that were read.
    bodies: Vec<usize>,
}

impl World {
    async fn new() -> Self {
        let (listener, port) = listener().await;
        let (fakes, disk) = (Fakes::new(7), FakeDisk::new());
        let settings = Settings::default().with_ports(PortRange::from(port, 1).unwrap());
        let plane = testkit::start(&fakes, &disk, settings).await.unwrap();
        let user = plane.create_user(NewUser::new("ada@example.com", Plan::Free)).await.unwrap().id;
        let plane = TestPlane::new(fakes, disk, plane, user);
        let agent = plane.running("Ada").await;
        assert_eq!(agent.view().unwrap().access.as_ref().unwrap().endpoint, listener.local_addr().unwrap());
        Self { plane, agent, user, proxy: Proxy::new(ProxyOptions::default()), listener: Arc::new(listener) }
    }

    /// Answers one request after the other as the turns say, those beyond as the last one.
    fn gateway(&self, turns: &[Turn]) -> (tokio::task::JoinHandle<()>, Arc<Mutex<Came>>) {
        let came = Arc::new(Mutex::new(Came::default()));
        let (listener, engine, agent) =
            (Arc::clone(&self.listener), self.plane.fakes.engine().clone(), self.agent.id());
        let (noted, turns) = (Arc::clone(&came), turns.to_vec());
        let gateway = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                while let Some(head) = head(&mut connection).await {
                    let turn = {
                        let mut noted = noted.lock().unwrap();
                        noted.tokens.push(value(&head, "authorization").to_owned());
                        *turns.get(noted.tokens.len() - 1).or(turns.last()).unwrap()
                    };
                    if turn.forgets {
                        engine.forget_tokens(agent);
                    }
                    if turn.reads {
                        if !value(&head, "expect").is_empty() {
                            connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                        }
                        let mut body = vec![0; value(&head, "content-length").parse().unwrap_or(0)];
                        connection.read_exact(&mut body).await.unwrap();
                        noted.lock().unwrap().bodies.push(body.len());
                    }
                    let _ = connection.write_all(turn.answer.as_bytes()).await;
                    if turn.answer.is_empty() || turn.answer == SOCKET || !turn.reads {
                        break;
                    }
                }
            }
        });
        (gateway, came)
    }

    /// What a call, and what a socket of the service's own, comes to.
    async fn post(&self, length: usize) -> Result<u16, ForwardError> {
        let body = Body::from(Bytes::from(vec![b'x'; length]));
        let held = call(&self.agent, body, length).held_for(HOLD);
        self.proxy.forward(held).await.map(|answer| answer.status().as_u16())
    }

    async fn open_socket(&self) -> Result<(), ForwardError> {
        let path = PathAndQuery::from_static("/ws/chat");
        let client = Client::new("http");
        self.proxy.open_socket(&self.agent, self.user, &path, &client, HOLD, Instant::now() + HOLD).await.map(drop)
    }
}

/// Enough for a new pairing on any machine.
const HOLD: Duration = Duration::from_secs(20);

/// Listens on a port that an agent may have.
async fn listener() -> (TcpListener, HostPort) {
    for port in HostPort::all().skip(9_000) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port.get())).await {
            return (listener, port);
        }
    }
    panic!("no port is free")
}

/// The next request's head in small letters; `None` at the end of the connection.
async fn head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap().to_lowercase())
}

fn value<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

const UNAUTHORIZED: &str = "the agent's gateway refuses the token";

fn failure<T>(outcome: &Result<T, ForwardError>) -> Option<String> {
    outcome.as_ref().err().map(ToString::to_string)
}

#[tokio::test]
async fn a_request_whose_token_was_forgotten_is_sent_once_more_where_its_body_is_still_there() {
    const STREAMED: usize = MAX_REPLAYED + 1;
    const UNREAD: Turn = Turn { reads: false, ..forgetting(REFUSED) };
    const READ: Turn = forgetting(REFUSED);
    let cases: [(usize, &[Turn], bool); 5] = [
        (0, &[READ, turn(DONE)], true),
        (5, &[UNREAD, turn(DONE)], true),
        (5, &[READ, turn(DONE)], true),
        (STREAMED, &[UNREAD, turn(DONE)], true),
        (STREAMED, &[READ, turn(DONE)], false),
    ];
    for (length, turns, again) in cases {
        let world = World::new().await;
        let (gateway, came) = world.gateway(turns);
        let answer = world.post(length).await;
        gateway.abort();
        let came = std::mem::take(&mut *came.lock().unwrap());
        if again {
            assert!(matches!(answer, Ok(200)), "{length}, {turns:?}: {answer:?}");
            assert_eq!((came.tokens.len(), came.bodies.last()), (2, Some(&length)), "{turns:?}");
            assert_ne!(came.tokens[0], came.tokens[1], "with a new token");
        } else {
            assert_eq!(failure(&answer).as_deref(), Some(UNAUTHORIZED), "{length}, {turns:?}");
            assert_eq!(came.tokens.len(), 1, "what was read is not there any more");
        }
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_also_the_new_token_is_asked_no_third_time() {
    let world = World::new().await;
    let (gateway, came) = world.gateway(&[forgetting(REFUSED)]);
    let answer = world.post(5).await;
    gateway.abort();
    assert_eq!(failure(&answer).as_deref(), Some(UNAUTHORIZED));
    assert_eq!(came.lock().unwrap().tokens.len(), 2);
}

#[tokio::test]
async fn only_a_refusal_of_a_token_that_is_known_no_longer_leads_to_a_new_one() {
    // A gateway refuses more than tokens, and one that has just forgotten the token may still answer.
    for (turn, status) in [(turn(REFUSED), 401), (forgetting(DONE), 200)] {
        let world = World::new().await;
        let (gateway, came) = world.gateway(&[turn]);
        let answer = world.post(5).await;
        gateway.abort();
        assert!(matches!(answer, Ok(found) if found == status), "{answer:?}");
        assert_eq!(came.lock().unwrap().tokens.len(), 1);
        assert_eq!(world.plane.fakes.engine().tally(world.agent.id()).pairings, 1);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_before_it_begins_is_unknown_and_says_why() {
    let world = World::new().await;
    let (gateway, came) = world.gateway(&[turn("")]);
    let answer = world.post(0).await;
    gateway.abort();
    let Err(ForwardError::Delivery(DeliveryError::Unknown(why))) = answer else { panic!("{answer:?}") };
    assert!(why.contains("connection closed"), "{why}");
    assert_eq!(came.lock().unwrap().tokens.len(), 1, "it may have been acted on");
}

#[tokio::test]
async fn a_socket_of_the_services_own_is_opened_with_one_new_token_at_most() {
    const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let cases: [(&[Turn], Option<&str>, usize); 5] = [
        (&[turn(SOCKET)], None, 1),
        (&[forgetting(REFUSED), turn(SOCKET)], None, 2),
        (&[forgetting(REFUSED)], Some(UNAUTHORIZED), 2),
        (&[turn(REFUSED)], Some(UNAUTHORIZED), 1),
        (&[turn(MISSING)], Some("the agent's answer cannot be used: 404 Not Found instead of a WebSocket"), 1),
    ];
    for (turns, refused, requests) in cases {
        let world = World::new().await;
        let (gateway, came) = world.gateway(turns);
        let opened = world.open_socket().await;
        gateway.abort();
        assert_eq!(failure(&opened).as_deref(), refused, "{turns:?}");
        assert_eq!(came.lock().unwrap().tokens.len(), requests, "{turns:?}");
    }
}
