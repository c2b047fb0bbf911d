//! Which file of the crate uses which, and which of them do so in a circle.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path below the crate, e.g. `["actor", "agent"]`.
pub type Module = Vec<String>;
/// The text of each module's file.
pub type Sources = BTreeMap<Module, String>;

/// Circles of files, each sorted. A file may use what its own parents define: they are its frame, not its neighbours. A
/// parent that only re-exports what its children define does not use it.
pub fn circles(sources: &Sources) -> Vec<Vec<Module>> {
    let re_exports: BTreeMap<_, _> = sources.iter().map(|(module, text)| (module.clone(), re_exported(text))).collect();
    let uses = sources.iter().map(|(module, text)| {
        let children = sources.keys().filter(|other| other.len() == module.len() + 1 && other.starts_with(module));
        let mut paths = paths(&without_re_exports(text));
        paths.extend(
            children
                .filter(|child| names(text, &child[module.len()]))
                .map(|child| ["crate".to_owned()].into_iter().chain(child.iter().cloned()).collect()),
        );
        let used = paths.iter().map(|path| resolve(sources, &re_exports, module, path, 0));
        let used = used.filter(|used| !used.is_empty() && !module.starts_with(used) && sources.contains_key(used));
        (module.clone(), used.collect::<BTreeSet<_>>())
    });
    components(&uses.collect())
}

/// Whether the text begins a path with the name of a child, outside of re-exports.
fn names(text: &str, child: &str) -> bool {
    let text = without_re_exports(text);
    text.match_indices(&format!("{child}::")).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !matches!(before, '_' | ':' | '.'))
    })
}

fn re_export_statements(text: &str) -> Vec<(usize, usize)> {
    let starts = text.match_indices("pub use ").chain(text.match_indices("pub(super) use ")).map(|(at, _)| at);
    starts.filter_map(|at| text[at..].find(';').map(|length| (at, at + length + 1))).collect()
}

fn without_re_exports(text: &str) -> String {
    let mut rest = text.to_owned();
    for (from, to) in re_export_statements(text) {
        rest.replace_range(from..to, &" ".repeat(to - from));
    }
    rest
}

/// Each name that a module re-exports, with its path.
fn re_exported(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for (from, to) in re_export_statements(text) {
        let statement = text[from..to].split_once("use ").map_or("", |(_, path)| path);
        let rooted = ["crate::", "self::", "super::"].iter().any(|root| statement.starts_with(root));
        let statement = if rooted { statement.to_owned() } else { format!("self::{statement}") };
        found.extend(paths(&statement).into_iter().filter_map(|path| Some((path.last()?.clone(), path))));
    }
    found
}

/// All paths that begin at the crate, at this module or at its parent; groups are expanded.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "self::", "super::"] {
        for (at, _) in text.match_indices(root) {
            let inside = text[..at].chars().next_back();
            if inside.is_none_or(|before| !before.is_alphanumeric() && !matches!(before, '_' | ':')) {
                expand(&text[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a group of them, and gives what comes after it.
fn expand<'a>(text: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let after = expand(rest, before, found).trim_start();
            let after =
                after.strip_prefix("as ").map_or(after, |name| name.trim_start_matches(|c: char| !",}".contains(c)));
            let Some(next) = after.strip_prefix(',') else { return after.strip_prefix('}').unwrap_or(after) };
            rest = next;
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut path = before.to_vec();
    if end > 0 {
        path.push(text[..end].to_owned());
    }
    match text[end..].strip_prefix("::") {
        Some(rest) if end > 0 => expand(rest, &path, found),
        _ => {
            found.push(path);
            text[end..].strip_prefix('*').unwrap_or(&text[end..])
        }
    }
}

/// The module in whose file the thing at the end of a path is defined.
fn resolve(
    sources: &Sources,
    re_exports: &BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    from: &Module,
    path: &[String],
    depth: usize,
) -> Module {
    let mut at = from.clone();
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.peek() {
        match segment.as_str() {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" => {}
            _ => {
                let child: Module = at.iter().cloned().chain([(*segment).clone()]).collect();
                if !sources.contains_key(&child) {
                    break;
                }
                at = child;
            }
        }
        segments.next();
    }
    let further = segments.next().and_then(|name| re_exports.get(&at)?.get(name)).filter(|_| depth < 5);
    further.map_or(at.clone(), |further| resolve(sources, re_exports, &at, further, depth + 1))
}

/// Strongly connected components of more than one node: all nodes that reach each other.
fn components(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reach = |from: &Module| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            for next in uses.get(node).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for (module, from_here) in &reached {
        if !from_here.contains(*module) || found.iter().flatten().any(|known| known == *module) {
            continue;
        }
        found.push(
            from_here.iter().filter(|other| reached.get(other).is_some_and(|r| r.contains(*module))).cloned().collect(),
        );
    }
    found.retain(|circle| circle.len() > 1);
    found
}
