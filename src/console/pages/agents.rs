//! The list of agents, and the form for a new one.

use maud::{Markup, html};

use crate::console::fields;
use crate::console::layout::{View, loading};
use crate::domain::Status;

pub(super) fn list(view: &View) -> Markup {
    html! {
        div.title {
            h1 { "Agents" }
            p.hint #room {}
            a.button.primary href=(view.to("/agents/new")) { "New agent" }
        }
        (filters())
        (actions())
        (loading("list"))
        (pager())
    }
}

/// Search and statuses; their state is in the address, so that a view can be kept and shared.
pub(super) fn filters() -> Markup {
    html! {
        form.filters #filters role="search" {
            div.field {
                label for="search" { "Search" }
                input #search name="search" type="search" autocomplete="off" spellcheck="false" maxlength="100" placeholder="Name, slug or model";
            }
            fieldset.statuses {
                legend { "Status" }
                @for &status in Status::ALL {
                    label.chip { input type="checkbox" name="status" value=(status.as_str()); " " (word(status)) }
                }
            }
        }
    }
}

/// As it is written for people.
const fn word(status: Status) -> &'static str {
    match status {
        Status::Pending => "Pending",
        Status::Starting => "Starting",
        Status::Running => "Running",
        Status::Stopping => "Stopping",
        Status::Stopped => "Stopped",
        Status::Error => "Error",
    }
}

fn actions() -> Markup {
    html! {
        div.actions #selection role="group" aria-label="Selected agents" hidden {
            span #selected {}
            button type="button" data-command="start" { "Start" }
            button type="button" data-command="stop" { "Stop" }
            button type="button" data-command="restart" { "Restart" }
            button.danger type="button" data-command="delete" { "Delete" }
        }
    }
}

pub(super) fn pager() -> Markup {
    html! {
        nav.pager #pager aria-label="Pages" hidden {
            button type="button" #previous { "Previous" }
            span #page {}
            button type="button" #next { "Next" }
        }
    }
}

pub(super) fn new(view: &View) -> Markup {
    html! {
        nav.crumbs aria-label="Where you are" { a href=(view.to("/")) { "Agents" } }
        div.title {
            h1 { "New agent" }
            a.button href=(view.to("/agents/import")) { "Import an exported agent" }
        }
        p #plan.hint {}
        form.wide #new novalidate aria-busy="true" {
            fieldset {
                legend { "Agent" }
                (fields::field("name", "Name", Some("What you call it; can be changed later."), &html! {
                    input #name name="name" required maxlength="50" autocomplete="off" autofocus aria-describedby="name-hint";
                }))
                details {
                    summary { "Address" }
                    (fields::field("slug", "Slug", Some("Small letters, digits and hyphens; made of the name where it is empty. Cannot be changed later."), &html! {
                        input #slug name="slug" maxlength="40" pattern="[a-z0-9]([a-z0-9\\-]*[a-z0-9])?" autocomplete="off" spellcheck="false" aria-describedby="slug-hint";
                    }))
                }
            }
            (fields::agent(true))
            details {
                summary { "Channels" }
                p.hint { "Let people write to it in Telegram, Discord or Slack. All of this can be added later." }
                (fields::channels())
            }
            p.error #problem role="alert" hidden {}
            div.checked #checked role="status" hidden {}
            div.buttons {
                button.primary { "Create the agent" }
                button type="button" #check { "Test the key" }
                a.button href=(view.to("/")) { "Cancel" }
            }
            p.hint { "The test asks the provider for its models. That costs nothing, and nothing is stored." }
        }
    }
}

pub(super) fn import(view: &View) -> Markup {
    html! {
        nav.crumbs aria-label="Where you are" { a href=(view.to("/")) { "Agents" } }
        h1 { "Import an agent" }
        p.hint { "From a file that “Export” of an agent made, here or at another service: its settings, files and memory. Secrets are not in such a file, and channels are left out." }
        form.wide #import novalidate {
            fieldset {
                legend { "Agent" }
                (fields::field("file", "File", Some("Ends in .tar."), &html! {
                    input #file name="file" type="file" required accept=".tar,application/x-tar" aria-describedby="file-hint";
                }))
                (fields::field("name", "Name", Some("Empty: as the exported agent was called."), &html! {
                    input #name name="name" maxlength="50" autocomplete="off" aria-describedby="name-hint";
                }))
                (fields::field("apiKey", "API key of the provider", Some("Without one the agent stays stopped until you enter it in its settings. Sealed before it is stored."), &html! {
                    input #apiKey name="apiKey" type="password" maxlength="1024" autocomplete="off" spellcheck="false" aria-describedby="apiKey-hint";
                }))
            }
            p.error #problem role="alert" hidden {}
            div.buttons {
                button.primary { "Import the agent" }
                a.button href=(view.to("/agents/new")) { "Cancel" }
            }
        }
    }
}
