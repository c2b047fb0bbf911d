//! Every page of the console: where it is, which module fills it, its shell.

mod account;
mod admin;
mod agent;
mod agents;
mod sign_in;

use maud::{Markup, html};

use super::layout::{self, Frame, View};

/// A page.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub path: &'static str,
    pub title: &'static str,
    pub module: Option<&'static str>,
    pub frame: Frame,
    pub body: fn(&View) -> Markup,
}

pub(super) const PAGES: &[Page] = &[
    page("/", "Agents", "agents.js", agents::list),
    page("/agents/new", "New agent", "new.js", agents::new),
    page("/agents/import", "Import an agent", "import.js", agents::import),
    page("/agents/{id}", "Overview", "overview.js", agent::overview),
    page("/agents/{id}/chat", "Chat", "chat.js", agent::chat),
    page("/agents/{id}/logs", "Logs", "logs.js", agent::logs),
    page("/agents/{id}/usage", "Usage", "usage.js", agent::usage),
    page("/agents/{id}/settings", "Settings", "settings.js", agent::settings),
    page("/agents/{id}/channels", "Channels", "channels.js", agent::channels),
    page("/agents/{id}/manage", "Manage", "manage.js", agent::manage),
    page("/account", "Account", "account.js", account::page),
    page("/admin/users", "Users", "users.js", admin::users),
    page("/admin/agents", "All agents", "admin.js", admin::agents),
    page("/admin/service", "Service", "service.js", admin::service),
    page("/admin/orphans", "Orphans", "orphans.js", admin::orphans),
    page("/admin/audit", "Audit", "audit.js", admin::audit),
    Page { frame: Frame::Plain, ..page("/sign-in", "Sign in", "sign-in.js", sign_in::page) },
];

const fn page(path: &'static str, title: &'static str, module: &'static str, body: fn(&View) -> Markup) -> Page {
    Page { path, title, module: Some(module), frame: Frame::Console, body }
}

/// Where there is no such page.
pub(super) fn not_found(view: &View) -> Markup {
    let body = html! {
        h1 { "There is no such page" }
        p { "The address may be mistyped, or what it was about is gone." }
        p { a href=(view.to("/")) { "To your agents" } }
    };
    layout::shell(view, "No such page", None, Frame::Plain, &body)
}
