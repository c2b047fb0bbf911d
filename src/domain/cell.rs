//! Cells: several control planes behind one router, each with a store, agents and users of its own.
//!
//! A cell puts its number into what it makes: keys, sessions and links (`zo_3_…`), ids of users and agents, agents' host names
//! (`<slug>-c3.<domain>`). So the router needs no table. What has no number is from before there were cells, and cell 0's.

use std::fmt;

use super::slug::Slug;

/// The number of a cell, 0 to 999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(u16);

impl Cell {
    /// What was made before there were cells is its own.
    pub const FIRST: Self = Self(0);
    /// Most cells.
    pub const MOST: u16 = 1000;
    /// Stands in the operator's key in place of a number.
    pub(super) const ALL: &str = "all";
    /// Hex digits of 256 random bits.
    const RANDOM: usize = 64;
    /// Before the number at the end of a host name's first label.
    const IN_LABEL: &str = "-c";

    /// The cell of this number.
    pub fn new(number: u16) -> Option<Self> {
        (number < Self::MOST).then_some(Self(number))
    }

    /// A number, or a name that ends in one after a hyphen, such as that of a StatefulSet's Pod.
    ///
    /// # Errors
    /// A sentence that says so.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.rsplit_once('-').map_or(text, |(_, number)| number);
        Self::digits(number)
            .ok_or_else(|| "must be 0 to 999, or a name that ends in such a number, as in zeroone-3".into())
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Without leading zeros, so that each cell has one spelling.
    pub(super) fn digits(text: &str) -> Option<Self> {
        let plain =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        Self::new(text.parse().ok().filter(|_| plain)?)
    }

    /// Whether this is what a secret has of randomness.
    pub(super) fn is_random(text: &str) -> bool {
        text.len() == Self::RANDOM && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// What a secret of this kind begins with where this cell makes it.
    pub(super) fn prefix(cell: Option<Self>, kind: &str) -> String {
        cell.map_or_else(|| kind.to_owned(), |Self(number)| format!("{kind}{number}_"))
    }

    /// The first label of an agent's host name.
    pub fn label(cell: Option<Self>, slug: &Slug) -> String {
        cell.map_or_else(|| slug.to_string(), |Self(number)| format!("{slug}{}{number}", Self::IN_LABEL))
    }

    /// The slug in such a label, and the cell that it names.
    pub fn of_label(label: &str) -> Option<(&str, Self)> {
        let (slug, number) = label.rsplit_once(Self::IN_LABEL)?;
        Some((slug, Self::digits(number).filter(|_| !slug.is_empty())?))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, UserId};

    fn cell(number: u16) -> Cell {
        Cell::new(number).unwrap()
    }

    #[test]
    fn a_cell_is_a_number_or_a_name_that_ends_in_one() {
        for (text, number) in [("0", 0), ("7", 7), ("999", 999), ("zeroone-12", 12), ("zeroone-eu-1-0", 0)] {
            assert_eq!(Cell::parse(text), Ok(cell(number)), "{text}");
        }
        for text in ["", "-", "a", "zeroone-", "zeroone", "01", "1000", "+1", "-1x", "70000"] {
            assert!(Cell::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_names_tell_the_cell_and_the_last_number_counts() {
        let slug = |text| Slug::parse(text).unwrap();
        for (text, number, label) in
            [("ada", None, "ada"), ("ada", Some(3), "ada-c3"), ("ada-c9", Some(10), "ada-c9-c10")]
        {
            let cell = number.map(cell);
            assert_eq!(Cell::label(cell, &slug(text)), label);
            if let Some(cell) = cell {
                assert_eq!(Cell::of_label(label), Some((text, cell)));
            }
        }
        for label in ["ada", "ada-c", "ada-c03", "ada-c1000", "-c3", "c3", "ada-cc", "ada-c-1"] {
            assert_eq!(Cell::of_label(label), None, "{label}");
        }
        assert!(Cell::label(Some(cell(999)), &slug(&"a".repeat(Slug::MAX))).len() <= 63, "a label of the DNS");
    }

    #[test]
    fn ids_tell_the_cell_and_still_sort_by_creation() {
        let ids: Vec<UserId> = (0..300).map(|n| UserId::new().in_cell(Cell::new(n % 7))).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]));
        for (n, id) in (0..).zip(&ids) {
            assert_eq!(id.cell(), Cell::new(n % 7));
            assert_eq!(id.to_string().parse(), Ok(*id));
        }
        let (plain, without) = (AgentId::new(), AgentId::new());
        assert_eq!((plain.cell(), without.in_cell(None)), (None, without));
        let there = plain.in_cell(Some(cell(4)));
        assert_eq!((there.cell(), there.in_cell(Some(cell(4)))), (Some(cell(4)), there));
    }
}
