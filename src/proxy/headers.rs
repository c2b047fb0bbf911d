//! Headers on their way to a gateway and back. Pure.
//!
//! Headers of one connection end with it (RFC 9110, 7.6.1). What the caller presented to us is taken off, what the gateway
//! wants is put on. What the gateway says about the place where it believes to be is moved to the place where it is.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use crate::domain::{ApiKey, Secret};
use crate::forwarded::FORWARDED_FOR;

/// The cookie of our own sign-in, which no agent may see.
const SESSION_COOKIE: &str = "zeroone_session";
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// The way in which a browser's script, which cannot set headers, presents a token for a WebSocket.
const BEARER_PROTOCOL: &str = "bearer.";

/// Whether a header is of one connection only.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a request's header ends with us. What the caller claims of itself is replaced: nobody has checked it.
fn ends_here(name: &str) -> bool {
    // Answered by ourselves: our server asks for a body when the gateway's connection does.
    let expects = name == "expect";
    let forwarded = matches!(
        name,
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" | "x-forwarded-prefix"
    );
    expects || forwarded || is_hop_by_hop(name)
}

/// What a gateway below our own origin may not say in its name.
fn is_of_the_origin(name: &str) -> bool {
    matches!(
        name,
        "strict-transport-security"
            | "clear-site-data"
            | "alt-svc"
            | "service-worker-allowed"
            | "content-security-policy"
            | "content-security-policy-report-only"
    ) || name.starts_with("access-control-")
}

/// Headers that a gateway gets from us: token, host, and who calls.
const ADDED: usize = 7;
/// Headers that an answer gets: what a page may do, the request's id, and how it may be kept and read.
const ADDED_TO_ANSWER: usize = 4;
/// A usual length of `Forwarded`.
const LINE: usize = 96;

/// Who calls, as the gateway is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Client {
    /// Where the connection comes from; a proxy in front has its own address here. `None` where it is unknown.
    pub address: Option<SocketAddr>,
    /// The `Host` that it asked for.
    pub host: Option<HeaderValue>,
    /// `http` or `https`, as the outermost proxy saw it.
    pub scheme: &'static str,
}

impl Client {
    /// Somebody of whom nothing but the scheme is known: `http` or `https`.
    pub const fn new(scheme: &'static str) -> Self {
        Self { address: None, host: None, scheme }
    }

    setters! {
        with_address(address: impl Into<Option<SocketAddr>> => address.into());
        with_host(host: impl Into<Option<HeaderValue>> => host.into());
    }
}

/// Where a gateway appears to its callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Below a path of ours, without a slash at its end. The agent's token is put in.
    Path(String),
    /// At the root of a host name of its own: it is passed on as it is.
    Host {
        /// Whether the caller was let in on a visit. Only then the agent's token is put in.
        visit: bool,
    },
}

/// What tokens of people who visit an agent's own page begin with.
pub const VISIT_PREFIX: &str = "zv_";

impl Mount {
    pub(super) const fn adds_token(&self) -> bool {
        match self {
            Self::Path(_) => true,
            Self::Host { visit } => *visit,
        }
    }
}

/// The headers of a request to a gateway: what of the caller's goes on, and what is said of the caller. `host` names the gateway
/// where it listens. In one pass into a new table: one that is copied and thinned out afterwards costs twice as much, at every request.
pub(super) fn to_gateway(
    from: &HeaderMap,
    client: &Client,
    mount: &Mount,
    host: &HeaderValue,
    token: &Secret<String>,
) -> HeaderMap {
    let below = matches!(mount, Mount::Path(_));
    let adds_token = mount.adds_token();
    let named = named_by_connection(from);
    let mut to = HeaderMap::with_capacity(from.len() + ADDED);
    let (mut trailers, mut cookies) = (false, false);
    for (name, value) in from {
        if *name == header::COOKIE {
            cookies = true;
        } else if *name == header::TE {
            trailers |= value.as_bytes().eq_ignore_ascii_case(b"trailers");
        } else {
            let replaced = (below && *name == header::HOST) || (adds_token && *name == header::AUTHORIZATION);
            // The gateway compares its host with the page's origin, and the browser's page is ours.
            let of_our_page = below && *name == header::ORIGIN;
            if !(replaced || of_our_page || ends_here(name.as_str()) || named.contains(name)) {
                to.append(name, value.clone());
            }
        }
    }
    if trailers {
        take_trailers(&mut to);
    }
    if cookies && let Some(theirs) = without_session(from) {
        to.insert(header::COOKIE, theirs);
    }
    forwarded(&mut to, client, mount);
    if adds_token && let Some(bearer) = bearer(token) {
        to.insert(header::AUTHORIZATION, bearer);
    }
    // At a host name of its own it stays as it is: links, cookies and checks of the origin go by the name that the browser shows.
    if below || !to.contains_key(header::HOST) {
        to.insert(header::HOST, host.clone());
    }
    to
}

fn bearer(token: &Secret<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(["Bearer ", token.expose()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Makes an answer's headers those of an answer of ours. Those of an upgrade go too: the caller of this puts them back.
pub(super) fn to_client(headers: &mut HeaderMap, mount: &Mount, from: SocketAddr) {
    let prefix = match mount {
        Mount::Path(prefix) => Some(prefix.as_str()),
        Mount::Host { .. } => None,
    };
    let below = prefix.is_some();
    // For what is added here and on the rest of the way: in one step, and not as a table that grows twice.
    headers.reserve(ADDED_TO_ANSWER);
    let has = remove(headers, |name| is_hop_by_hop(name) || (below && is_of_the_origin(name)));
    if let Some(prefix) = prefix.filter(|_| has.locations) {
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            if let Some(moved) = headers.get(&name).and_then(|value| moved(value, prefix, from)) {
                headers.insert(name, moved);
            }
        }
    }
    if has.cookies {
        keep_cookies(headers, prefix);
    }
    if below {
        // A page of an agent is shown without our origin's rights: it may be an answer that somebody made a model write.
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
}

/// Takes off what belongs to the connection by which a request came. Who takes trailers still does.
#[cfg(feature = "cli")]
pub(crate) fn strip_connection(headers: &mut HeaderMap) {
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    remove(headers, is_hop_by_hop);
    if trailers {
        take_trailers(headers);
    }
}

/// Who takes trailers says so on each connection anew.
fn take_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
}

/// Headers of one connection, and those that `Connection` names.
#[cfg(feature = "cli")]
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove(headers, is_hop_by_hop);
}

/// What there is among headers of what has to be looked at more closely. Nearly always there is nothing, and a look at the names is
/// cheaper than a search for each of them.
#[derive(Clone, Copy, Default)]
struct Has {
    locations: bool,
    cookies: bool,
}

/// Takes off the headers that end, and those that `Connection` names.
fn remove(headers: &mut HeaderMap, ends: impl Fn(&str) -> bool) -> Has {
    let mut has = Has::default();
    let mut ending = named_by_connection(headers);
    for name in headers.keys() {
        has.locations |= matches!(*name, header::LOCATION | header::CONTENT_LOCATION);
        has.cookies |= *name == header::SET_COOKIE;
        if ends(name.as_str()) {
            ending.push(name.clone());
        }
    }
    for name in ending {
        headers.remove(name);
    }
    has
}

/// Headers that end with the connection because it says so.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if headers.keys().all(|name| *name != header::CONNECTION) {
        return Vec::new();
    }
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // These say what the request is; a caller who lists them wants to make them vanish.
        .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::AUTHORIZATION | header::COOKIE))
        .collect()
}

/// The cookies without our session; the agent's own stay.
fn without_session(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).map(str::trim);
    let is_theirs = |pair: &&str| !pair.is_empty() && pair.split('=').next().map(str::trim) != Some(SESSION_COOKIE);
    let theirs = pairs.filter(is_theirs).collect::<Vec<_>>().join("; ");
    Some(theirs).filter(|theirs| !theirs.is_empty()).and_then(|theirs| HeaderValue::try_from(theirs).ok())
}

/// Says who calls.
fn forwarded(headers: &mut HeaderMap, client: &Client, mount: &Mount) {
    let mut line = String::with_capacity(LINE);
    if let Some(address) = client.address {
        let ip = text_of(address.ip());
        let quoted = if address.is_ipv6() { ["for=\"[", &ip, "]\";"] } else { ["for=", &ip, ";"] };
        line.extend(quoted);
        insert(headers, FORWARDED_FOR, &ip);
    }
    if let Some(value) = &client.host
        && let Some(host) = value.to_str().ok().filter(|host| is_host(host))
    {
        line.extend(["host=\"", host, "\";"]);
        headers.insert(FORWARDED_HOST, value.clone());
    }
    line.extend(["proto=", client.scheme]);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
    insert(headers, FORWARDED, &line);
    if let Mount::Path(prefix) = mount {
        insert(headers, FORWARDED_PREFIX, prefix);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An address as text. The usual way goes through the formatter for each of the four numbers, which at every request is five times
/// what this takes.
fn text_of(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

/// A redirect of the gateway's, below the prefix. One to somewhere else stays as it is.
fn moved(value: &HeaderValue, prefix: &str, from: SocketAddr) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let path = match text.strip_prefix("http://") {
        Some(rest) => {
            let path = rest.strip_prefix(&from.to_string())?;
            if path.is_empty() { "/" } else { path }
        }
        // `//host/…` names another host.
        None if text.starts_with("//") => return None,
        None => text,
    };
    path.starts_with('/').then(|| HeaderValue::try_from(format!("{prefix}{path}")).ok()).flatten()
}

/// Cookies come back to the gateway alone: not to the service, and not to other agents below the same domain.
fn keep_cookies(headers: &mut HeaderMap, prefix: Option<&str>) {
    let cookies: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| kept_below(cookie, prefix)).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// A cookie of the gateway's below the prefix, or without one at its own host alone; none in the name of our own session.
fn kept_below(cookie: &HeaderValue, prefix: Option<&str>) -> Option<HeaderValue> {
    let text = cookie.to_str().ok()?;
    let mut parts = text.split(';').map(str::trim);
    let pair = parts.next()?;
    if pair.split('=').next().map(str::trim) == Some(SESSION_COOKIE) {
        return None;
    }
    let named =
        |part: &str, name: &str| part.split('=').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(name));
    let mut path = "/".to_owned();
    let mut kept = vec![pair.to_owned()];
    for part in parts {
        if named(part, "path") {
            path = part.split_once('=').map_or("/", |(_, path)| path.trim()).to_owned();
        } else if !named(part, "domain") {
            kept.push(part.to_owned());
        }
    }
    let path = if path.starts_with('/') { path } else { "/".to_owned() };
    kept.push(format!("Path={}{path}", prefix.unwrap_or_default()));
    HeaderValue::try_from(kept.join("; ")).ok()
}

/// Puts the agent's token in the place of the caller's key, wherever a WebSocket's client may have put that: the query
/// parameter `token`, or a subprotocol `bearer.…`. Gives the path for the gateway, and the subprotocol that was replaced.
pub(super) fn replace_socket_token(
    headers: &mut HeaderMap,
    path: &PathAndQuery,
    token: &Secret<String>,
) -> (PathAndQuery, Option<SwappedProtocol>) {
    let swapped = swap_protocol(headers, token);
    let mut query: Vec<&str> =
        path.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty() && !is_token(pair)).collect();
    // The oldest gateways read the token from here alone.
    let given = format!("token={}", token.expose());
    query.push(&given);
    let replaced = PathAndQuery::try_from(format!("{}?{}", path.path(), query.join("&")));
    (replaced.unwrap_or_else(|_| path.clone()), swapped)
}

/// Takes out of a request that opens no WebSocket what a WebSocket's client would present itself with: a key or a token of ours in
/// the query, and all subprotocols. Gives the path for the gateway. A `token` of another kind is an agent's own matter.
pub(super) fn remove_credentials(headers: &mut HeaderMap, path: &PathAndQuery) -> PathAndQuery {
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    let is_ours = |pair: &&str| {
        let value = pair.split_once('=').map_or("", |(_, value)| value);
        is_token(pair) && [ApiKey::PREFIX, VISIT_PREFIX].iter().any(|prefix| value.starts_with(prefix))
    };
    let Some(query) = path.query().filter(|query| query.split('&').any(|pair| is_ours(&pair))) else {
        return path.clone();
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    PathAndQuery::try_from(format!("{}{mark}{}", path.path(), kept.join("&")))
        .unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// A subprotocol that stood for a credential, as the caller knows it and as the gateway does.
#[derive(Debug, Clone)]
pub(super) struct SwappedProtocol {
    caller: String,
    gateway: Secret<String>,
}

fn swap_protocol(headers: &mut HeaderMap, token: &Secret<String>) -> Option<SwappedProtocol> {
    let offered = protocols(headers);
    let caller = offered.iter().find(|protocol| protocol.starts_with(BEARER_PROTOCOL))?.clone();
    let gateway = Secret::new(format!("{BEARER_PROTOCOL}{}", token.expose()));
    let replaced: Vec<&str> =
        offered.iter().map(|protocol| if *protocol == caller { gateway.expose().as_str() } else { protocol }).collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(mut value) = HeaderValue::try_from(replaced.join(", ")) {
        value.set_sensitive(true);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    Some(SwappedProtocol { caller, gateway })
}

impl SwappedProtocol {
    /// The gateway's choice of a subprotocol in the caller's words: the agent's token never reaches the caller.
    pub(super) fn restore(&self, headers: &mut HeaderMap) {
        let chosen = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        if chosen == Some(self.gateway.expose().as_str())
            && let Ok(value) = HeaderValue::try_from(&self.caller)
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect()
}

fn is_token(pair: &str) -> bool {
    pair.split('=').next() == Some("token")
}

/// The credential that a WebSocket's client presents without a header of its own.
pub fn socket_credential(headers: &HeaderMap, query: Option<&str>) -> Option<Secret<String>> {
    let in_protocol = protocols(headers)
        .iter()
        .find_map(|protocol| protocol.strip_prefix(BEARER_PROTOCOL).map(|key| Secret::new(key.to_owned())));
    let in_query = || {
        let pair = query?.split('&').find(|pair| is_token(pair))?;
        pair.split_once('=').map(|(_, key)| Secret::new(key.to_owned()))
    };
    in_protocol.or_else(in_query)
}

#[cfg(test)]
mod tests;
