//! People: where they sign in, and where a new user is put.
//!
//! A user's e-mail address chooses the cell, among those that are open for new users, by the highest of hashes of address and cell
//! (rendezvous hashing). The cell's store remembers: more cells, or a cell that is full, move nobody. So a sign-in is tried in the
//! order of the hashes, and is nearly always right at the first.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::forward::Failure;
use super::way::{CELL_COOKIE, Form};
use super::{Passed, Shared, lists};
use crate::domain::{Cell, Issuer};
use crate::http::{Code, Problem, SESSION_COOKIE};

/// Far more than an address and a password need.
const MAX_BODY: usize = 16 * 1024;
/// How long it may take to arrive.
const BODY_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);
/// Sign-ins that are under way at once: each may be tried in every cell.
pub(super) const SIGN_INS: usize = 32;
/// How long a browser remembers its person's cell, in seconds.
const REMEMBERED: u32 = 365 * 24 * 60 * 60;

/// Sends a request to the cell that its body tells.
pub(super) async fn placed(router: &Shared, form: Form, passed: Passed) -> Result<Response, Problem> {
    let head = passed.head();
    let hint = router.layout.hint(&passed.parts.headers);
    let body = read(passed.body).await?;
    let fields: Value = serde_json::from_slice(&body).unwrap_or_default();
    let email = fields["email"].as_str().map(|email| email.trim().to_lowercase());
    let issued = |field: &str| match fields[field].as_str().and_then(Issuer::of) {
        Some(Issuer::Cell(cell)) => router.layout.from(Cell::FIRST).find(|known| *known == cell),
        _ => None,
    };
    // A cell says best what is wrong with a body.
    let Some(email) = email.filter(|_| form != Form::Link) else {
        let cell = issued("token").or(hint).unwrap_or(Cell::FIRST);
        return to(router, cell, &head, &body).await;
    };
    match form {
        Form::Login => sign_in(router, &email, hint, &head, &body).await,
        Form::Register => {
            let cell = issued("invitation").map_or_else(|| choose(router, &email), Ok)?;
            to(router, cell, &head, &body).await
        }
        Form::NewUser | Form::Link => {
            let cell = match known(router, &email, &head).await? {
                Ok(Some(cell)) => cell,
                Ok(None) => choose(router, &email)?,
                Err(refusal) => return Ok(refusal),
            };
            to(router, cell, &head, &body).await
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let read = timeout(BODY_WITHIN, Limited::new(body, MAX_BODY).collect()).await;
    match read.map_err(|_| Problem::new(Code::Timeout, "The body did not arrive in time."))? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::TooLarge, format!("The body may have at most {MAX_BODY} bytes.")))
        }
        Err(_) => Err(Problem::new(Code::Malformed, "The body ended before its end.")),
    }
}

async fn to(router: &Shared, cell: Cell, head: &Request<()>, body: &Bytes) -> Result<Response, Problem> {
    let request = head.clone().map(|()| Body::from(body.clone()));
    let mut response = router.road.send(cell, request).await?.into_response(None);
    remember(cell, &mut response);
    Ok(response)
}

/// Tries the cells one after the other: only one of them knows the password.
async fn sign_in(
    router: &Shared,
    email: &str,
    hint: Option<Cell>,
    head: &Request<()>,
    body: &Bytes,
) -> Result<Response, Problem> {
    let busy = |_| Problem::new(Code::Overloaded, "Too many people sign in at once.").retry_after(1);
    let _turn = router.sign_ins.try_acquire().map_err(busy)?;
    let ordered = order(email, router.layout.from(Cell::FIRST).collect());
    let cells = hint.into_iter().chain(ordered.into_iter().filter(|cell| Some(*cell) != hint));
    let (mut wrong, mut away) = (None, None);
    for cell in cells {
        let request = head.clone().map(|()| Body::from(body.clone()));
        match router.road.send(cell, request).await {
            Ok(received) if received.status() == StatusCode::UNAUTHORIZED => wrong = Some(received),
            Ok(received) => {
                let mut response = received.into_response(None);
                remember(cell, &mut response);
                return Ok(response);
            }
            Err(Failure::Away(_, problem) | Failure::Lost(problem)) => away = Some(problem),
        }
    }
    // It may be the one that is away that knows the password.
    match (away, wrong) {
        (Some(problem), _) => Err(*problem),
        (None, Some(wrong)) => Ok(wrong.into_response(None)),
        (None, None) => Err(Problem::new(Code::CellUnavailable, "There are no cells.")),
    }
}

/// The cell of the user with this address, if there is one: asked with the caller's own key.
async fn known(router: &Shared, email: &str, head: &Request<()>) -> Result<Result<Option<Cell>, Response>, Problem> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("email", email).finish();
    let mut question = head.clone();
    *question.method_mut() = Method::GET;
    *question.uri_mut() = Uri::try_from(format!("/api/admin/users?{query}"))
        .map_err(|_| Problem::new(Code::Malformed, "The e-mail address cannot be looked for."))?;
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::TRANSFER_ENCODING] {
        question.headers_mut().remove(name);
    }
    question.headers_mut().remove("idempotency-key");
    let cells = router.layout.from(Cell::FIRST);
    let mut found = None;
    for (cell, answer) in cells.zip(lists::of_all(router, &question).await?) {
        match answer {
            Ok(page) if page["data"].as_array().is_some_and(|users| !users.is_empty()) => found = Some(cell),
            Ok(_) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(found))
}

/// The cell for a new user.
fn choose(router: &Shared, email: &str) -> Result<Cell, Problem> {
    let none =
        || Problem::new(Code::NoCapacity, "All cells are full; the operator adds one, or opens one in [router].");
    order(email, router.open.clone()).first().copied().ok_or_else(none)
}

/// The cells by how well the address fits, which depends on nothing else.
fn order(email: &str, mut cells: Vec<Cell>) -> Vec<Cell> {
    let weight = |cell: &Cell| -> [u8; 32] {
        Sha256::new().chain_update(email).chain_update([0]).chain_update(cell.number().to_be_bytes()).finalize().into()
    };
    cells.sort_by_cached_key(|cell| std::cmp::Reverse(weight(cell)));
    cells
}

/// Lets the browser remember the cell that its session is of.
fn remember(cell: Cell, response: &mut Response) {
    let cookies = response.headers().get_all(header::SET_COOKIE).iter();
    let session = cookies.filter_map(|cookie| cookie.to_str().ok()).find(|cookie| {
        cookie
            .strip_prefix(SESSION_COOKIE)
            .and_then(|rest| rest.strip_prefix('='))
            .is_some_and(|rest| !rest.starts_with(';'))
    });
    let Some(session) = session else { return };
    let secure = if session.ends_with("; Secure") { "; Secure" } else { "" };
    let cookie = format!("{CELL_COOKIE}={cell}; Max-Age={REMEMBERED}; Path=/; HttpOnly; SameSite=Lax{secure}");
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: u16) -> Vec<Cell> {
        (0..count).map_while(Cell::new).collect()
    }

    #[test]
    fn more_cells_move_nobody_but_to_the_new_ones() {
        let emails: Vec<String> = (0..400).map(|n| format!("user{n}@example.org")).collect();
        let mut by_cell = [0; 4];
        for email in &emails {
            let (before, after) = (order(email, cells(3))[0], order(email, cells(4))[0]);
            assert!(after == before || after.number() == 3, "{email}");
            by_cell[usize::from(after.number())] += 1;
        }
        assert!(by_cell.iter().all(|users| (60..=140).contains(users)), "{by_cell:?}");
    }

    #[test]
    fn a_full_cell_is_left_out_and_the_rest_keep_their_order() {
        let all = order("ada@example.org", cells(5));
        let without: Vec<Cell> = cells(5).into_iter().filter(|cell| *cell != all[0]).collect();
        assert_eq!(order("ada@example.org", without), all[1..]);
    }

    #[test]
    fn a_browser_remembers_the_cell_of_its_session_alone() {
        for (cookies, remembered) in [
            (vec!["zeroone_session=zs_2_x; Path=/; Secure"], Some("; Secure")),
            (vec!["a=b", "zeroone_session=zs_2_x; Path=/"], Some("SameSite=Lax")),
            (vec!["zeroone_session=; Max-Age=0"], None),
            (vec!["zeroone_session_=x"], None),
            (vec![], None),
        ] {
            let mut response = Response::new(Body::empty());
            response.headers_mut().extend(cookies.iter().map(|cookie| (header::SET_COOKIE, cookie.parse().unwrap())));
            remember(cells(3)[2], &mut response);
            let last = response.headers().get_all(header::SET_COOKIE).iter().next_back();
            let last =
                last.map(|cookie| cookie.to_str().unwrap()).filter(|cookie| cookie.starts_with("zeroone_cell=2; "));
            assert_eq!(last.is_some(), remembered.is_some(), "{cookies:?}");
            assert!(remembered.is_none_or(|end| last.is_some_and(|last| last.ends_with(end))));
        }
    }
}
