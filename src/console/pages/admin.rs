//! What administrators see.

use maud::{Markup, html};

use super::agents::{filters, pager};
use crate::console::fields::field;
use crate::console::layout::{View, loading};

pub(super) fn users(_: &View) -> Markup {
    html! {
        h1 { "Users" }
        form.filters #filters role="search" {
            div.field {
                label for="email" { "E-mail address" }
                input #email name="email" type="search" autocomplete="off" spellcheck="false" placeholder="The whole address";
            }
            button { "Find" }
        }
        (loading("users"))
        (pager())
        section.card aria-labelledby="new-title" {
            h2 #new-title { "New user" }
            form #new-user novalidate {
                div.row {
                    (field("new-email", "E-mail address", None, &html! {
                        input #new-email name="email" type="email" required maxlength="254" autocomplete="off";
                    }))
                    (field("plan", "Plan", None, &plans("plan")))
                }
                p.error #problem role="alert" hidden {}
                button { "Add the user" }
            }
        }
        section.card aria-labelledby="invitations-title" {
            h2 #invitations-title { "Invitations" }
            p.hint { "For people who make their account themselves, where the operator has not closed registration." }
            (loading("invitations"))
            form #invite novalidate {
                div.row {
                    (field("invite-email", "E-mail address", Some("The only one that may use it. Empty: anybody who has it."), &html! {
                        input #invite-email name="email" type="email" maxlength="254" autocomplete="off" aria-describedby="invite-email-hint";
                    }))
                    (field("invite-plan", "Plan", None, &plans("invite-plan")))
                }
                p.error #invite-problem role="alert" hidden {}
                button { "Invite" }
            }
        }
    }
}

/// The plans, to choose one.
fn plans(id: &str) -> Markup {
    html! {
        select id=(id) name="plan" {
            option value="free" { "Free: 3 agents" }
            option value="pro" { "Pro: 20 agents" }
            option value="enterprise" { "Enterprise: no limit, or limits of their own" }
        }
    }
}

pub(super) fn agents(_: &View) -> Markup {
    html! {
        h1 { "All agents" }
        p.hint { "Everybody's. What you look at and change here is in the audit." }
        (filters())
        (loading("list"))
        (pager())
    }
}

pub(super) fn service(_: &View) -> Markup {
    html! {
        h1 { "Service" }
        section.card aria-labelledby="health-title" { h2 #health-title { "Health" } (loading("health")) }
        section.card aria-labelledby="runtime-title" { h2 #runtime-title { "What runs the agents" } (loading("runtime")) }
        section aria-labelledby="figures-title" {
            h2 #figures-title { "All agents together" }
            div.filters {
                div.field {
                    label for="range" { "Time" }
                    select #range autocomplete="off" {
                        option value="hour" selected { "Last hour" }
                        option value="day" { "Last day" }
                        option value="month" { "Last 30 days" }
                    }
                }
            }
            (loading("figures"))
        }
    }
}

pub(super) fn orphans(_: &View) -> Markup {
    html! {
        h1 { "Orphans" }
        p.hint { "What runs or lies there for this service and belongs to no agent: left by a restored backup, a lost store, or by somebody's hand." }
        (loading("orphans"))
        (pager())
    }
}

pub(super) fn audit(_: &View) -> Markup {
    html! {
        h1 { "Audit" }
        p.hint { "Who did what, newest first." }
        form.filters #filters role="search" {
            div.field { label for="actor" { "User, by e-mail address or id" } input #actor name="user" type="search" autocomplete="off" spellcheck="false"; }
            div.field { label for="action" { "Action" } input #action name="action" type="search" autocomplete="off" spellcheck="false"; }
            div.field { label for="target" { "Target, such as an agent's id" } input #target name="target" type="search" autocomplete="off" spellcheck="false"; }
            button { "Find" }
            button type="button" #export { "Download all that fit" }
        }
        (loading("entries"))
        (pager())
    }
}
