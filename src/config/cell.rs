//! `[cell]` and `[router]`: installations of several control planes.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::domain::Cell;

/// Which of several control planes this is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSection {
    number: String,
    /// Has one administrator's key for all cells. Empty: there is none.
    pub operator_key_file: PathBuf,
}

/// What is before them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSection {
    cells: Vec<String>,
    full: Vec<String>,
    metrics_bind: String,
}

impl CellSection {
    /// Its number; `None` where there are no cells.
    pub fn number(&self) -> Option<Cell> {
        Cell::parse(&self.number).ok()
    }

    pub(super) fn check(&self) -> [(&'static str, Result<(), String>); 2] {
        let number = if self.number.is_empty() { Ok(()) } else { Cell::parse(&self.number).map(drop) };
        let unused = self.number.is_empty() && !self.operator_key_file.as_os_str().is_empty();
        let has_no_effect = || "has no effect without cell.number; set that too, or leave this empty".to_owned();
        [("cell.number", number), ("cell.operator_key_file", if unused { Err(has_no_effect()) } else { Ok(()) })]
    }
}

impl RouterSection {
    /// `host:port` of each cell, by number.
    ///
    /// # Errors
    /// A sentence that says what an entry must be.
    pub fn cells(&self) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for entry in &self.cells {
            for url in expanded(entry)? {
                all.push(authority(&url)?);
            }
            if all.len() > usize::from(Cell::MOST) {
                return Err(format!("must be at most {} cells", Cell::MOST));
            }
        }
        Ok(all)
    }

    /// Cells that get no new users.
    ///
    /// # Errors
    /// A sentence that says what an entry must be.
    pub fn full(&self) -> Result<Vec<Cell>, String> {
        let number = |text: &String| text.parse().ok().and_then(Cell::new);
        let all = self.full.iter().map(|text| number(text).ok_or_else(|| "must have numbers of cells".to_owned()));
        all.collect()
    }

    /// Where the router's own figures are, if not beside everything else.
    ///
    /// # Errors
    /// A sentence that says what it must be.
    pub fn metrics_bind(&self) -> Result<Option<SocketAddr>, String> {
        if self.metrics_bind.is_empty() {
            return Ok(None);
        }
        self.metrics_bind.parse().map(Some).map_err(|_| "must be an address and a port such as 0.0.0.0:3002".to_owned())
    }

    pub(super) fn check(&self) -> [(&'static str, Result<(), String>); 3] {
        [
            ("router.cells", self.cells().map(drop)),
            ("router.full", self.full().map(drop)),
            ("router.metrics_bind", self.metrics_bind().map(drop)),
        ]
    }
}

/// `{0..2}` once, as three texts.
fn expanded(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('{') else { return Ok(vec![text.to_owned()]) };
    let range = rest.split_once('}').and_then(|(range, after)| {
        let (first, last) = range.split_once("..")?;
        Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?, after))
    });
    match range {
        Some((first, last, after)) if first <= last && last < Cell::MOST && !after.contains('{') => {
            Ok((first..=last).map(|number| format!("{before}{number}{after}")).collect())
        }
        _ => Err("must have ranges such as {0..9}, one in each entry".into()),
    }
}

fn authority(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok().filter(|url| {
        url.scheme() == "http" && matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty()
    });
    let found = url.as_ref().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    found.ok_or_else(|| "must have addresses such as http://zeroone-0.zeroone:3001, without a path".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(cells: &[&str]) -> RouterSection {
        let cells = cells.iter().map(|&cell| cell.to_owned()).collect();
        RouterSection { cells, full: vec!["1".into()], metrics_bind: String::new() }
    }

    #[test]
    fn cells_are_listed_or_counted() {
        let cells = router(&["http://a:1", "http://zeroone-{9..11}.zeroone:3001", "http://[::1]", "http://B/"]).cells();
        let expected =
            ["a:1", "zeroone-9.zeroone:3001", "zeroone-10.zeroone:3001", "zeroone-11.zeroone:3001", "[::1]:80", "b:80"];
        assert_eq!(cells.unwrap(), expected);
        assert_eq!(router(&[]).full().unwrap(), [Cell::new(1).unwrap()]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "https://a:1",
            "a:1",
            "http://a/x",
            "http://a?x",
            "http://u@a",
            "http://a-{0..}",
            "http://a-{2..1}",
            "http://a-{0..1000}",
            "http://a-{0..1}-{0..1}",
            "",
        ] {
            assert!(router(&[text]).cells().is_err(), "{text}");
        }
        assert!(router(&["http://a-{0..600}", "http://b-{0..600}"]).cells().is_err(), "too many");
    }
}
