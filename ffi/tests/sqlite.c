/* Two applications with their own SQLite databases, each beside a node, in one process. */
#include "entgldb_sqlite.h"
#include "check.h"

typedef struct shop {
    sqlite3 *db;
    entgldb_node *node;
} shop;

static const char *const tables[] = {"products", "sales", "cards"};

static void exec(shop *s, const char *sql) {
    char *why = NULL;
    if (sqlite3_exec(s->db, sql, NULL, NULL, &why) != SQLITE_OK) check_failed(__FILE__, __LINE__, why);
}

static long number(shop *s, const char *sql) {
    sqlite3_stmt *statement;
    long value = -1;
    CHECK(sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL) == SQLITE_OK);
    if (sqlite3_step(statement) == SQLITE_ROW) value = (long)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void open_shop(shop *s, const char *name, const char *more) {
    char path[300], config[1000], error[300];
    entgldb_sqlite *adapter;
    entgldb_store store;
    snprintf(path, sizeof path, "%s/%s.db", check_folder, name);
    CHECK(sqlite3_open(path, &s->db) == SQLITE_OK);
    sqlite3_busy_timeout(s->db, 5000);
    exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
            "CREATE TABLE IF NOT EXISTS products(sku TEXT PRIMARY KEY, name TEXT NOT NULL, price REAL);"
            "CREATE TABLE IF NOT EXISTS sales(till TEXT, no INTEGER, sku TEXT, quantity INTEGER, PRIMARY KEY (till, no));"
            "CREATE TABLE IF NOT EXISTS cards(id INTEGER PRIMARY KEY, email TEXT UNIQUE);");
    if (entgldb_sqlite_open(path, tables, 3, &adapter, error, sizeof error) != SQLITE_OK) check_failed(__FILE__, __LINE__, error);
    entgldb_sqlite_store(adapter, &store);
    snprintf(config, sizeof config,
             "{\"database\":\"%s/%s.entgldb\",\"secret_file\":\"%s/secret\",\"watch\":[\"products\",\"sales\",\"cards\"],"
             "\"listen\":\"127.0.0.1:0\",\"sync_interval_ms\":100%s}",
             check_folder, name, check_folder, more);
    CHECK_STATUS(entgldb_open(entgldb_str(config), &store, &s->node), ENTGLDB_OK);
    CHECK(entgldb_sqlite_attach(s->db, s->node) == SQLITE_OK);
}

static void close_shop(shop *s) {
    CHECK_STATUS(entgldb_close(s->node, 10000), ENTGLDB_OK);
    entgldb_free(s->node);
    sqlite3_close(s->db);
}

/* The one card that there is. */
static long card(shop *s) { return number(s, "SELECT iif(count(*) = 1, max(id), -1) FROM cards"); }

/* Both nodes give a card to the same email, each before it knows of the other. */
static void the_same_email_given_twice_is_settled_alike(shop *a, shop *b) {
    exec(a, "BEGIN IMMEDIATE");
    exec(b, "BEGIN IMMEDIATE");
    exec(a, "INSERT INTO cards VALUES(1, 'ann@shop')");
    pause_ms(5);
    exec(b, "INSERT INTO cards VALUES(2, 'ann@shop')");
    exec(a, "COMMIT");
    exec(b, "COMMIT");
    WAIT(card(a) == 2 && card(b) == 2);
    CHECK_STATUS(entgldb_sync_now(a->node, entgldb_str(""), 20000), ENTGLDB_OK);
    CHECK(card(a) == 2 && card(b) == 2);
    /* When it goes, the other one is there on both. */
    exec(a, "DELETE FROM cards");
    WAIT(card(a) == 1 && card(b) == 1);
}

int main(void) {
    shop a, b;
    char address[100], more[300];
    make_folder();
    open_shop(&a, "a", "");
    address_of(a.node, address, sizeof address);
    exec(&a, "INSERT INTO products VALUES('tea', 'Tea', 3.5), ('ink', 'Ink', 12)");
    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", address);
    open_shop(&b, "b", more);
    WAIT(number(&b, "SELECT count(*) FROM products") == 2);
    CHECK(number(&b, "SELECT price = 3.5 FROM products WHERE sku = 'tea'") == 1);

    /* One transaction arrives as one; both write; a delete travels. */
    exec(&b, "BEGIN; INSERT INTO sales VALUES('b', 1, 'tea', 2); UPDATE products SET price = 4 WHERE sku = 'tea';"
             "DELETE FROM products WHERE sku = 'ink'; COMMIT");
    exec(&a, "INSERT INTO sales VALUES('a', 1, 'tea', 1)");
    WAIT(number(&a, "SELECT count(*) FROM sales") == 2);
    CHECK(number(&a, "SELECT count(*) FROM products") == 1 && number(&a, "SELECT price = 4.0 FROM products") == 1);
    WAIT(number(&b, "SELECT count(*) FROM sales") == 2);

    /* What is written while the node is off waits in the outbox. */
    close_shop(&b);
    CHECK(sqlite3_open((snprintf(more, sizeof more, "%s/b.db", check_folder), more), &b.db) == SQLITE_OK);
    exec(&b, "INSERT INTO sales VALUES('b', 2, 'tea', 5)");
    CHECK(number(&b, "SELECT count(*) FROM _entgldb_host_outbox") > 0);
    sqlite3_close(b.db);
    exec(&a, "INSERT INTO sales VALUES('a', 2, 'tea', 7)");
    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", address);
    open_shop(&b, "b", more);
    WAIT(number(&a, "SELECT sum(quantity) FROM sales") == 15);
    WAIT(number(&b, "SELECT sum(quantity) FROM sales") == 15);
    CHECK_STATUS(entgldb_sync_now(b.node, entgldb_str(""), 20000), ENTGLDB_OK);
    if (sqlite3_libversion_number() >= 3035000) the_same_email_given_twice_is_settled_alike(&a, &b);
    WAIT(number(&b, "SELECT count(*) FROM _entgldb_host_outbox") == 0);
    close_shop(&a);
    close_shop(&b);
    return 0;
}
