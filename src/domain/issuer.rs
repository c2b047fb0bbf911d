//! Which cell made a key, a session or a link.

use super::cell::Cell;
use super::key::ApiKey;
use super::token::Token;

/// Who takes a key, a session or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Issuer {
    /// The cell that made it.
    Cell(Cell),
    /// All cells: it is the operator's key, `zo_all_…`.
    All,
}

impl Issuer {
    /// Of a key, a session's token or a link's; `None` for what no cell can have made.
    pub fn of(secret: &str) -> Option<Self> {
        let kind = [ApiKey::PREFIX, Token::SESSION, Token::TICKET].into_iter().find(|kind| secret.starts_with(kind))?;
        let rest = &secret[kind.len()..];
        let (number, random) = rest.split_once('_').map_or((None, rest), |(number, random)| (Some(number), random));
        let random = Cell::is_random(random);
        match number.filter(|_| random) {
            None => random.then_some(Self::Cell(Cell::FIRST)),
            Some(Cell::ALL) => (kind == ApiKey::PREFIX).then_some(Self::All),
            Some(number) => Cell::digits(number).map(Self::Cell),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(number: u16) -> Cell {
        Cell::new(number).unwrap()
    }

    #[test]
    fn secrets_tell_who_made_them() {
        let random = "ab".repeat(32);
        for (secret, issuer) in [
            (format!("zo_{random}"), Some(Issuer::Cell(Cell::FIRST))),
            (format!("zo_0_{random}"), Some(Issuer::Cell(Cell::FIRST))),
            (format!("zo_12_{random}"), Some(Issuer::Cell(cell(12)))),
            (format!("zs_3_{random}"), Some(Issuer::Cell(cell(3)))),
            (format!("zt_3_{random}"), Some(Issuer::Cell(cell(3)))),
            (format!("zo_all_{random}"), Some(Issuer::All)),
            (format!("zs_all_{random}"), None),
            (format!("zo_03_{random}"), None),
            (format!("zo_1000_{random}"), None),
            (format!("zo_3_{random}0"), None),
            (format!("zo_3_{}", "AB".repeat(32)), None),
            (format!("zv_{random}"), None),
            ("zo_".into(), None),
            ("zo_3_".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(Issuer::of(&secret), issuer, "{secret}");
        }
        for number in [None, Some(0), Some(999)] {
            let made_in = number.map(cell);
            let of = Some(Issuer::Cell(made_in.unwrap_or(Cell::FIRST)));
            assert_eq!(Issuer::of(ApiKey::generate_in(made_in).expose()), of);
            assert_eq!(Issuer::of(Token::generate_in(Token::SESSION, made_in).expose()), of);
        }
    }
}
