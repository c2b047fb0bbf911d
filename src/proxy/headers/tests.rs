use super::*;

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap());
    }
    headers
}

fn at() -> SocketAddr {
    "127.0.0.1:40000".parse().unwrap()
}

fn listens() -> HeaderValue {
    HeaderValue::from_static("127.0.0.1:40000")
}

fn client() -> Client {
    Client {
        address: Some("192.0.2.7:5000".parse().unwrap()),
        host: Some(HeaderValue::from_static("zeroone.test:3001")),
        scheme: "https",
    }
}

fn below() -> Mount {
    Mount::Path("/api/agents/1/gateway".into())
}

fn token() -> Secret<String> {
    Secret::new("zc_agent".to_owned())
}

#[test]
fn the_callers_key_stays_with_us_and_the_agents_token_goes_on() {
    let headers = map(&[
        ("authorization", "Bearer zo_key"),
        ("cookie", "theirs=1; zeroone_session=secret; more=2"),
        ("connection", "keep-alive, X-Mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("expect", "100-continue"),
        ("origin", "https://zeroone.test"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=evil"),
        ("host", "zeroone.test:3001"),
        ("x-idempotency-key", "k"),
    ]);
    let headers = to_gateway(&headers, &client(), &below(), &listens(), &token());
    assert_eq!(headers[header::AUTHORIZATION], "Bearer zc_agent");
    assert_eq!(headers[header::COOKIE], "theirs=1; more=2");
    for gone in ["connection", "x-mine", "keep-alive", "proxy-authorization", "expect", "origin"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    assert_eq!(headers["x-forwarded-host"], "zeroone.test:3001");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-prefix"], "/api/agents/1/gateway");
    assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"zeroone.test:3001\";proto=https");
    assert_eq!(headers[header::HOST], "127.0.0.1:40000");
    assert_eq!(headers["x-idempotency-key"], "k");
}

#[test]
fn a_caller_cannot_list_the_headers_away_that_we_rely_on() {
    let headers = map(&[("connection", "authorization, host, cookie, content-length"), ("content-length", "5")]);
    let headers = to_gateway(&headers, &client(), &below(), &listens(), &token());
    assert!(headers.contains_key(header::AUTHORIZATION) && headers.contains_key(header::HOST));
    assert_eq!(headers[header::CONTENT_LENGTH], "5");
}

#[test]
fn trailers_are_asked_for_on_the_next_connection_too() {
    let headers = map(&[("te", "trailers"), ("connection", "te")]);
    let headers = to_gateway(&headers, &client(), &below(), &listens(), &token());
    assert_eq!(
        (&headers[header::TE], &headers[header::CONNECTION]),
        (&HeaderValue::from_static("trailers"), &HeaderValue::from_static("te"))
    );
}

#[test]
fn by_its_own_name_a_gateway_gets_the_request_as_it_is() {
    let headers = map(&[
        ("authorization", "Bearer zc_theirs"),
        ("cookie", "zeroone_session=secret"),
        ("origin", "https://ada.zeroone.test"),
        ("host", "ada.zeroone.test"),
    ]);
    let headers = to_gateway(&headers, &client(), &Mount::Host { visit: false }, &listens(), &token());
    assert_eq!(headers[header::AUTHORIZATION], "Bearer zc_theirs");
    assert_eq!(headers[header::HOST], "ada.zeroone.test");
    assert_eq!(headers[header::ORIGIN], "https://ada.zeroone.test");
    assert!(!headers.contains_key(header::COOKIE), "our session is for us alone");
}

#[test]
fn redirects_and_cookies_stay_below_the_agents_path() {
    for (from, to) in [
        ("/dashboard?x=1", "/api/agents/1/gateway/dashboard?x=1"),
        ("http://127.0.0.1:40000/a", "/api/agents/1/gateway/a"),
        ("http://127.0.0.1:40000", "/api/agents/1/gateway/"),
        ("https://elsewhere.test/", "https://elsewhere.test/"),
        ("//elsewhere.test/", "//elsewhere.test/"),
        ("relative", "relative"),
    ] {
        let mut headers = map(&[("location", from)]);
        to_client(&mut headers, &below(), at());
        assert_eq!(headers[header::LOCATION], to, "{from}");
    }
    let mut headers = map(&[
        ("set-cookie", "a=1; Path=/; HttpOnly; Domain=zeroone.test"),
        ("set-cookie", "b=2"),
        ("set-cookie", "zeroone_session=stolen; Path=/"),
    ]);
    to_client(&mut headers, &below(), at());
    let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; HttpOnly; Path=/api/agents/1/gateway/", "b=2; Path=/api/agents/1/gateway/"]);
}

#[test]
fn an_agents_page_has_no_rights_of_our_origin() {
    let mut headers = map(&[
        ("access-control-allow-origin", "*"),
        ("content-security-policy", "default-src *"),
        ("clear-site-data", "\"*\""),
        ("connection", "close"),
    ]);
    to_client(&mut headers, &below(), at());
    assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "sandbox");
    assert_eq!(headers.len(), 1);
    let mut headers = map(&[("access-control-allow-origin", "*"), ("location", "/x")]);
    to_client(&mut headers, &Mount::Host { visit: false }, at());
    assert_eq!(headers[header::LOCATION], "/x", "by its own name it is where it believes to be");
}

#[test]
fn a_sockets_credential_is_replaced_wherever_it_stands() {
    let path = PathAndQuery::from_static("/ws/chat?token=zo_key&session_id=s");
    let mut headers = map(&[("sec-websocket-protocol", "zeroclaw.v1, bearer.zo_key")]);
    assert_eq!(socket_credential(&headers, path.query()).unwrap().expose(), "zo_key");
    let (path, swapped) = replace_socket_token(&mut headers, &path, &token());
    assert_eq!(path.as_str(), "/ws/chat?session_id=s&token=zc_agent");
    assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "zeroclaw.v1, bearer.zc_agent");
    let mut answer = map(&[("sec-websocket-protocol", "bearer.zc_agent")]);
    swapped.unwrap().restore(&mut answer);
    assert_eq!(answer[header::SEC_WEBSOCKET_PROTOCOL], "bearer.zo_key");
    assert!(socket_credential(&HeaderMap::new(), Some("tokens=1&x=token")).is_none());
}

#[test]
fn a_host_that_is_none_is_not_told_to_the_gateway() {
    for host in ["", "zeroone.test\";by=\"x", "a b", "a/b"] {
        let headers = map(&[("host", "zeroone.test")]);
        let client = Client { host: Some(HeaderValue::try_from(host).unwrap()), ..client() };
        let headers = to_gateway(&headers, &client, &below(), &listens(), &token());
        assert_eq!(headers["forwarded"], "for=192.0.2.7;proto=https", "{host:?}");
        assert!(!headers.contains_key("x-forwarded-host"), "{host:?}");
    }
}

#[test]
fn an_address_is_written_as_usual() {
    for ip in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "192.0.2.70", "::1", "2001:db8::1", "::ffff:192.0.2.1"] {
        let ip: IpAddr = ip.parse().unwrap();
        assert_eq!(text_of(ip), ip.to_string());
    }
}
