//! Which ZeroClaw an image or a program holds, by what it tells of itself.
//!
//! A label may be a base image's, a tag may be moved or wrong, and only the program itself surely knows. It costs half a
//! second to ask it, so that is not done where label and tag agree.

use super::profile::Profile;

/// What an image tells without being run.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ImageClues<'a> {
    /// The image's name, with its tag or digest.
    pub reference: &'a str,
    /// The label `zeroone.profile`, which images of our own carry.
    pub profile_label: Option<&'a str>,
    /// The label `org.opencontainers.image.version`.
    pub version_label: Option<&'a str>,
}

impl<'a> ImageClues<'a> {
    /// An image without labels.
    pub const fn new(reference: &'a str) -> Self {
        Self { reference, profile_label: None, version_label: None }
    }

    setters! {
        with_profile_label(profile_label: impl Into<Option<&'a str>> => profile_label.into());
        with_version_label(version_label: impl Into<Option<&'a str>> => version_label.into());
    }
}

impl<'a> ImageClues<'a> {
    /// What it is, where that is beyond doubt: our own label, or a version on which label and tag agree.
    pub fn certain(&self) -> Option<Clue> {
        if let Some(profile) = self.profile_label.and_then(|name| Profile::parse(name).ok()) {
            return Some(Clue { profile, version: self.version_label.map(str::to_owned) });
        }
        let (label, tag) = (self.version_label?, self.tag()?);
        let same = number(label).is_some() && number(label) == number(tag);
        same.then(|| Clue::of_version(label)).flatten()
    }

    /// What it probably is; `None` where nothing tells, as with `latest` or a bare digest.
    pub fn probable(&self) -> Option<Clue> {
        self.certain()
            .or_else(|| self.tag().and_then(Clue::of_version))
            .or_else(|| self.version_label.and_then(Clue::of_version))
    }

    fn tag(&self) -> Option<&'a str> {
        let name = self.reference.split('@').next().unwrap_or(self.reference);
        // The colon of `registry:5000/name` belongs to no tag.
        name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag)
    }
}

/// A version and the family that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clue {
    /// The family.
    pub profile: Profile,
    /// Such as `0.8.7`; `None` where only the family is known.
    pub version: Option<String>,
}

impl Clue {
    fn of_version(text: &str) -> Option<Self> {
        Some(Self { profile: Profile::of_version(text)?, version: number(text).map(str::to_owned) })
    }

    /// By the output of `--version`, such as `zeroclaw 0.8.7 (unknown)`: the first word that is a version.
    pub fn of_output(text: &str) -> Option<Self> {
        text.split_whitespace().filter(|word| word.contains('.')).find_map(Self::of_version)
    }
}

/// `0.8.7` of `v0.8.7-debian`; `None` where the text is no version.
fn number(text: &str) -> Option<&str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = &text[..end];
    Profile::of_version(number).map(|_| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clues<'a>(reference: &'a str, version_label: Option<&'a str>) -> ImageClues<'a> {
        ImageClues { reference, profile_label: None, version_label }
    }

    #[test]
    fn tag_wins_over_a_label_that_may_be_the_base_images() {
        for (reference, label, profile) in [
            ("zeroclaw:0.1.7", None, Some(Profile::V01)),
            ("ghcr.io/zeroclaw-labs/zeroclaw:v0.6.9", None, Some(Profile::V06)),
            ("localhost:5000/zeroclaw:0.7.0-debian", None, Some(Profile::V06)),
            ("zeroclaw:0.8.7@sha256:00ff", None, Some(Profile::V08)),
            ("zeroclaw:1.2.0", None, Some(Profile::V08)),
            ("zeroclaw:latest", Some("0.1.7"), Some(Profile::V01)),
            ("zeroclaw:0.1.7", Some("24.04"), Some(Profile::V01)),
            ("zeroclaw:0.8.7", Some("unknown"), Some(Profile::V08)),
            ("ghcr.io/zeroclaw-labs/zeroclaw:latest", None, None),
            ("localhost:5000/zeroclaw", None, None),
            ("zeroclaw", None, None),
        ] {
            assert_eq!(clues(reference, label).probable().map(|clue| clue.profile), profile, "{reference} {label:?}");
        }
    }

    #[test]
    fn only_agreement_is_certain() {
        let certain = |reference, label| clues(reference, label).certain().and_then(|clue| clue.version);
        assert_eq!(certain("zeroclaw:v0.8.7-debian", Some("0.8.7")).as_deref(), Some("0.8.7"));
        assert_eq!(certain("zeroclaw:0.8.7", Some("0.6.9")), None);
        assert_eq!(certain("zeroclaw:0.8.7", None), None);
        assert_eq!(certain("zeroclaw:latest", Some("0.8.7")), None);
        assert_eq!(certain("zeroclaw:latest", Some("latest")), None);
        let ours = ImageClues { profile_label: Some("embedded"), ..clues("zeroone:dev", None) };
        assert_eq!(ours.certain().unwrap().profile, Profile::Embedded);
    }

    #[test]
    fn version_is_found_among_the_words_of_a_program() {
        for (text, expected) in [
            ("zeroclaw 0.1.7\n", Some((Profile::V01, "0.1.7"))),
            ("zeroclaw v0.6.9 (2026-01-02)", Some((Profile::V06, "0.6.9"))),
            ("zeroclaw 0.8.7 (unknown)\n", Some((Profile::V08, "0.8.7"))),
            ("usage: 3 words", None),
            ("", None),
        ] {
            let found = Clue::of_output(text);
            let found = found.as_ref().map(|clue| (clue.profile, clue.version.as_deref().unwrap()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
