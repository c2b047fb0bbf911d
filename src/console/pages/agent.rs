//! The pages of one agent.

use maud::{Markup, html};

use crate::console::fields;
use crate::console::layout::{View, loading};

const TABS: [(&str, &str); 7] = [
    ("", "Overview"),
    ("/chat", "Chat"),
    ("/logs", "Logs"),
    ("/usage", "Usage"),
    ("/settings", "Settings"),
    ("/channels", "Channels"),
    ("/manage", "Manage"),
];

fn frame(view: &View, inner: &Markup) -> Markup {
    let own = view.agent.map(|id| format!("/agents/{id}")).unwrap_or_default();
    html! {
        nav.crumbs aria-label="Where you are" { a href=(view.to("/")) { "Agents" } }
        div.title #agent-head {
            h1 #agent-name { "Agent" }
            span #agent-status role="status" {}
            span.hint #agent-about {}
            div.buttons #agent-commands {}
        }
        p.notice #foreign hidden {}
        nav.tabs aria-label="Of this agent" {
            @for (path, name) in TABS {
                @let path = format!("{own}{path}");
                a href=(view.to(&path)) aria-current=[(view.path == path).then_some("page")] { (name) }
            }
        }
        (inner)
    }
}

pub(super) fn overview(view: &View) -> Markup {
    frame(
        view,
        &html! {
            div.overview {
                section.card aria-labelledby="why" {
                    h2 #why { "What it is doing" }
                    (loading("explain"))
                }
                section.card aria-labelledby="facts-title" {
                    h2 #facts-title { "Facts" }
                    dl #facts {}
                }
                section.card aria-labelledby="incidents-title" {
                    h2 #incidents-title { "Incidents" }
                    p.hint { "What went wrong, and how long each step back took." }
                    (loading("incidents"))
                }
                section.card aria-labelledby="timeline-title" {
                    h2 #timeline-title { "Timeline" }
                    (loading("timeline"))
                }
            }
        },
    )
}

pub(super) fn chat(view: &View) -> Markup {
    frame(
        view,
        &html! {
            div.chat {
                div.conversations {
                    label for="conversation" { "Conversation" }
                    select #conversation {}
                    button type="button" #fresh { "New conversation" }
                    button.quiet type="button" #forget { "Delete it" }
                }
                div #log role="log" aria-label="Conversation" tabindex="0" {}
                p #state role="status" {}
                form #say {
                    label.hidden for="message" { "Message" }
                    textarea #message name="message" rows="2" maxlength="32000" required disabled placeholder="Write a message. Enter sends, Shift and Enter begin a new line." {}
                    div.buttons {
                        button.primary #send { "Send" }
                        button type="button" #stop hidden { "Stop" }
                    }
                }
            }
        },
    )
}

pub(super) fn logs(view: &View) -> Markup {
    frame(
        view,
        &html! {
            div.filters {
                div.field { label for="find" { "Search" } input #find type="search" autocomplete="off" spellcheck="false"; }
                label.check { input #wrap type="checkbox" checked; " Wrap lines" }
                button type="button" #pause aria-pressed="false" { "Pause" }
                button type="button" #download { "Download" }
                span.hint #count role="status" {}
            }
            div.log #lines role="log" aria-label="Log" aria-live="off" tabindex="0" {}
            p.hint #empty hidden { "It has not printed anything yet. New lines appear here by themselves." }
        },
    )
}

pub(super) fn usage(view: &View) -> Markup {
    frame(
        view,
        &html! {
            div.filters {
                div.field {
                    label for="range" { "Time" }
                    select #range autocomplete="off" {
                        option value="now" selected { "Now" }
                        option value="hour" { "Last hour" }
                        option value="day" { "Last day" }
                        option value="month" { "Last 30 days" }
                    }
                }
            }
            p.error #usage-problem role="alert" hidden {}
            (loading("plots"))
        },
    )
}

pub(super) fn settings(view: &View) -> Markup {
    frame(
        view,
        &html! {
            form.wide #settings novalidate aria-busy="true" {
                fieldset {
                    legend { "Agent" }
                    (fields::field("name", "Name", Some("A new name alone does not restart the agent."), &html! {
                        input #name name="name" required maxlength="50" autocomplete="off" aria-describedby="name-hint";
                    }))
                }
                (fields::agent(false))
                p.hint { "Everything but the name is read by the agent when it starts: a change restarts it if it is running, and keeps its memory." }
                p.error #problem role="alert" hidden {}
                div.buttons {
                    button.primary { "Review changes" }
                    button type="reset" { "Undo changes" }
                }
            }
        },
    )
}

pub(super) fn channels(view: &View) -> Markup {
    frame(
        view,
        &html! {
            p { "Where people can write to the agent. A change restarts it if it is running; messages that arrive meanwhile wait on their platform." }
            form.wide #channels novalidate aria-busy="true" {
                (fields::channels())
                p.error #problem role="alert" hidden {}
                div.buttons { button.primary { "Save the channels" } }
            }
        },
    )
}

pub(super) fn manage(view: &View) -> Markup {
    frame(
        view,
        &html! {
            section.card aria-labelledby="restart-title" {
                h2 #restart-title { "Restart" }
                p { "Ends the agent and starts it anew, with a new token. Memory and files stay. Messages that arrive meanwhile are held." }
                button type="button" #restart { "Restart" }
            }
            section.card aria-labelledby="stop-title" {
                h2 #stop-title { "Stop" }
                p { "Ends the agent until somebody starts it again. Memory and files stay; messages are refused." }
                button type="button" #stop { "Stop" }
                " "
                button type="button" #start { "Start" }
            }
            section.card aria-labelledby="dashboard-title" {
                h2 #dashboard-title { "Its own page" }
                p { "What the agent runs has a page of its own, with its tools, memory and schedules. It lets you in by a code, once, within five minutes." }
                button type="button" #dashboard { "Open its own page" }
            }
            section.card aria-labelledby="upgrade-title" {
            h2 #upgrade-title { "Upgrade" }
            p { "Exchanges what it runs. The new version is first tried on a copy of its data, and taken back if it does not become usable; the overview tells each step." }
            form #upgrade-form novalidate {
                (fields::field("image", "Image", Some("Empty: what new agents are made from now."), &html! {
                    input #image name="image" maxlength="255" autocomplete="off" spellcheck="false" aria-describedby="image-hint";
                }))
                p.error #upgrade-problem role="alert" hidden {}
                button { "Upgrade" }
            }
        }
        section.card aria-labelledby="copy-title" {
            h2 #copy-title { "Copy and export" }
            p { "A copy has the same settings, key, files and memory, and goes its own way from then on. Channels are left out: two agents cannot share one bot." }
            form #copy-form novalidate {
                (fields::field("copy-name", "Name of the copy", None, &html! {
                    input #copy-name name="name" required maxlength="50" autocomplete="off";
                }))
                p.error #copy-problem role="alert" hidden {}
                button { "Make a copy" }
            }
            p { "An export is an archive of its files and its memory, without any secret." }
            button type="button" #export { "Export" }
        }
        section.card.danger aria-labelledby="delete-title" {
                h2 #delete-title { "Delete" }
                p { "Removes the agent with its memory, its files and its secrets. This cannot be undone." }
                button.danger type="button" #delete { "Delete this agent" }
            }
        },
    )
}
