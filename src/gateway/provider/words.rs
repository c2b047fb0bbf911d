//! What providers mean by their words. They share codes for little of what is told apart here, so their sentences are all there is.
//! Every row was seen in an answer of some provider or server.

/// The prompt has more tokens than the model takes.
pub(super) fn is_too_long(text: &str) -> bool {
    has(
        text,
        &[
            "context length",
            "context_length",
            "context window",
            "context size",
            "context limit",
            "prompt is too long",
            "prompt exceeds max",
            "maximum prompt length",
            "input is too long",
            "range of input length",
            "maximum input length",
            "maximum model length",
            "model token limit",
            "too many tokens",
            "input token count",
            "maximum number of tokens",
            "tokens_limit_reached",
            "reduce your message size",
            "reduce the length of the messages",
        ],
    )
}

/// The key is not taken, told with a status that says nothing of a key.
pub(super) fn is_bad_key(text: &str) -> bool {
    has(
        text,
        &[
            "api key not valid",
            "api key expired",
            "incorrect api key",
            "invalid api key",
            "api key is invalid",
            "api_key_invalid",
        ],
    )
}

/// Nothing is left to pay with.
pub(super) fn is_out_of_credit(text: &str) -> bool {
    has(
        text,
        &[
            "credit balance",
            "insufficient balance",
            "insufficient_balance",
            "insufficient credit",
            "insufficient account balance",
            "not enough credit",
            "out of credit",
        ],
    )
}

/// The filter of the provider stopped it.
pub(super) fn is_filtered(text: &str) -> bool {
    has(text, &["content_filter", "content_policy", "content management policy", "data_inspection_failed"])
}

/// The model, or its server as it was started, takes no tools.
pub(super) fn refuses_tools(text: &str) -> bool {
    has(text, &["tool", "function call"])
        && (is_unsupported(text)
            || has(
                text,
                &[
                    "no endpoints found that support",
                    "tool choice requires",
                    "requires --jinja",
                    "tools param requires",
                ],
            ))
}

/// The model's template has no place for the words of a system.
pub(super) fn refuses_system(text: &str) -> bool {
    has(text, &["system", "developer"])
        && has(text, &["role", "instruction", "message", "prompt"])
        && (is_unsupported(text) || has(text, &["not enabled", "roles must alternate"]))
}

/// The answer may not come in pieces.
pub(super) fn refuses_streams(text: &str) -> bool {
    has(text, &["stream"])
        && !has(text, &["stream_options", "include_usage"])
        && (is_unsupported(text) || has(text, &["must be verified", "not allowed", "not available"]))
}

fn is_unsupported(text: &str) -> bool {
    has(text, &["does not support", "not supported", "doesn't support", "unsupported"])
}

fn has(text: &str, words: &[&str]) -> bool {
    let lower = text.to_lowercase();
    words.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_known_whoever_says_it() {
        for text in [
            "This model's maximum context length is 8192 tokens.",
            "prompt is too long: 210000 tokens > 200000 maximum",
            "The input token count (1200000) exceeds the maximum number of tokens allowed",
            "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
            "Invalid request: Your request exceeded model token limit: 8192",
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            "Input is too long for requested model.",
            "Range of input length should be [1, 30720]",
            "Prompt exceeds max length",
            "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 7000, please reduce your message size",
        ] {
            assert!(is_too_long(text), "{text}");
        }
        assert!(!is_too_long("Unknown model"));
    }

    #[test]
    fn what_a_model_does_not_take_is_told_apart() {
        type Test = fn(&str) -> bool;
        let cases: [(&str, Test); 9] = [
            (
                r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#,
                refuses_tools,
            ),
            ("tools param requires --jinja flag", refuses_tools),
            ("registry.ollama.ai/library/gemma does not support tools", refuses_tools),
            ("Unsupported value: 'messages[0].role' does not support 'system' with this model.", refuses_system),
            ("System role not supported", refuses_system),
            ("Developer instruction is not enabled for models/gemma-3", refuses_system),
            ("Your organization must be verified to stream this model.", refuses_streams),
            ("streaming is not supported for this model", refuses_streams),
            ("Unsupported parameter: 'stream'", refuses_streams),
        ];
        for (text, test) in cases {
            for (name, other) in
                [("tools", refuses_tools as Test), ("system", refuses_system), ("stream", refuses_streams)]
            {
                assert_eq!(other(text), std::ptr::fn_addr_eq(other, test), "{name}: {text}");
            }
        }
        for text in ["temperature is not supported", "stream_options is not supported", "m does not exist"] {
            assert!(!refuses_tools(text) && !refuses_system(text) && !refuses_streams(text), "{text}");
        }
    }
}
