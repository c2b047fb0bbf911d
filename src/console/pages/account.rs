//! One's own account.

use maud::{Markup, html};

use crate::console::fields::field;
use crate::console::layout::{View, loading};
use crate::domain::Scope;

pub(super) fn page(_: &View) -> Markup {
    html! {
        h1 { "Account" }
        section.card aria-labelledby="plan-title" {
            h2 #plan-title { "Plan and use" }
            (loading("plan"))
        }
        section.card aria-labelledby="keys-title" {
            h2 #keys-title { "API keys" }
            p { "For programs: the command line, scripts, your own software. Each key should do no more than it needs." }
            (loading("keys"))
            details {
                summary { "New key" }
                (key_form())
            }
        }
        section.card aria-labelledby="sessions-title" {
            h2 #sessions-title { "Where you are signed in" }
            (loading("sessions"))
        }
        section.card aria-labelledby="password-title" {
            h2 #password-title { "Password" }
            form #password-form novalidate {
                input.hidden type="text" name="username" autocomplete="username" tabindex="-1" aria-hidden="true";
                (field("current", "Present password", Some("Leave it empty if you came by a one-time link and have none."), &html! {
                    input #current name="current" type="password" autocomplete="current-password" maxlength="1024" aria-describedby="current-hint";
                }))
                (field("new-password", "New password", Some("Twelve characters or more; a few words are best."), &html! {
                    input #new-password name="password" type="password" autocomplete="new-password" required minlength="12" maxlength="256" aria-describedby="new-password-hint";
                }))
                p.error #password-problem role="alert" hidden {}
                button { "Change the password" }
            }
        }
    }
}

/// What a new key may do, and until when.
pub(super) fn key_form() -> Markup {
    html! {
        form #new-key novalidate {
            div.row {
                (field("key-name", "Name", Some("Where it is used."), &html! {
                    input #key-name name="name" maxlength="100" autocomplete="off" aria-describedby="key-name-hint";
                }))
                (field("key-expiry", "Works until", None, &html! {
                    select #key-expiry name="expiry" {
                        option value="" { "It is revoked" }
                        option value="1" { "Tomorrow" }
                        option value="30" selected { "In 30 days" }
                        option value="365" { "In a year" }
                    }
                }))
            }
            fieldset {
                legend { "It may" }
                @for scope in [Scope::AgentsRead, Scope::AgentsWrite, Scope::MessagesSend, Scope::Admin] {
                    label.check { input type="checkbox" name="scopes" value=(scope.as_str()) checked[scope != Scope::Admin]; " " (may(scope)) " " code { (scope.as_str()) } }
                }
            }
            p.error #key-problem role="alert" hidden {}
            button { "Make the key" }
        }
    }
}

const fn may(scope: Scope) -> &'static str {
    match scope {
        Scope::AgentsRead => "See agents, logs and events",
        Scope::AgentsWrite => "Create, change and delete agents",
        Scope::MessagesSend => "Send messages to agents",
        Scope::Admin => "Administer the service: everybody's agents, users and keys",
    }
}
