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
}

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

    /// Adds a call and returns what it cost in dollars. Blocks on the disk.
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
        }
        append(&self.path, &text)
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
