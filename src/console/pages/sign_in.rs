//! Sign in: by address and password, or by a one-time link.

use maud::{Markup, html};

use crate::console::fields::field;
use crate::console::layout::View;

pub(super) fn page(_: &View) -> Markup {
    html! {
        div.narrow {
            h1 { "Sign in" }
            p #reason role="status" hidden {}
            p #provider hidden { a.button href="" {} }
            form #sign-in novalidate {
                (field("email", "E-mail address", None, &html! {
                    input #email name="email" type="email" autocomplete="username" required autofocus maxlength="254";
                }))
                (field("password", "Password", None, &html! {
                    input #password name="password" type="password" autocomplete="current-password" required maxlength="1024";
                }))
                p.error #problem role="alert" hidden {}
                button.primary { "Sign in" }
            }
            form #link novalidate hidden {
                p { "You have a one-time link. It signs you in once, on this browser." }
                p.error #link-problem role="alert" hidden {}
                button.primary { "Sign in with the link" }
            }
            details #registration hidden {
                summary { "Create an account" }
                form #register novalidate {
                    (field("new-email", "E-mail address", None, &html! {
                        input #new-email name="email" type="email" autocomplete="username" required maxlength="254";
                    }))
                    (field("new-password", "Password", Some("Twelve characters or more; a few words are best."), &html! {
                        input #new-password name="password" type="password" autocomplete="new-password" required minlength="12" maxlength="256" aria-describedby="new-password-hint";
                    }))
                    (field("invitation", "Invitation", Some("The operator, or an administrator, has sent it to you."), &html! {
                        input #invitation name="invitation" autocomplete="off" aria-describedby="invitation-hint";
                    }))
                    p.error #register-problem role="alert" hidden {}
                    button { "Create the account" }
                }
            }
            details {
                summary { "I have lost my password" }
                p { "Ask an administrator to set a new one. On the machine of the service an administrator runs:" }
                pre { code { "zeroone user set-password you@example.org" } }
            }
        }
    }
}
