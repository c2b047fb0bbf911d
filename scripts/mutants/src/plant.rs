//! Plants mutants into the text of a source file: each in an `if` that asks the switch, beside what it replaces.
//!
//! Only insertions are made, so that the rest stays as it is: for `a < b` they give
//! `(if on(1) { (a) == (b) } else if on(2) { (a) > (b) } else { (a < b) })`. One mutant is on at a time, so what a mutant
//! repeats of the source has none in it, and the text grows with their number and not with their nesting.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context, Result};
use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Expr, Signature};

use crate::mutant::{Mutant, Position};

/// Where something is in the text that was made.
pub struct Place {
    pub number: usize,
    pub mutant: Range<usize>,
    /// The expression with all its mutants and the original.
    pub whole: Range<usize>,
}

pub struct Planted {
    pub text: String,
    pub places: Vec<Place>,
    /// Mutants for which no place was found.
    pub left: Vec<usize>,
}

/// `constant` names the functions that have to stay `const`.
pub fn plant(source: &str, mutants: &[&Mutant], constant: &BTreeSet<String>) -> Result<Planted> {
    let file = syn::parse_file(source).context("a source file")?;
    let mut wanted: BTreeMap<(String, Position), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        wanted.entry((mutant.genre.clone(), mutant.span.start)).or_default().push(mutant);
    }
    let mut planter = Planter { source, wanted, constant, not_const: Vec::new(), insertions: Vec::new(), wholes: 0 };
    planter.visit_file(&file);

    let left = planter.wanted.values().flatten().map(|mutant| mutant.number).collect();
    let mut base = source.to_owned();
    for token in &planter.not_const {
        base.replace_range(token.clone(), &" ".repeat(token.len()));
    }
    Ok(planter.written(&base, left))
}

/// A piece of text that comes in, part of it a mutant.
struct Insertion {
    at: usize,
    /// At one place inner ends come before outer ends, and outer beginnings before inner ones.
    order: isize,
    whole: usize,
    parts: Vec<(Option<usize>, String)>,
}

struct Planter<'a> {
    source: &'a str,
    wanted: BTreeMap<(String, Position), Vec<&'a Mutant>>,
    constant: &'a BTreeSet<String>,
    not_const: Vec<Range<usize>>,
    insertions: Vec<Insertion>,
    wholes: usize,
}

fn position(at: LineColumn) -> Position {
    Position { line: at.line, column: at.column + 1 }
}

/// A `let` in a chain of conditions can be in no other expression.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'a> Planter<'a> {
    fn text(&self, of: &impl Spanned) -> &'a str {
        &self.source[of.span().byte_range()]
    }

    fn take(&mut self, genre: &str, at: &impl Spanned) -> Vec<&'a Mutant> {
        self.wanted.remove(&(genre.to_owned(), position(at.span().start()))).unwrap_or_default()
    }

    fn insert(&mut self, at: usize, ends: bool, parts: Vec<(Option<usize>, String)>) {
        let number = isize::try_from(self.wholes).expect("few");
        self.insertions.push(Insertion { at, order: if ends { -number } else { number }, whole: self.wholes, parts });
    }

    /// What chooses between the mutants of this expression and itself.
    fn choose(&mut self, range: Range<usize>, mutants: Vec<(usize, String)>) {
        if mutants.is_empty() {
            return;
        }
        self.wholes += 1;
        let mut parts = vec![(None, "(".to_owned())];
        for (number, text) in mutants {
            parts.push((Some(number), format!("if crate::mutant_switch::on({number}) {{ {text} }}")));
            parts.push((None, " else ".to_owned()));
        }
        parts.push((None, "{ (".to_owned()));
        self.insert(range.start, false, parts);
        self.insert(range.end, true, vec![(None, ") })".to_owned())]);
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        if let Some(token) = signature.constness
            && !self.constant.contains(&signature.ident.to_string())
        {
            self.not_const.push(token.span.byte_range());
        }
        let Some(first) = block.stmts.first() else { return };
        let mutants = self.take("FnValue", first);
        if mutants.is_empty() {
            return;
        }
        let head = |mutant: &Mutant| {
            let (number, value) = (mutant.number, &mutant.replacement);
            (Some(number), format!("if crate::mutant_switch::on({number}) {{ return {value}; }} "))
        };
        self.wholes += 1;
        self.insert(first.span().byte_range().start, false, mutants.into_iter().map(head).collect());
    }

    fn written(mut self, base: &str, left: Vec<usize>) -> Planted {
        self.insertions.sort_by_key(|insertion| (insertion.at, insertion.order));
        let (mut text, mut from, mut mutants) = (String::new(), 0, Vec::new());
        let mut wholes: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        for insertion in self.insertions {
            text.push_str(&base[from..insertion.at]);
            from = insertion.at;
            let whole = wholes.entry(insertion.whole).or_insert(text.len()..0);
            for (number, part) in &insertion.parts {
                let began = text.len();
                text.push_str(part);
                mutants.extend(number.map(|number| (number, began..text.len(), insertion.whole)));
            }
            whole.end = text.len();
        }
        text.push_str(&base[from..]);
        let place = |(number, mutant, whole)| Place { number, mutant, whole: wholes[&whole].clone() };
        let places = mutants.into_iter().map(place).collect();
        Planted { text, places, left }
    }
}

impl<'ast> Visit<'ast> for Planter<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        // Left in the list, a mutant counts as one that does not compile.
        if !has_let(&expr.left) && !has_let(&expr.right) {
            let mutants = self.take("BinaryOperator", &expr.op);
            let (left, right) = (self.text(&expr.left), self.text(&expr.right));
            let changed = |mutant: &Mutant| (mutant.number, format!("({left}) {} ({right})", mutant.replacement));
            self.choose(expr.span().byte_range(), mutants.into_iter().map(changed).collect());
        }
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        let mutants = self.take("UnaryOperator", &expr.op);
        let operand = self.text(&expr.expr);
        let changed = |mutant: &Mutant| (mutant.number, format!("({operand})"));
        self.choose(expr.span().byte_range(), mutants.into_iter().map(changed).collect());
        visit::visit_expr_unary(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        for mutant in self.take("MatchArm", arm) {
            let number = mutant.number;
            self.wholes += 1;
            let guard = format!(" if !crate::mutant_switch::on({number})");
            self.insert(arm.pat.span().byte_range().end, false, vec![(Some(number), guard)]);
        }
        if let Some((_, guard)) = &arm.guard {
            let mutants = self.take("MatchArmGuard", guard.as_ref());
            let changed = |mutant: &Mutant| (mutant.number, mutant.replacement.clone());
            self.choose(guard.span().byte_range(), mutants.into_iter().map(changed).collect());
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        let (whole, source) = (expr.span().byte_range(), self.source);
        let mut changed = Vec::new();
        for pair in expr.fields.pairs().filter(|_| expr.rest.is_some()) {
            let field = pair.value().span().byte_range();
            let end = pair.punct().map_or(field.end, |comma| comma.span().byte_range().end);
            for mutant in self.take("StructField", pair.value()) {
                changed.push((mutant.number, source[whole.start..field.start].to_owned() + &source[end..whole.end]));
            }
        }
        self.choose(whole, changed);
        visit::visit_expr_struct(self, expr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutant::{Span, State};

    fn mutant(number: usize, genre: &str, (line, column): (usize, usize), replacement: &str) -> Mutant {
        let start = Position { line, column };
        Mutant {
            number,
            name: String::new(),
            file: String::new(),
            genre: genre.to_owned(),
            replacement: replacement.to_owned(),
            span: Span { start, end: start },
            state: State::Planted,
            why: String::new(),
        }
    }

    fn planted(source: &str, mutants: &[Mutant]) -> Planted {
        plant(source, &mutants.iter().collect::<Vec<_>>(), &BTreeSet::new()).unwrap()
    }

    /// The text with short names for the switch.
    fn short(planted: &Planted) -> String {
        planted.text.replace("crate::mutant_switch::", "")
    }

    #[test]
    fn a_mutant_repeats_the_source_without_the_mutants_in_it() {
        let planted = planted(
            "const fn f(a: bool, b: u8)-> bool { a && b == 2 }",
            &[
                mutant(1, "FnValue", (1, 37), "true"),
                mutant(2, "BinaryOperator", (1, 39), "||"),
                mutant(3, "BinaryOperator", (1, 44), "!="),
            ],
        );
        assert_eq!(
            short(&planted),
            "      fn f(a: bool, b: u8)-> bool { if on(1) { return true; } (if on(2) { (a) || (b == 2) } else { (a && \
             (if on(3) { (b) != (2) } else { (b == 2) })) }) }"
        );
        assert!(planted.left.is_empty());
        for place in &planted.places {
            let text = &planted.text[place.mutant.clone()];
            assert!(text.starts_with(&format!("if crate::mutant_switch::on({})", place.number)), "{text}");
            assert!(place.whole.start <= place.mutant.start && place.mutant.end <= place.whole.end);
        }
    }

    #[test]
    fn arms_guards_and_fields_have_a_switch() {
        let source = "fn f() {\nmatch x {\nA => 1,\nB if c => 2,\n_ => 3,\n};\nS { a: 1, ..s }\n}";
        let planted = planted(
            source,
            &[
                mutant(1, "MatchArm", (3, 1), ""),
                mutant(2, "MatchArmGuard", (4, 6), "true"),
                mutant(3, "MatchArmGuard", (4, 6), "false"),
                mutant(4, "StructField", (7, 5), ""),
            ],
        );
        assert_eq!(
            short(&planted),
            "fn f() {\nmatch x {\nA if !on(1) => 1,\nB if (if on(2) { true } else if on(3) { false } else { (c) }) => 2,\n\
             _ => 3,\n};\n(if on(4) { S {  ..s } } else { (S { a: 1, ..s }) })\n}"
        );
    }

    #[test]
    fn a_let_in_a_condition_stays_as_it_is() {
        let source = "fn f() {\nif let Some(x) = y && x > 1 {}\n}";
        let planted =
            planted(source, &[mutant(1, "BinaryOperator", (2, 20), "||"), mutant(2, "BinaryOperator", (2, 25), ">=")]);
        assert_eq!(planted.left, [1]);
        assert_eq!(short(&planted), "fn f() {\nif let Some(x) = y && (if on(2) { (x) >= (1) } else { (x > 1) }) {}\n}");
    }
}
