//! The stages of the demo but the measured ones.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use console::style;
use rusqlite::Transaction;

use super::node::Node;
use super::patience::Patience;
use super::report::Report;
use super::schema::TABLES;
use super::shop::{Image, Shop};
use crate::calendar::Calendar;
use crate::conflicts;
use crate::failure::Failure;
use crate::output::count;
use crate::status::short;
use crate::{keygen, verify};

/// Between two looks at a database for something to arrive.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// Write times have a resolution of a millisecond; edits so far apart have a clear order.
const LATER: Duration = Duration::from_millis(50);

const PRODUCTS: [(&str, &str, i64); 6] = [
    ("espresso", "Espresso", 220),
    ("latte", "Caffè latte", 340),
    ("filter", "Filter coffee", 280),
    ("decaf", "Decaf", 240),
    ("croissant", "Croissant", 190),
    ("brownie", "Brownie", 320),
];
const CUSTOMERS: [(&str, &str, &str); 3] =
    [("c1", "Ada", "London"), ("c2", "Grace", "New York"), ("c3", "Linus", "Helsinki")];

/// More conflicts than there can be.
const CONFLICTS_MAX: u32 = 10;
/// The price that loses the conflict, written by the till first.
const TILL_PRICE: i64 = 240;
/// The price that wins it, written by the office later.
const OFFICE_PRICE: i64 = 260;

/// The demo as it goes on.
pub(super) struct Demo {
    pub(super) folder: PathBuf,
    pub(super) report: Report,
    pub(super) patience: Patience,
    pub(super) secret: PathBuf,
    pub(super) till: Shop,
    pub(super) office: Shop,
    pub(super) till_node: Node,
    /// `None` while it is off.
    pub(super) office_node: Option<Node>,
}

impl Demo {
    /// Makes the databases and starts a node beside each.
    pub(super) fn set_up(folder: &Path, mut report: Report, patience: Patience) -> Result<Self, Failure> {
        report.title(
            "EntglDb demo: a till and an office, each with its own SQLite database",
            "Three processes: an application that only knows SQL, and a node beside each database.",
        )?;
        report.stage("Start: one command beside each database")?;
        let secret = folder.join("cluster.secret");
        keygen::generate_into(&secret)?;
        let till = Shop::create(folder, "till")?;
        let office = Shop::create(folder, "office")?;
        let mut till_node = Node::start(&till, &secret, None, &patience)?;
        let mut office_node = Node::start(&office, &secret, Some(&till_node.address), &patience)?;
        let met = till_node.wait_for("peer_up", &patience)?;
        office_node.wait_for("peer_up", &patience)?;
        for (shop, node) in [(&till, &till_node), (&office, &office_node)] {
            report.story(
                shop.name,
                format_args!(
                    "{:12} node {}   {:17}   process {}",
                    format!("{}.db", shop.name),
                    short(&node.id),
                    node.address,
                    node.pid()
                ),
            )?;
        }
        let right_one = met["node"] == office_node.id.as_str();
        report.check("linked: encrypted, and each has proved that it has the cluster secret", right_one)?;
        let office_node = Some(office_node);
        let folder = folder.to_owned();
        Ok(Self { folder, report, patience, secret, till, office, till_node, office_node })
    }

    /// Writes on either side arrive on the other.
    pub(super) fn live(&mut self) -> Result<(), Failure> {
        self.report.stage("Live: what either program commits appears in the other database")?;
        self.till.write(|shop| {
            for (sku, name, price) in PRODUCTS {
                shop.execute("INSERT INTO products VALUES (?1, ?2, ?3)", (sku, name, price))?;
            }
            for (id, name, city) in CUSTOMERS {
                shop.execute("INSERT INTO customers VALUES (?1, ?2, ?3)", (id, name, city))?;
            }
            order(shop, "till-1", "c1", &["espresso", "croissant"])
        })?;
        self.report.story("till", "INSERT 6 products, 3 customers, an order with 2 lines")?;
        let took = self.until_equal("the till's rows in the office's database")?;
        let here = self.office.finds("SELECT 1 FROM orders WHERE id = ?1", "till-1")?;
        self.report.check(format_args!("the office has them {}", after(took)), here)?;

        self.office.write(|shop| {
            order(shop, "office-1", "c2", &["latte", "brownie", "filter"])?;
            shop.execute("UPDATE customers SET city = 'Arlington' WHERE id = 'c2'", []).map(drop)
        })?;
        self.report.story("office", "INSERT an order with 3 lines, UPDATE a customer")?;
        let took = self.until_equal("the office's rows in the till's database")?;
        let here = self.till.finds("SELECT 1 FROM customers WHERE id = ?1 AND city = 'Arlington'", "c2")?;
        self.report.check(format_args!("the till has them {}", after(took)), here)
    }

    /// One node is gone, and both programs go on.
    pub(super) fn apart(&mut self) -> Result<(), Failure> {
        self.report.stage("Apart: the office's node is killed (kill -9), both programs go on")?;
        if let Some(node) = self.office_node.take() {
            node.kill()?;
        }
        self.till_node.wait_for("peer_down", &self.patience)?;
        self.till.write(|shop| {
            order(shop, "till-2", "c3", &["espresso", "espresso"])?;
            shop.execute("UPDATE products SET price_cents = ?1 WHERE sku = 'espresso'", [TILL_PRICE])
                .map(drop)
        })?;
        self.report
            .story("till", format_args!("INSERT an order; espresso now costs {}", money(TILL_PRICE)))?;
        thread::sleep(LATER);
        self.office.write(|shop| {
            shop.execute("INSERT INTO products VALUES ('chai', 'Chai', 350)", [])?;
            shop.execute("DELETE FROM products WHERE sku = 'decaf'", [])?;
            shop.execute("UPDATE products SET price_cents = ?1 WHERE sku = 'espresso'", [OFFICE_PRICE])
                .map(drop)
        })?;
        self.report.story(
            "office",
            format_args!("INSERT chai, DELETE decaf; espresso now costs {}", money(OFFICE_PRICE)),
        )?;
        let crossed = self.office.finds("SELECT 1 FROM orders WHERE id = ?1", "till-2")?
            || self.till.finds("SELECT 1 FROM products WHERE sku = ?1", "chai")?;
        self.report.check("nothing has crossed: each database has its own edits only", !crossed)
    }

    /// The node is back, and finds what was written without it.
    pub(super) fn healed(&mut self) -> Result<(), Failure> {
        self.report.stage("Healed: the node is started again")?;
        let start = Instant::now();
        let node = Node::start(&self.office, &self.secret, Some(&self.till_node.address), &self.patience)?;
        self.office_node = Some(node);
        self.until_equal("both databases equal after the node is back")?;
        let took = start.elapsed();
        let (till, office) = (self.till.images()?, self.office.images()?);
        self.report.story("", style("  rows   content of till   content of office").dim())?;
        for (table, (left, right)) in TABLES.iter().zip(till.iter().zip(&office)) {
            self.show_table(table, *left, *right)?;
        }
        self.report
            .check(format_args!("both databases hold the same rows {}", after(took)), till == office)?;
        let all_edits = self.office.finds("SELECT 1 FROM orders WHERE id = ?1", "till-2")?
            && self.till.finds("SELECT 1 FROM products WHERE sku = ?1", "chai")?
            && !self.till.finds("SELECT 1 FROM products WHERE sku = ?1", "decaf")?;
        self.report.check("no edit of either side is missing, none made offline either", all_edits)?;
        let whole = self.till.dangling()? == 0 && self.office.dangling()? == 0;
        self.report.check("all foreign keys hold on both sides", whole)
    }

    /// Both changed the price of one product.
    pub(super) fn conflict(&mut self) -> Result<(), Failure> {
        self.report.stage("The conflict: both changed the price of espresso")?;
        let prices = (self.till.price("espresso")?, self.office.price("espresso")?);
        self.report.check(
            format_args!("the later edit stands on both sides: {} (office)", money(OFFICE_PRICE)),
            prices == (Some(OFFICE_PRICE), Some(OFFICE_PRICE)),
        )?;
        let lists = [
            conflicts::list(&self.till.path, CONFLICTS_MAX)?,
            conflicts::list(&self.office.path, CONFLICTS_MAX)?,
        ];
        for line in &lists[0] {
            self.show_version("stands", &line.winner)?;
            self.show_version("lost", &line.loser)?;
        }
        self.report.check(
            format_args!("the other one, {} (till), is kept in the conflict list of both", money(TILL_PRICE)),
            lists.iter().all(|list| self.is_the_conflict(list)),
        )
    }

    fn show_version(&self, what: &str, side: &conflicts::Side) -> Result<(), Failure> {
        let price = price_in(side).map_or_else(String::new, money);
        let at = Calendar::new().local(side.at_ms);
        self.report.story(what, format_args!("{price}   written {at} by node {}", short(&side.node)))
    }

    /// Exactly that one, with who wrote which version.
    fn is_the_conflict(&self, list: &[conflicts::Line]) -> bool {
        let office = self.office_node.as_ref().map(|node| node.id.as_str());
        matches!(list, [only] if only.collection == "products"
            && only.key == "espresso"
            && price_in(&only.winner) == Some(OFFICE_PRICE)
            && price_in(&only.loser) == Some(TILL_PRICE)
            && Some(only.winner.node.as_str()) == office
            && only.loser.node == self.till_node.id)
    }

    /// `entgldb verify` on both databases, while the nodes run.
    pub(super) fn verified(&mut self) -> Result<(), Failure> {
        self.report.stage("Verified: every hash, chain, signature and row, while the nodes run")?;
        for shop in [&self.till, &self.office] {
            self.patience.check()?;
            let found = verify::check(&shop.path, |_| {})?;
            let (entries, signatures) = (count(found.entries, "entry"), count(found.signatures, "signature"));
            self.report.check(
                format_args!("{}.db: {entries}, {signatures}, no fault", shop.name),
                found.is_clean(),
            )?;
        }
        Ok(())
    }

    /// Stops the nodes and says so.
    pub(super) fn stop(self) -> Result<(), Failure> {
        let mut report = self.report;
        let ends = [Some(self.till_node), self.office_node].map(|node| node.and_then(Node::stop));
        let clean = ends.iter().all(|end| end.is_some_and(|status| status.success()));
        report.check("all nodes have stopped cleanly", clean)?;
        report.end()
    }

    /// Waits until both databases hold the same, and says how long it took.
    pub(super) fn until_equal(&mut self, what: &str) -> Result<Duration, Failure> {
        let (till, office) = (&mut self.till, &mut self.office);
        self.patience.wait(what, LOOK, || Ok(till.images()? == office.images()?))
    }

    fn show_table(&self, table: &str, till: Image, office: Image) -> Result<(), Failure> {
        let same = if till == office { style("same").green() } else { style("different").red() };
        self.report.story(
            table,
            format_args!("{:>6}   {:016x}  {:016x}   {same}", till.rows, till.digest, office.digest),
        )
    }
}

fn order(shop: &Transaction, id: &str, customer: &str, skus: &[&str]) -> rusqlite::Result<()> {
    shop.execute("INSERT INTO orders (id, customer) VALUES (?1, ?2)", (id, customer))?;
    for (line, sku) in (1_i64..).zip(skus) {
        shop.execute("INSERT INTO order_lines VALUES (?1, ?2, ?3, 1)", (id, line, sku))?;
    }
    Ok(())
}

fn price_in(side: &conflicts::Side) -> Option<i64> {
    side.content.as_ref()?["price_cents"].as_i64()
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// How long something took, to be read after a claim.
pub(super) fn after(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        return format!("after {:.1} ms", took.as_secs_f64() * 1e3);
    }
    format!("after {:.2} s", took.as_secs_f64())
}
