//! The measured stage: how long a commit takes to be visible on the other side, and how fast an empty database catches up.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::node::Node;
use super::shop::Shop;
use super::stages::{Demo, after};
use crate::failure::Failure;
use crate::output::thousands;

const WRITES: usize = 200;
/// From one write to the next.
const PACE: Duration = Duration::from_millis(10);
/// Between two looks for one row: well below what is measured, and no load on the processor that the nodes need.
const LOOK: Duration = Duration::from_micros(20);

const ORDERS: usize = 2_000;
const LINES_PER_ORDER: i64 = 9;
const ORDERS_PER_TRANSACTION: usize = 50;
/// Between two looks at the number of rows.
const LOOK_AT_ALL: Duration = Duration::from_millis(5);

impl Demo {
    /// Measures on this machine, with durability `normal`.
    pub(super) fn speed(&mut self) -> Result<(), Failure> {
        self.report.stage("Speed: on this machine, durability `normal`, loopback")?;
        if cfg!(debug_assertions) {
            self.report
                .story("note", "this program is not optimised; the figures of a release build are better")?;
        }
        self.commit_to_visible()?;
        self.catch_up()
    }

    /// The clock runs from the moment the application's commit has returned until a query on the other database finds
    /// the row.
    fn commit_to_visible(&mut self) -> Result<(), Failure> {
        let mut times = Vec::with_capacity(WRITES);
        for write in 0..WRITES {
            let begin = Instant::now();
            let id = format!("timed-{write}");
            self.till.write(|shop| {
                shop.execute("INSERT INTO orders (id, customer) VALUES (?1, 'c1')", [&id]).map(drop)
            })?;
            let office = &self.office;
            times.push(self.patience.wait("a row that was written", LOOK, || {
                office.finds("SELECT 1 FROM orders WHERE id = ?1", &id)
            })?);
            thread::sleep(PACE.saturating_sub(begin.elapsed()));
        }
        times.sort_unstable();
        let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
        self.report.check(
            format_args!("each of {WRITES} single writes has become visible"),
            times.len() == WRITES,
        )?;
        self.report.figure(
            "commit to visible",
            &format!("p50 {}   p99 {}", milliseconds(p50), milliseconds(p99)),
            json!({ "figure": "commit_to_visible", "writes": WRITES, "durability": "normal",
                "p50_ms": p50.as_secs_f64() * 1e3, "p99_ms": p99.as_secs_f64() * 1e3 }),
        )
    }

    /// The clock runs from the start of the new node's process until its database has all rows.
    fn catch_up(&mut self) -> Result<(), Failure> {
        self.write_history()?;
        self.until_equal("20,000 rows in the office's database")?;
        let mut branch = Shop::create(&self.folder, "branch")?;
        let total = self.till.rows()?;
        let start = Instant::now();
        let node = Node::start(&branch, &self.secret, Some(&self.till_node.address), &self.patience)?;
        self.patience.wait("all rows in the new database", LOOK_AT_ALL, || Ok(branch.rows()? == total))?;
        let took = start.elapsed();
        let same = branch.images()? == self.till.images()?;
        let rows = thousands(total.unsigned_abs());
        self.report.check(
            format_args!("a new node with an empty database has all {rows} rows {}", after(took)),
            same,
        )?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = total as f64 / took.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        let rounded = thousands(rate.round() as u64);
        self.report.figure(
            "catch-up",
            &format!("{rounded} rows/s, the start of its process included"),
            json!({ "figure": "catch_up", "rows": total, "durability": "normal",
                "seconds": took.as_secs_f64(), "rows_per_second": rate }),
        )?;
        let stopped = node.stop().is_some_and(|status| status.success());
        self.report.check("it has stopped cleanly", stopped)
    }

    /// 20,000 rows: orders with their lines.
    fn write_history(&mut self) -> Result<(), Failure> {
        for first in (0..ORDERS).step_by(ORDERS_PER_TRANSACTION) {
            self.patience.check()?;
            self.till.write(|shop| {
                let mut order = shop.prepare_cached("INSERT INTO orders (id, customer) VALUES (?1, 'c2')")?;
                let mut line = shop.prepare_cached("INSERT INTO order_lines VALUES (?1, ?2, 'filter', 1)")?;
                for number in first..first + ORDERS_PER_TRANSACTION {
                    let id = format!("history-{number}");
                    order.execute([&id])?;
                    for position in 1..=LINES_PER_ORDER {
                        line.execute((&id, position))?;
                    }
                }
                Ok(())
            })?;
        }
        let rows = thousands(ORDERS as u64 * (1 + LINES_PER_ORDER.unsigned_abs()));
        self.report.story("till", format_args!("INSERT {rows} rows of orders and their lines"))
    }
}

/// Of sorted times.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
