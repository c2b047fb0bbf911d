//! What a gateway says its model has cost.

use serde_json::Value;

/// Sums that only grow while a gateway runs; a new run may begin at nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Spent {
    /// What the model read and wrote.
    pub tokens: u64,
    /// Dollars, by the prices that the gateway knows.
    pub cost_usd: f64,
}

impl Spent {
    /// From the answer of `/api/cost`; `None` for one that does not tell.
    pub fn read(answer: &Value) -> Option<Self> {
        let cost = answer.get("cost")?;
        let tokens = cost.get("total_tokens")?.as_u64()?;
        let cost_usd = cost.get("session_cost_usd")?.as_f64().filter(|cost| cost.is_finite() && *cost >= 0.0)?;
        Some(Self { tokens, cost_usd })
    }

    /// What came since `before`, which may be of another run.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let tokens = if self.tokens >= before.tokens { self.tokens - before.tokens } else { self.tokens };
        let cost_usd = if self.cost_usd >= before.cost_usd { self.cost_usd - before.cost_usd } else { self.cost_usd };
        Self { tokens, cost_usd }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const fn spent(tokens: u64, cost_usd: f64) -> Spent {
        Spent { tokens, cost_usd }
    }

    #[test]
    fn the_sums_of_every_version_are_read_and_nothing_else() {
        let zeroclaw =
            json!({"cost": {"session_cost_usd": 0.5, "daily_cost_usd": 1.0, "total_tokens": 1200, "request_count": 3}});
        assert_eq!(Spent::read(&zeroclaw), Some(spent(1200, 0.5)));
        for none in [json!({}), json!({"cost": null}), json!({"cost": {"total_tokens": -1, "session_cost_usd": 0.0}})] {
            assert_eq!(Spent::read(&none), None, "{none}");
        }
        let negative = json!({"cost": {"total_tokens": 1, "session_cost_usd": -0.1}});
        assert_eq!(Spent::read(&negative), None);
    }

    #[test]
    fn a_run_that_begins_anew_has_spent_all_that_it_says() {
        assert_eq!(spent(30, 0.5).since(spent(10, 0.25)), spent(20, 0.25));
        assert_eq!(spent(30, 0.5).since(spent(100, 2.0)), spent(30, 0.5));
    }
}
