//! What the models cost, per model and day.
//!
//! Each call adds one line to `state/costs.jsonl` in the workspace: an append is cheap, and a torn last line loses one
//! call at most. At the first look the lines are added up, and a long file is written anew with one line per model and day.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{Config, Price};
use super::config_file::replace;
use super::provider::Usage;

/// Lines after which the file is written anew.
const COMPACT_AFTER: usize = 5_000;

pub(super) struct Costs {
    path: PathBuf,
    book: Mutex<Option<Book>>,
}

/// Sums by day and model.
#[derive(Default)]
struct Book {
    days: BTreeMap<(String, String), Sum>,
    session: Sum,
    /// Calls that are under way, and what the dearest one so far cost: so much more may be spent already.
    under_way: u32,
    dearest: f64,
    /// The day on which a warning was written.
    warned: String,
}

/// The spending limit that is reached, in dollars.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub(super) enum LimitReached {
    #[error("the spending limit of ${0:.2} a day is reached; it begins again at midnight UTC ([cost] daily_limit_usd)")]
    Day(f64),
    #[error(
        "the spending limit of ${0:.2} a month is reached; it begins again with the month ([cost] monthly_limit_usd)"
    )]
    Month(f64),
}

/// Dollars that may be spent in one day and in one month.
pub(super) type Limits = (Option<f64>, Option<f64>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// UTC, `YYYY-MM-DD`.
    day: String,
    model: String,
    #[serde(flatten)]
    sum: Sum,
}

impl Costs {
    pub(super) fn new(workspace: &Path) -> Self {
        Self { path: workspace.join("state/costs.jsonl"), book: Mutex::new(None) }
    }

    /// Adds a call, with what it cost by this price. Blocks on the disk.
    ///
    /// # Errors
    /// When the line could not be written; the sums in memory have it all the same.
    pub(super) fn add(&self, day: String, model: &str, usage: Usage, price: Price) -> io::Result<()> {
        let sum = Sum {
            requests: 1,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_usd: dollars(usage, price),
        };
        let line = Line { day, model: model.to_owned(), sum };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let mut book = self.open();
        if let Some(book) = book.as_mut() {
            book.add(&line);
            book.session.add(sum);
            book.dearest = book.dearest.max(sum.cost_usd);
        }
        append(&self.path, &text)
    }

    /// Lets a call begin, unless a limit is reached; [`Costs::end`] must follow. Blocks on the disk.
    ///
    /// # Errors
    /// The limit.
    pub(super) fn begin(&self, (day, month): Limits, today: &str) -> Result<(), LimitReached> {
        let mut book = self.open();
        let Some(book) = book.as_mut() else { return Ok(()) };
        let (spent_day, spent_month) = book.spent(today);
        let expected = f64::from(book.under_way) * book.dearest;
        match (day, month) {
            (Some(limit), _) if spent_day + expected >= limit => Err(LimitReached::Day(limit)),
            (_, Some(limit)) if spent_month + expected >= limit => Err(LimitReached::Month(limit)),
            _ => {
                book.under_way += 1;
                Ok(())
            }
        }
    }

    /// Ends a call that [`Costs::begin`] let begin.
    pub(super) fn end(&self) {
        if let Some(book) = self.open().as_mut() {
            book.under_way = book.under_way.saturating_sub(1);
        }
    }

    /// The share of a limit that is spent, in percent, where it is at least `percent` for the first time today.
    pub(super) fn warn_at(&self, percent: f64, (day, month): Limits, today: &str) -> Option<f64> {
        let mut book = self.open();
        let book = book.as_mut()?;
        let (spent_day, spent_month) = book.spent(today);
        let share = |spent: f64, limit: Option<f64>| limit.map_or(0.0, |limit| 100.0 * spent / limit);
        let share = share(spent_day, day).max(share(spent_month, month));
        (share >= percent && book.warned != today).then(|| {
            today.clone_into(&mut book.warned);
            share
        })
    }

    /// The summary in ZeroClaw's shape, with the days beside it. `today` is UTC, `YYYY-MM-DD`. Blocks on the disk.
    pub(super) fn summary(&self, today: &str) -> Value {
        let book = self.open();
        let Some(book) = book.as_ref() else { return Value::Null };
        let month = today.get(..7).unwrap_or(today);
        let total = |keep: &dyn Fn(&str) -> bool| book.total(keep);
        let mut by_model: BTreeMap<&str, Sum> = BTreeMap::new();
        let mut by_day: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
        for ((day, model), sum) in &book.days {
            by_model.entry(model).or_default().add(*sum);
            by_day.entry(day).or_default().insert(model, sum.show(model));
        }
        let all = total(&|_| true);
        json!({
            "session_cost_usd": book.session.cost_usd,
            "daily_cost_usd": total(&|day| day == today).cost_usd,
            "monthly_cost_usd": total(&|day| day.starts_with(month)).cost_usd,
            "total_cost_usd": all.cost_usd,
            "total_tokens": all.input_tokens + all.output_tokens,
            "request_count": all.requests,
            "by_model": by_model.iter().map(|(model, sum)| ((*model).to_owned(), sum.show(model))).collect::<BTreeMap<_, _>>(),
            "by_day": by_day,
        })
    }

    fn open(&self) -> MutexGuard<'_, Option<Book>> {
        let mut slot = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(self.load());
        }
        slot
    }

    /// Reads what there is; a line that cannot be read is one that was torn, and is left out.
    fn load(&self) -> Book {
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if !text.is_empty() && !text.ends_with('\n') {
            // The next line must not be glued to a torn one. If this fails, so will that.
            let _ = append(&self.path, "\n");
        }
        let mut book = Book::default();
        let mut lines = 0;
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            book.add(&line);
            lines += 1;
        }
        if lines > COMPACT_AFTER {
            let sums =
                book.days.iter().map(|((day, model), sum)| Line { day: day.clone(), model: model.clone(), sum: *sum });
            let text: Vec<String> =
                sums.filter_map(|line| serde_json::to_string(&line).ok()).map(|line| line + "\n").collect();
            if let Err(error) = replace(&self.path, text.concat().as_bytes()) {
                tracing::warn!(%error, "cannot shorten the cost file");
            }
        }
        book
    }
}

impl Book {
    fn add(&mut self, line: &Line) {
        self.days.entry((line.day.clone(), line.model.clone())).or_default().add(line.sum);
    }

    /// Dollars of this day and of this month.
    fn spent(&self, today: &str) -> (f64, f64) {
        let month = today.get(..7).unwrap_or(today);
        let of_day = self.total(|day| day == today).cost_usd;
        (of_day, self.total(|day| day.starts_with(month)).cost_usd)
    }

    fn total(&self, keep: impl Fn(&str) -> bool) -> Sum {
        let mut total = Sum::default();
        self.days.iter().filter(|((day, _), _)| keep(day)).for_each(|(_, sum)| total.add(*sum));
        total
    }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cost_usd += other.cost_usd;
    }

    fn show(self, model: &str) -> Value {
        json!({
            "model": model,
            "cost_usd": self.cost_usd,
            "total_tokens": self.input_tokens + self.output_tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "request_count": self.requests,
        })
    }
}

/// The price of a model; nothing for one that the configuration does not know. Prices change, so none are built in.
pub(super) fn price(config: &Config, model: &str) -> Price {
    let prices = &config.cost.prices;
    prices.get(model).or_else(|| prices.get(&format!("{}/{model}", config.provider()))).copied().unwrap_or_default()
}

pub(super) fn dollars(usage: Usage, price: Price) -> f64 {
    let millions = |tokens: u64| tokens as f64 / 1e6;
    millions(usage.input_tokens) * price.input + millions(usage.output_tokens) * price.output
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage { input_tokens: 1_000_000, output_tokens: 500_000 };
    const PRICE: Price = Price { input: 3.0, output: 10.0 };

    #[test]
    fn days_and_models_are_summed_and_survive_a_restart_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let costs = Costs::new(folder.path());
        costs.add("2026-11-22".into(), "a", USAGE, PRICE).unwrap();
        costs.add("2026-11-21".into(), "a", USAGE, PRICE).unwrap();
        costs.add("2026-10-01".into(), "b", USAGE, Price::default()).unwrap();
        append(&folder.path().join("state/costs.jsonl"), "{\"day\":\"2026-1").unwrap();
        for (costs, session) in [(&costs, 16.0), (&Costs::new(folder.path()), 0.0)] {
            let summary = costs.summary("2026-11-22");
            assert_eq!(summary["session_cost_usd"], session);
            assert_eq!((&summary["daily_cost_usd"], &summary["monthly_cost_usd"]), (&json!(8.0), &json!(16.0)));
            assert_eq!((&summary["total_tokens"], &summary["request_count"]), (&json!(4_500_000), &json!(3)));
            assert_eq!(summary["by_model"]["b"]["cost_usd"], 0.0);
            assert_eq!(summary["by_day"]["2026-11-21"]["a"]["request_count"], 1);
        }
    }

    #[test]
    fn a_limit_holds_for_its_day_and_its_month_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let costs = Costs::new(folder.path());
        let spend = |day: &str| costs.add(day.into(), "a", USAGE, PRICE).unwrap();
        spend("2026-11-21");
        spend("2026-11-22");
        for costs in [&costs, &Costs::new(folder.path())] {
            assert_eq!(costs.begin((Some(8.0), None), "2026-11-22"), Err(LimitReached::Day(8.0)));
            assert_eq!(costs.begin((Some(8.0), Some(16.0)), "2026-11-23"), Err(LimitReached::Month(16.0)));
            assert_eq!(costs.begin((Some(8.1), Some(16.1)), "2026-11-22"), Ok(()));
            costs.end();
            assert_eq!(costs.begin((Some(8.0), Some(16.0)), "2026-12-01"), Ok(()));
            costs.end();
        }
    }

    #[test]
    fn calls_under_way_count_with_what_they_may_cost() {
        let folder = tempfile::tempdir().unwrap();
        let costs = Costs::new(folder.path());
        let limits = (Some(20.0), None);
        costs.begin(limits, "2026-11-22").unwrap();
        costs.add("2026-11-22".into(), "a", USAGE, PRICE).unwrap();
        costs.end();
        assert_eq!(costs.begin(limits, "2026-11-22"), Ok(()));
        assert_eq!(costs.begin(limits, "2026-11-22"), Ok(()));
        assert_eq!(costs.begin(limits, "2026-11-22"), Err(LimitReached::Day(20.0)));
        costs.end();
        assert_eq!(costs.begin(limits, "2026-11-22"), Ok(()));
    }

    #[test]
    fn a_warning_is_written_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let costs = Costs::new(folder.path());
        let warn = |day: &str| costs.warn_at(80.0, (Some(10.0), None), day);
        assert_eq!(warn("2026-11-22"), None);
        costs.add("2026-11-22".into(), "a", USAGE, PRICE).unwrap();
        assert_eq!(warn("2026-11-22"), Some(80.0));
        assert_eq!(warn("2026-11-22"), None);
    }

    #[test]
    fn a_long_file_is_shortened_without_losing_a_call() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/costs.jsonl");
        let line = r#"{"day":"2026-11-22","model":"a","requests":1,"input_tokens":1,"output_tokens":0,"cost_usd":0.0}"#;
        append(&path, &format!("{line}\n").repeat(COMPACT_AFTER + 1)).unwrap();
        assert_eq!(Costs::new(folder.path()).summary("2026-11-22")["request_count"], COMPACT_AFTER + 1);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(Costs::new(folder.path()).summary("2026-11-22")["request_count"], COMPACT_AFTER + 1);
    }
}
