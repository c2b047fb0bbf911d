//! `tests/README.md` against the code: every test that it names exists, every check is in it, and no fault is missing.
#![cfg(feature = "testkit")]

use std::fs;
use std::path::{Path, PathBuf};

use zeroone::testkit::Invariant;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("tests/README.md")).expect("the page")
}

/// What stands between backticks on the page.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| !line.contains("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The sources of a test: one file, or all of a folder.
fn sources(place: &str) -> String {
    let mut sources = String::new();
    if place.starts_with("src/") {
        // The tests of a file may have one of their own beside it.
        let file = root().join(place);
        read_into(&mut sources, &file);
        return sources;
    }
    // The suite that every runtime has to pass is part of the library.
    for place in [format!("tests/{place}"), format!("tests/support/{place}"), format!("src/testkit/{place}")] {
        read_into(&mut sources, &root().join(format!("{place}.rs")));
        read_into(&mut sources, &root().join(place));
    }
    sources
}

fn read_into(sources: &mut String, path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder").flatten() {
            read_into(sources, &entry.path());
        }
    } else if let Ok(source) = fs::read_to_string(path) {
        sources.push_str(&source);
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let page = page();
    let is_name = |text: &&str| text.split_once("::").is_some_and(|(_, name)| name.contains('_'));
    let mut named = 0;
    for text in quoted(&page).filter(is_name) {
        let (place, name) = text.split_once("::").expect("as filtered");
        assert!(sources(place).contains(&format!("fn {name}(")), "there is no {text}");
        named += 1;
    }
    assert!(named > 80, "only {named} names were found on the page");
}

#[test]
fn every_check_is_named() {
    let page = page();
    for invariant in Invariant::ALL {
        assert!(quoted(&page).any(|text| text == format!("{invariant:?}")), "{invariant:?} is not on the page");
    }
}

#[test]
fn forty_faults_and_twenty_five_invariants_have_a_row() {
    let page = page();
    let (faults, invariants) = page.split_once("## Invariants").expect("two tables");
    for (table, last) in [(faults, 40), (invariants, 22)] {
        for number in 1..=last {
            let rows = table.lines().filter(|line| line.starts_with(&format!("| {number} |"))).count();
            assert_eq!(rows, 1, "row {number}");
        }
    }
    assert_eq!(invariants.lines().filter(|line| line.starts_with("| + |")).count(), 3);
}

/// The pages of this repository, by their paths from its root.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "tests", "benches", "config", "deploy/kubernetes"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "md")).collect()
}

/// The name that a heading has in a link.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_between_pages_leads_somewhere_and_the_first_one_leads_to_all() {
    let (pages, mut linked) = (pages(), Vec::new());
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let there = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            assert!(there.exists(), "{} leads to {target}, which is not there", page.display());
            if !heading.is_empty() {
                let there = fs::read_to_string(&there).expect("a page");
                let known = there.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
                assert!(known, "{} leads to {target}, which has no such heading", page.display());
            }
            linked.extend(there.canonicalize().ok());
        }
    }
    for page in pages.iter().filter(|page| page.starts_with(root().join("docs"))) {
        assert!(linked.contains(&page.canonicalize().expect("a page")), "nothing leads to {}", page.display());
    }
}
