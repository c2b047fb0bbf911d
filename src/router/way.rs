//! Which cell a request is for. Pure: the request alone decides, so that routers keep nothing and there may be several.
//!
//! ```text
//! probes ─► the router itself      <slug>-c3.<domain> ─► cell 3      sign-in ─► by what its body says
//! key, session ─► the cell whose number is in it (none: cell 0)
//! the operator's key ─► Zeroone-Cell: 3, else the id in the path; users and agents of all cells; a new user by e-mail address
//! nothing of these ─► any cell: all answer alike
//! ```

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::domain::{AgentId, Cell, Issuer};
use crate::http::{SESSION_COOKIE, agent_label, only_cookie};
use crate::proxy::{is_websocket, socket_credential};

/// Names a cell where nothing else in the request does.
pub(super) const CELL_HEADER: HeaderName = HeaderName::from_static("zeroone-cell");
/// Remembers in a browser which cell its person signed in to.
pub(super) const CELL_COOKIE: &str = "zeroone_cell";

/// What there is to choose from.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The cells are 0 up to this number.
    pub(super) cells: u16,
    /// Agents' host names are below it.
    pub(super) domain: Option<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Alive,
    Ready,
    Metrics,
    To(Cell),
    /// This cell, or where it is away the next: they answer alike.
    Any(Cell),
    /// A list that is made of all cells' lists.
    Merged,
    /// Its body has to be read.
    ByBody(Form),
}

/// Requests whose bodies tell the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    NewUser,
    Login,
    Link,
    Register,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unplaced {
    /// It is for one cell, and does not say which.
    NoCell,
    /// The header names no number of a cell.
    BadHeader,
    /// It is for a cell that this router does not have.
    Unknown(Cell),
    /// A sign-in by the identity provider in a browser that has not been here.
    NewBrowser,
}

/// Decides.
pub(super) fn decide(parts: &Parts, layout: &Layout) -> Result<Way, Unplaced> {
    let (method, path) = (&parts.method, parts.uri.path());
    if let Some(label) = layout.domain.as_ref().and_then(|domain| agent_label(&parts.uri, &parts.headers, domain)) {
        // A number that no cell has is part of a name from before there were cells.
        let named = Cell::of_label(&label).map(|(_, cell)| cell).filter(|cell| layout.has(*cell));
        return Ok(Way::To(named.unwrap_or(Cell::FIRST)));
    }
    match (method, path) {
        (_, "/livez") => return Ok(Way::Alive),
        (_, "/readyz") => return Ok(Way::Ready),
        (_, "/metrics") => return Ok(Way::Metrics),
        (&Method::POST, "/api/auth/login") => return Ok(Way::ByBody(Form::Login)),
        (&Method::POST, "/api/auth/link") => return Ok(Way::ByBody(Form::Link)),
        (&Method::POST, "/api/auth/register") => return Ok(Way::ByBody(Form::Register)),
        _ => {}
    }
    let named = layout.named(&parts.headers)?;
    if path.starts_with("/api/auth/oidc/") {
        let only = (layout.cells == 1).then_some(Cell::FIRST);
        return named.or_else(|| layout.hint(&parts.headers)).or(only).map(Way::To).ok_or(Unplaced::NewBrowser);
    }
    match issuer(parts) {
        Some(Issuer::Cell(cell)) if !layout.has(cell) => Err(Unplaced::Unknown(cell)),
        Some(Issuer::Cell(cell)) if is_page(path) => Ok(Way::Any(cell)),
        Some(Issuer::Cell(cell)) => Ok(Way::To(cell)),
        Some(Issuer::All) if !is_page(path) => operators(method, path, named, layout),
        _ => Ok(Way::Any(named.or_else(|| layout.hint(&parts.headers)).unwrap_or(Cell::FIRST))),
    }
}

/// Where a request with the operator's key goes.
fn operators(method: &Method, path: &str, named: Option<Cell>, layout: &Layout) -> Result<Way, Unplaced> {
    if let Some(cell) = named {
        return Ok(Way::To(cell));
    }
    let in_path = ["/api/agents/", "/api/admin/users/", "/api/admin/invitations/", "/api/admin/orphans/"]
        .iter()
        .find_map(|before| path.strip_prefix(before)?.split('/').next()?.parse::<AgentId>().ok());
    match (method, path, in_path) {
        (_, _, Some(id)) => {
            let cell = id.cell().unwrap_or(Cell::FIRST);
            if layout.has(cell) { Ok(Way::To(cell)) } else { Err(Unplaced::Unknown(cell)) }
        }
        (&Method::GET, "/api/admin/users" | "/api/admin/agents", None) => Ok(Way::Merged),
        (&Method::POST, "/api/admin/users", None) => Ok(Way::ByBody(Form::NewUser)),
        _ => Err(Unplaced::NoCell),
    }
}

/// What is the same for everybody: the console's shells and files, the documentation, what problems mean.
fn is_page(path: &str) -> bool {
    let of_api = path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(path, "/api/openapi.json" | "/api/docs") || !of_api && !path.starts_with("/v1/")
}

/// Who made the credential that the cells will look at.
fn issuer(parts: &Parts) -> Option<Issuer> {
    let headers = &parts.headers;
    let presented = match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Issuer::of(key.trim())).flatten()
        }
        None => only_cookie(headers, SESSION_COOKIE).and_then(Issuer::of),
    };
    presented.or_else(|| {
        let websocket = is_websocket(&parts.method, parts.version, headers);
        let key = socket_credential(headers, parts.uri.query()).filter(|_| websocket)?;
        Issuer::of(key.expose())
    })
}

impl Layout {
    fn has(&self, cell: Cell) -> bool {
        cell.number() < self.cells
    }

    /// The cell that the header names.
    fn named(&self, headers: &HeaderMap) -> Result<Option<Cell>, Unplaced> {
        let Some(value) = headers.get(CELL_HEADER) else { return Ok(None) };
        let number = value.to_str().ok().and_then(|text| text.trim().parse().ok()).and_then(Cell::new);
        let cell = number.ok_or(Unplaced::BadHeader)?;
        if self.has(cell) { Ok(Some(cell)) } else { Err(Unplaced::Unknown(cell)) }
    }

    /// The cell that the browser remembers.
    pub(super) fn hint(&self, headers: &HeaderMap) -> Option<Cell> {
        let cell = only_cookie(headers, CELL_COOKIE)?.parse().ok().and_then(Cell::new)?;
        self.has(cell).then_some(cell)
    }

    /// All of them, beginning with this one.
    pub(super) fn from(&self, first: Cell) -> impl Iterator<Item = Cell> + use<> {
        let cells = self.cells;
        (0..cells).filter_map(move |n| Cell::new((first.number() + n) % cells))
    }
}

#[cfg(test)]
mod tests;
