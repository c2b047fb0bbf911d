//! What all pages have: head, navigation, where notices appear.

use maud::{DOCTYPE, Markup, html};

use super::assets;

/// What a shell is made for.
pub(super) struct View {
    /// What an embedder's router has in front of the console; empty where it is not nested.
    pub base: String,
    /// Of the page, without the base.
    pub path: String,
    /// The agent that it is about.
    pub agent: Option<uuid::Uuid>,
}

impl View {
    /// The address of a page of ours.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn asset(&self, name: &str) -> String {
        self.to(&assets::path(name))
    }
}

/// What surrounds the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// Navigation; whoever is not signed in is sent to the sign-in page.
    Console,
    /// For everybody: the brand alone.
    Plain,
}

const MENU: [(&str, &str); 2] = [("/", "Agents"), ("/account", "Account")];
const ADMINISTRATION: [(&str, &str); 5] = [
    ("/admin/users", "Users"),
    ("/admin/agents", "All agents"),
    ("/admin/service", "Service"),
    ("/admin/orphans", "Orphans"),
    ("/admin/audit", "Audit"),
];

/// A whole page. `module` is the script that fills it.
pub(super) fn shell(view: &View, title: &str, module: Option<&str>, frame: Frame, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-base=(view.base) data-agent=[view.agent] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · zeroone" }
                link rel="icon" type="image/svg+xml" href=(view.asset("icon.svg"));
                link rel="stylesheet" href=(view.asset("console.css"));
                @if let Some(module) = module {
                    @for needed in ["dom.js", "api.js", "stream.js", "shell.js"] {
                        link rel="modulepreload" href=(view.asset(needed));
                    }
                    script type="module" src=(view.asset(module)) {}
                }
            }
            body {
                a.skip href="#main" { "Skip to content" }
                (header(view, frame))
                noscript { p.notice.bad { "The console needs JavaScript. The " a href=(view.to("/api/docs")) { "REST API" } " and the command line work without." } }
                div #connection role="status" aria-live="polite" {}
                main #main tabindex="-1" { (body) }
                div #toasts role="status" aria-live="polite" {}
            }
        }
    }
}

fn header(view: &View, frame: Frame) -> Markup {
    html! {
        header.top {
            a.brand href=(view.to("/")) { img src=(view.asset("icon.svg")) alt="" width="24" height="24"; span { "zeroone" } }
            @if frame == Frame::Console {
                nav.menu aria-label="Main" {
                    @for (path, name) in MENU { (item(view, path, name)) }
                    span.administration #administration hidden {
                        @for (path, name) in ADMINISTRATION { (item(view, path, name)) }
                    }
                }
                div.who {
                    span #who {}
                    button.quiet #sign-out type="button" { "Sign out" }
                }
            }
        }
    }
}

fn item(view: &View, path: &str, name: &str) -> Markup {
    // Agents' own pages are below "Agents".
    let current = view.path == path || (path == "/" && view.path.starts_with("/agents"));
    html! { a href=(view.to(path)) aria-current=[current.then_some("page")] { (name) } }
}

/// Something that a module fills once it knows more; until then it says that it loads.
pub(super) fn loading(id: &str) -> Markup {
    html! { div id=(id) aria-busy="true" { p.loading { span.spinner aria-hidden="true" {} " Loading …" } } }
}
