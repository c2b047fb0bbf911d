//! One table of requests, and where each goes.

use http::Request;

use super::*;
use crate::domain::UserId;

fn cell(number: u16) -> Cell {
    Cell::new(number).unwrap()
}

fn layout() -> Layout {
    Layout { cells: 3, domain: Some("agents.test".into()) }
}

/// `METHOD target`, and headers.
fn way(line: &str, headers: &[(&str, &str)]) -> Result<Way, Unplaced> {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    decide(&request.body(()).unwrap().into_parts().0, &layout())
}

fn secret(kind: &str) -> String {
    format!("{kind}{}", "5a".repeat(32))
}

const TO: fn(u16) -> Result<Way, Unplaced> = |number| Ok(Way::To(cell(number)));
const ANY: fn(u16) -> Result<Way, Unplaced> = |number| Ok(Way::Any(cell(number)));

#[test]
fn keys_and_sessions_lead_to_their_cell() {
    let bearer = |kind: &str| format!("Bearer {}", secret(kind));
    for (kind, expected) in [
        ("zo_", TO(0)),
        ("zo_0_", TO(0)),
        ("zo_2_", TO(2)),
        ("zo_3_", Err(Unplaced::Unknown(cell(3)))),
        ("zx_2_", ANY(0)),
        ("zv_", ANY(0)),
    ] {
        for line in ["GET /api/agents", "POST /v1/chat/completions", "DELETE /api/agents/x", "GET /api/admin/users"] {
            assert_eq!(way(line, &[("authorization", &bearer(kind))]), expected, "{line} {kind}");
        }
    }
    let session = |kind: &str| format!("a=b; zeroone_session={}", secret(kind));
    for (kind, expected) in
        [("zs_", TO(0)), ("zs_1_", TO(1)), ("zs_9_", Err(Unplaced::Unknown(cell(9)))), ("x", ANY(0))]
    {
        assert_eq!(way("GET /api/me", &[("cookie", &session(kind))]), expected, "{kind}");
    }
    let (key, cookie) = (bearer("zo_1_"), session("zs_2_"));
    assert_eq!(way("GET /api/me", &[("authorization", &key), ("cookie", &cookie)]), TO(1), "the key counts");
    assert_eq!(way("GET /api/me", &[("authorization", &key), ("zeroone-cell", "2")]), TO(1), "and not a wish");
    assert_eq!(way("GET /api/me", &[("authorization", "Basic x"), ("cookie", &cookie)]), ANY(0), "as cells see it");
    let two = format!("{cookie}; zeroone_session={}", secret("zs_1_"));
    assert_eq!(way("GET /api/me", &[("cookie", &two)]), ANY(0), "two sessions are none");
    assert_eq!(way("GET /agents", &[("cookie", &cookie)]), ANY(2), "a page is the same everywhere");
}

#[test]
fn websockets_bring_their_key_in_other_places() {
    let (upgrade, key) = ([("connection", "upgrade"), ("upgrade", "websocket")], secret("zo_2_"));
    let by_query = format!("GET /api/agents/x/gateway/ws/chat?token={key}");
    assert_eq!(way(&by_query, &upgrade), TO(2));
    assert_eq!(way(&by_query, &[]), ANY(0), "no WebSocket");
    let protocol = format!("zeroclaw.v1, bearer.{key}");
    let by_protocol = [upgrade[0], upgrade[1], ("sec-websocket-protocol", protocol.as_str())];
    assert_eq!(way("GET /api/agents/x/gateway/ws/chat", &by_protocol), TO(2));
}

#[test]
fn agents_host_names_lead_to_their_cell_whatever_else_is_said() {
    let key = format!("Bearer {}", secret("zo_1_"));
    for (host, expected) in [
        ("ada-c2.agents.test", TO(2)),
        ("ADA-C2.agents.test:8443", TO(2)),
        ("ada-c0.agents.test", TO(0)),
        ("ada-c1-c2.agents.test", TO(2)),
        ("ada.agents.test", TO(0)),
        ("vitamin-c9.agents.test", TO(0)),
    ] {
        for line in ["GET /livez", "POST /webhook", "POST /api/auth/login"] {
            assert_eq!(way(line, &[("host", host), ("authorization", &key)]), expected, "{host} {line}");
        }
    }
    assert_eq!(way("GET /livez", &[("host", "agents.test")]), Ok(Way::Alive));
    assert_eq!(way("GET http://ada-c1.agents.test/", &[("host", "ada-c2.agents.test")]), TO(1), "as in HTTP/2");
}

#[test]
fn the_operators_key_goes_by_header_by_id_or_over_all() {
    let (agent, user) = (AgentId::new().in_cell(Some(cell(2))), UserId::new().in_cell(Some(cell(1))));
    let (old, elsewhere) = (AgentId::new(), AgentId::new().in_cell(Some(cell(7))));
    let key = format!("Bearer {}", secret("zo_all_"));
    for (line, expected) in [
        (format!("GET /api/agents/{agent}"), TO(2)),
        (format!("POST /api/agents/{agent}/message"), TO(2)),
        (format!("DELETE /api/admin/users/{user}?agents=delete"), TO(1)),
        (format!("POST /api/admin/users/{user}/keys"), TO(1)),
        (format!("GET /api/agents/{old}/events"), TO(0)),
        (format!("GET /api/agents/{elsewhere}"), Err(Unplaced::Unknown(cell(7)))),
        ("GET /api/admin/users?email=a".into(), Ok(Way::Merged)),
        ("GET /api/admin/agents?limit=2".into(), Ok(Way::Merged)),
        ("POST /api/admin/users".into(), Ok(Way::ByBody(Form::NewUser))),
        ("GET /api/admin/audit".into(), Err(Unplaced::NoCell)),
        ("POST /api/admin/backup".into(), Err(Unplaced::NoCell)),
        ("GET /api/agents".into(), Err(Unplaced::NoCell)),
        ("POST /api/agents/import".into(), Err(Unplaced::NoCell)),
        ("GET /v1/models".into(), Err(Unplaced::NoCell)),
        ("GET /api/openapi.json".into(), ANY(0)),
        ("GET /problems/cell-needed".into(), ANY(0)),
    ] {
        assert_eq!(way(&line, &[("authorization", &key)]), expected, "{line}");
    }
    let named = |number| way("GET /api/admin/audit", &[("authorization", &key), ("zeroone-cell", number)]);
    assert_eq!(named("2"), TO(2));
    assert_eq!(named("3"), Err(Unplaced::Unknown(cell(3))));
    assert_eq!(named("two"), Err(Unplaced::BadHeader));
    assert_eq!(
        way("POST /api/admin/users", &[("authorization", &key), ("zeroone-cell", "1")]),
        TO(1),
        "as it was wished"
    );
}

#[test]
fn what_tells_nothing_goes_to_any_cell_and_sign_ins_by_their_body() {
    for (line, expected) in [
        ("GET /livez", Ok(Way::Alive)),
        ("GET /readyz?verbose", Ok(Way::Ready)),
        ("GET /metrics", Ok(Way::Metrics)),
        ("GET /", ANY(0)),
        ("GET /api/agents", ANY(0)),
        ("OPTIONS /api/agents", ANY(0)),
        ("GET /api/auth", ANY(0)),
        ("POST /api/auth/logout", ANY(0)),
        ("POST /api/auth/login", Ok(Way::ByBody(Form::Login))),
        ("POST /api/auth/link", Ok(Way::ByBody(Form::Link))),
        ("POST /api/auth/register", Ok(Way::ByBody(Form::Register))),
        ("GET /api/auth/oidc/start", Err(Unplaced::NewBrowser)),
    ] {
        assert_eq!(way(line, &[]), expected, "{line}");
    }
    let remembered = [("cookie", "zeroone_cell=2")];
    assert_eq!(way("GET /api/auth/oidc/callback?code=x", &remembered), TO(2));
    assert_eq!(way("GET /sign-in", &remembered), ANY(2));
    assert_eq!(way("GET /sign-in", &[("cookie", "zeroone_cell=9")]), ANY(0));
    let stale = format!("zeroone_session={}", secret("zs_1_"));
    assert_eq!(way("POST /api/auth/login", &[("cookie", &stale)]), Ok(Way::ByBody(Form::Login)), "another person");
    assert_eq!(way("POST /api/auth/logout", &[("cookie", &stale)]), TO(1));
}

#[test]
fn any_cell_begins_with_the_preferred_one() {
    let all: Vec<u16> = layout().from(cell(2)).map(Cell::number).collect();
    assert_eq!(all, [2, 0, 1]);
}
