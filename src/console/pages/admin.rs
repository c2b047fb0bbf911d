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
        section.card aria-labelledby="orphans-title" {
            h2 #orphans-title { "Orphans" }
            p.hint { "Instances that bear this installation's mark and belong to no agent." }
            (loading("orphans"))
        }
    }
}

pub(super) fn audit(_: &View) -> Markup {
    html! {
        h1 { "Audit" }
        p.hint { "Who did what, newest first." }
        form.filters #filters role="search" {
            div.field { label for="actor" { "User id" } input #actor name="user" type="search" autocomplete="off" spellcheck="false"; }
            div.field { label for="action" { "Action" } input #action name="action" type="search" autocomplete="off" spellcheck="false"; }
            button { "Find" }
        }
        (loading("entries"))
        (pager())
    }
}
