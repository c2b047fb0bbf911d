//! The fields of an agent, for the form that makes one and the form that changes one.

use maud::{Markup, html};

use super::providers;

/// Model, persona and memory. Each field's name is that of the API.
pub(super) fn agent(new: bool) -> Markup {
    html! {
        fieldset {
            legend { "Model" }
            div.row {
                (field("provider", "Provider", None, &html! {
                    select #provider name="provider" required {
                        @for about in providers::all() {
                            option value=(about.provider) data-key=(about.provider.needs_key()) data-keys=[about.keys]
                                data-url=(about.provider.base_url()) data-models=(about.models.join(" ")) { (about.name) }
                        }
                    }
                }))
                (field("model", "Model", Some("Pick one of the list, or type the name of any other model of this provider."), &html! {
                    input #model name="model" required maxlength="200" list="models" autocomplete="off" spellcheck="false" aria-describedby="model-hint";
                    datalist #models {}
                }))
            }
            (field("apiKey", "API key of the provider", Some(if new { "Sealed before it is stored; nobody can read it back." } else { "Leave it empty to keep the one that is stored. Needed again when the provider or its address changes." }), &html! {
                input #apiKey name="apiKey" type="password" maxlength="1024" autocomplete="off" spellcheck="false" aria-describedby="apiKey-hint";
            }))
            p.hint #key-source hidden { "Get a key from " a #key-link rel="noreferrer noopener" target="_blank" {} "." }
        }
        details {
            summary { "More about the model" }
            (field("providerUrl", "Another address of the provider", Some("For a proxy or a model server of your own that speaks the provider's API."), &html! {
                input #providerUrl name="providerUrl" type="url" maxlength="500" autocomplete="off" spellcheck="false" aria-describedby="providerUrl-hint";
            }))
            div.row {
                (field("temperature", "Temperature", Some("0 keeps to the point, 2 is wild."), &html! {
                    input #temperature name="temperature" type="number" min="0" max="2" step="0.1" inputmode="decimal" placeholder="0.7" aria-describedby="temperature-hint";
                }))
                (field("maxTokens", "Longest answer, in tokens", Some("Empty: as long as the model likes."), &html! {
                    input #maxTokens name="maxTokens" type="number" min="1" max="1000000" step="1" inputmode="numeric" aria-describedby="maxTokens-hint";
                }))
            }
        }
        details {
            summary { "Persona" }
            div.row {
                (field("agentName", "What it calls itself", None, &html! { input #agentName name="agentName" maxlength="50" placeholder="ZeroClaw"; }))
                (field("userName", "What it calls you", None, &html! { input #userName name="userName" maxlength="100"; }))
            }
            (field("timezone", "Time zone", Some("Where its schedules and “today” are."), &html! {
                input #timezone name="timezone" list="zones" placeholder="UTC" autocomplete="off" spellcheck="false" aria-describedby="timezone-hint";
                datalist #zones {}
            }))
            (field("communicationStyle", "How it should write", Some("For example: short and friendly, no jargon."), &html! {
                textarea #communicationStyle name="communicationStyle" rows="3" maxlength="500" aria-describedby="communicationStyle-hint" {}
            }))
        }
        details {
            summary { "Memory" }
            (field("memoryBackend", "Where it keeps what it remembers", None, &html! {
                select #memoryBackend name="memoryBackend" {
                    option value="sqlite" { "A database that it can search (sqlite)" }
                    option value="markdown" { "Text files (markdown)" }
                    option value="none" { "Nowhere" }
                }
            }))
            label.check for="autoSave" { input #autoSave name="autoSave" type="checkbox" checked; " Keep what was said without being asked to" }
            p.error #autoSave-error hidden {}
        }
    }
}

/// The channels of an agent; each is on or off.
pub(super) fn channels() -> Markup {
    html! {
        (channel("telegram", "Telegram", &html! {
            (secret("telegram", "botToken", "Bot token", "From @BotFather."))
            (users("telegram", "Who may write to it: names or ids, by comma. Nobody else is answered."))
        }))
        (channel("discord", "Discord", &html! {
            (secret("discord", "botToken", "Bot token", "From Discord's developer portal, with the message content intent."))
            (field("discord-guildId", "Server id", Some("Empty: every server that the bot is in."), &html! {
                input #discord-guildId name="guildId" maxlength="64" autocomplete="off" aria-describedby="discord-guildId-hint";
            }))
            (users("discord", "User ids, by comma. Nobody else is answered."))
        }))
        (channel("slack", "Slack", &html! {
            (secret("slack", "botToken", "Bot token", "Begins with xoxb-."))
            (secret("slack", "appToken", "App token", "Begins with xapp-; for Socket Mode."))
            (field("slack-channelId", "Channel id", Some("Empty: every channel that the bot is in."), &html! {
                input #slack-channelId name="channelId" maxlength="64" autocomplete="off" aria-describedby="slack-channelId-hint";
            }))
        }))
    }
}

fn channel(kind: &str, name: &str, inner: &Markup) -> Markup {
    html! {
        fieldset.channel data-channel=(kind) {
            legend { label.check { input type="checkbox" data-switch; " " (name) } }
            div.inner hidden { (inner) }
        }
    }
}

fn secret(channel: &str, name: &str, label: &str, hint: &str) -> Markup {
    let id = format!("{channel}-{name}");
    field(
        &id,
        label,
        Some(hint),
        &html! {
            input id=(id) name=(name) type="password" maxlength="1024" autocomplete="off" spellcheck="false" aria-describedby={ (id) "-hint" };
        },
    )
}

fn users(channel: &str, hint: &str) -> Markup {
    let id = format!("{channel}-allowedUsers");
    field(
        &id,
        "Allowed users",
        Some(hint),
        &html! {
            input id=(id) name="allowedUsers" autocomplete="off" aria-describedby={ (id) "-hint" };
        },
    )
}

/// A labelled field with a place for what is wrong with it.
pub(super) fn field(id: &str, label: &str, hint: Option<&str>, input: &Markup) -> Markup {
    html! {
        div.field {
            label for=(id) { (label) }
            (input)
            @if let Some(hint) = hint { p.hint id={ (id) "-hint" } { (hint) } }
            p.error id={ (id) "-error" } hidden {}
        }
    }
}
