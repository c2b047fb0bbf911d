//! Takes what looks like a key out of the words of others.

/// What keys of the known providers begin with.
const PREFIXES: [&str; 9] = ["sk-", "sk_", "gsk_", "AIza", "eyJ", "ghp_", "xox", "zc_", "hf_"];
/// Letters and digits in a row that no word and no model's name has.
const RANDOM: usize = 24;
/// A part of the key that is this long is the key's, not chance.
const PART: usize = 8;
const MASK: &str = "[redacted]";

/// The text without the key, parts of it, and other words that look like one.
pub(super) fn redact(text: &str, key: Option<&str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '.' | '…' | '+' | '/' | '=') {
            word.push(c);
        } else {
            flush(&mut out, &mut word, key);
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    flush(&mut out, &mut word, key);
    out
}

fn flush(out: &mut String, word: &mut String, key: Option<&str>) {
    if is_secret(word, key) {
        out.push_str(MASK);
    } else {
        out.push_str(word);
    }
    word.clear();
}

fn is_secret(word: &str, key: Option<&str>) -> bool {
    let masked = word.contains("***") || (word.contains('…') && word.len() > 8);
    let known = word.len() >= 12 && PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    masked || known || has_random_run(word) || key.is_some_and(|key| shares_part(word, key))
}

fn has_random_run(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        run.len() >= RANDOM && digits > 0 && digits < run.len()
    })
}

/// Whether the word has the key in it, or a long part of it.
fn shares_part(word: &str, key: &str) -> bool {
    if key.is_empty() || word.is_empty() {
        return false;
    }
    // As short as a placeholder, such as the name of a server that wants none: it may be a part of any name.
    if key.len() < PART {
        return word == key;
    }
    key.as_bytes().windows(PART).any(|part| word.as_bytes().windows(PART).any(|other| other == part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_parts_of_them_are_taken_out_and_names_stay() {
        let key = Some("sk-proj-abcdefgh12345678");
        for secret in [
            "Incorrect API key provided: sk-proj-abcdefgh12345678.",
            "Your api key: ****5678 is invalid",
            "key ends in efgh12345678",
            "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
            "id 0123456789abcdef0123456789abcdef",
            "AIzaSyA0123456789 is not valid",
        ] {
            let text = redact(secret, key);
            assert!(text.contains(MASK), "{text}");
            assert!(!text.contains("5678") && !text.contains("eyJ") && !text.contains("AIza"), "{text}");
        }
        for plain in [
            "The model `claude-sonnet-4-5-20250929` does not exist",
            "meta-llama/Llama-3.3-70B-Instruct-Turbo-Free is not a valid model ID",
            "max_completion_tokens is unsupported; see https://platform.openai.com/account/api-keys",
        ] {
            assert_eq!(redact(plain, key), plain);
        }
    }

    #[test]
    fn control_characters_become_blanks() {
        assert_eq!(redact("a\u{1b}[31m\nb", None), "a [31m b");
    }
}
