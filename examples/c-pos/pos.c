/*
 * A till: products, stock and sales in an SQLite database of its own, in sync with the other tills.
 *
 *     pos FOLDER [--name till-1] [--listen 0.0.0.0:7701] [--peer HOST:PORT]... [--secret FILE]
 *
 * The program owns its database and would work the same without EntglDb: what syncs it is in `go_online` and `go_offline`, about
 * thirty lines. Stock is not a number that two tills could both overwrite: it is deliveries minus sales, each a row that
 * one till writes once. A price is overwritten; if two tills change it apart, the later change stands and `conflicts` shows the other.
 *
 * On a terminal it draws a screen, anew whenever another till has sold something; else it answers line by line, which is how
 * the tests drive it. The screen needs SQLite 3.38 or later, the rest what the adapter needs.
 */
#include "entgldb_sqlite.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PEERS_MAX = 16, LINE_MAX_BYTES = 300, SALES_SHOWN = 6, LOOK_MS = 500 };

typedef struct till {
    char folder[300], name[60], listen[100], secret[400];
    const char *peers[PEERS_MAX];
    int peer_count;
    int screen; /* whether there is a terminal to draw on */
    sqlite3 *db;
    entgldb_node *node; /* NULL while offline */
    char message[2000]; /* the answer to the last command */
} till;

static void say(till *t, const char *text) { snprintf(t->message, sizeof t->message, "%s", text); }

static void say_error(till *t, const char *what) {
    char error[1000];
    entgldb_last_error(error, sizeof error);
    snprintf(t->message, sizeof t->message, "error: %s: %s", what, error);
}

/* ---- the shop: plain SQLite ----------------------------------------------------------------------------------------- */

static const char *const tables[] = {"products", "deliveries", "sales"};

static const char schema[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
    "CREATE TABLE IF NOT EXISTS products(sku TEXT PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS deliveries(till TEXT, no INTEGER, sku TEXT NOT NULL, quantity INTEGER NOT NULL, PRIMARY KEY (till, no));"
    "CREATE TABLE IF NOT EXISTS sales(till TEXT, no INTEGER, sku TEXT NOT NULL, quantity INTEGER NOT NULL,"
    "  at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (till, no));"
    "CREATE VIEW IF NOT EXISTS stock AS SELECT sku, name, price_cents,"
    "  coalesce((SELECT sum(quantity) FROM deliveries d WHERE d.sku = p.sku), 0)"
    "  - coalesce((SELECT sum(quantity) FROM sales s WHERE s.sku = p.sku), 0) AS quantity FROM products p;";

static int open_database(till *t) {
    char path[400];
    snprintf(path, sizeof path, "%s/shop.db", t->folder);
    if (sqlite3_open(path, &t->db) != SQLITE_OK) return 0;
    sqlite3_busy_timeout(t->db, 10000);
    return sqlite3_exec(t->db, schema, NULL, NULL, NULL) == SQLITE_OK;
}

/* Runs a statement with up to two texts and a number as ?1, ?2, ?3. Answers how many rows it changed, or -1. */
static int change(till *t, const char *sql, const char *one, const char *two, long three) {
    sqlite3_stmt *statement;
    int changed = -1;
    if (sqlite3_prepare_v2(t->db, sql, -1, &statement, NULL) == SQLITE_OK) {
        sqlite3_bind_text(statement, 1, one, -1, SQLITE_STATIC);
        sqlite3_bind_text(statement, 2, two, -1, SQLITE_STATIC);
        sqlite3_bind_int64(statement, 3, three);
        if (sqlite3_step(statement) == SQLITE_DONE) changed = sqlite3_changes(t->db);
    }
    if (changed < 0) snprintf(t->message, sizeof t->message, "error: %s", sqlite3_errmsg(t->db));
    sqlite3_finalize(statement);
    return changed;
}

static long number(till *t, const char *sql, const char *one) {
    sqlite3_stmt *statement;
    long value = -1;
    if (sqlite3_prepare_v2(t->db, sql, -1, &statement, NULL) == SQLITE_OK) {
        if (one) sqlite3_bind_text(statement, 1, one, -1, SQLITE_STATIC);
        if (sqlite3_step(statement) == SQLITE_ROW) value = (long)sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    return value;
}

/* Sells if there is enough, in one transaction. */
static void sell(till *t, const char *sku, long quantity) {
    if (quantity < 1) {
        say(t, "error: sell SKU QUANTITY");
        return;
    }
    if (sqlite3_exec(t->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) {
        snprintf(t->message, sizeof t->message, "error: %s", sqlite3_errmsg(t->db));
        return;
    }
    if (number(t, "SELECT quantity FROM stock WHERE sku = ?1", sku) < quantity) {
        say(t, "error: not enough in stock");
    } else if (change(t, "INSERT INTO sales(till, no, sku, quantity)"
                         " SELECT ?1, coalesce(max(no), 0) + 1, ?2, ?3 FROM sales WHERE till = ?1",
                      t->name, sku, quantity) == 1) {
        long no = number(t, "SELECT max(no) FROM sales WHERE till = ?1", t->name);
        if (sqlite3_exec(t->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK) {
            snprintf(t->message, sizeof t->message, "sold %s-%ld", t->name, no);
            return;
        }
        snprintf(t->message, sizeof t->message, "error: %s", sqlite3_errmsg(t->db));
    }
    sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL);
}

static void deliver(till *t, const char *sku, long quantity) {
    if (number(t, "SELECT count(*) FROM products WHERE sku = ?1", sku) != 1) {
        say(t, "error: no such product");
    } else if (change(t, "INSERT INTO deliveries(till, no, sku, quantity)"
                         " SELECT ?1, coalesce(max(no), 0) + 1, ?2, ?3 FROM deliveries WHERE till = ?1",
                      t->name, sku, quantity) == 1) {
        say(t, "delivered");
    }
}

/* ---- sync ----------------------------------------------------------------------------------------------------------- */

static int go_online(till *t) {
    char path[400], config[4000], error[500];
    entgldb_sqlite *adapter;
    entgldb_store store;
    int at, i;
    snprintf(path, sizeof path, "%s/shop.db", t->folder);
    if (entgldb_sqlite_open(path, tables, 3, &adapter, error, sizeof error) != SQLITE_OK) {
        snprintf(t->message, sizeof t->message, "error: %s", error);
        return 0;
    }
    entgldb_sqlite_store(adapter, &store);
    at = snprintf(config, sizeof config,
                  "{\"database\":\"%s/sync.entgldb\",\"secret_file\":\"%s\",\"name\":\"%s\",\"listen\":\"%s\","
                  "\"watch\":[\"products\",\"deliveries\",\"sales\"],\"peers\":[",
                  t->folder, t->secret, t->name, t->listen);
    for (i = 0; i < t->peer_count && at < (int)sizeof config; i++) {
        at += snprintf(config + at, sizeof config - (size_t)at, "%s\"%s\"", i ? "," : "", t->peers[i]);
    }
    if (at < (int)sizeof config) at += snprintf(config + at, sizeof config - (size_t)at, "]}");
    if (at >= (int)sizeof config) {
        say(t, "error: these names are too long");
        entgldb_sqlite_close(adapter);
        return 0;
    }
    if (entgldb_open(entgldb_str(config), &store, &t->node) != ENTGLDB_OK) {
        t->node = NULL;
        say_error(t, "cannot sync");
        return 0;
    }
    entgldb_sqlite_attach(t->db, t->node);
    say(t, "online");
    return 1;
}

static void go_offline(till *t) {
    if (t->node) {
        if (entgldb_close(t->node, 10000) != ENTGLDB_OK) say_error(t, "closing");
        entgldb_free(t->node);
    }
    t->node = NULL;
    say(t, "offline");
}

/* Asks the engine. A program gets its JSON; on the screen SQLite, which reads JSON well, makes a line of each row of `lines`. */
static void ask(till *t, const char *request, const char *lines, const char *none) {
    entgldb_buffer answer;
    sqlite3_stmt *rows;
    size_t at = 0;
    if (!t->node) {
        say(t, "offline");
        return;
    }
    if (entgldb_command(t->node, entgldb_str(request), &answer) != ENTGLDB_OK) {
        say_error(t, "no answer");
        return;
    }
    say(t, t->screen ? none : (const char *)answer.data);
    if (t->screen && sqlite3_prepare_v2(t->db, lines, -1, &rows, NULL) == SQLITE_OK) {
        sqlite3_bind_text(rows, 1, (const char *)answer.data, (int)answer.len, SQLITE_STATIC);
        while (sqlite3_step(rows) == SQLITE_ROW && at < sizeof t->message - 1) {
            at += (size_t)snprintf(t->message + at, sizeof t->message - at, "%s%s", at ? "\n  " : "", sqlite3_column_text(rows, 0));
        }
        sqlite3_finalize(rows);
    }
    entgldb_buffer_free(&answer);
}

static const char peer_lines[] =
    "SELECT format('%-16s %s%s', p.value ->> 'name',"
    "  iif(p.value ->> 'behind' = 0 AND p.value ->> 'ahead' = 0, 'in sync', format('%d to come, %d to send', p.value ->> 'behind', p.value ->> 'ahead')),"
    "  iif(abs(p.value ->> 'skew_ms') > 2000, format(', its clock is off by %d s', (p.value ->> 'skew_ms') / 1000), ''))"
    " FROM json_each(?1, '$.peers') p";

static const char conflict_lines[] =
    "SELECT format('%s %s: %s stands' || char(10) || '      not %s', c.value ->> 'collection', c.value ->> 'key',"
    "  coalesce(c.value ->> '$.winner.content', 'that it is gone'), coalesce(c.value ->> '$.loser.content', 'that it is gone'))"
    " FROM json_each(?1, '$.conflicts') c";

static const char quarantine_lines[] =
    "SELECT format('%s %s: %s', d.value ->> 'collection', d.value ->> 'key', d.value ->> 'message') FROM json_each(?1, '$.documents') d";

static void sync_now(till *t) {
    entgldb_status status = t->node ? entgldb_sync_now(t->node, entgldb_str(""), 10000) : ENTGLDB_ERROR_CLOSED;
    if (status == ENTGLDB_OK) {
        say(t, "in sync");
    } else if (t->node) {
        say_error(t, "not in sync");
    } else {
        say(t, "offline");
    }
}

/* How many links the status shows; -1 while offline. */
static int links(till *t) {
    entgldb_buffer status;
    const char *at, *end;
    int count = 0, depth = 0;
    if (!t->node || entgldb_status_json(t->node, &status) != ENTGLDB_OK) return -1;
    at = strstr((const char *)status.data, "\"peers\":[");
    for (end = at ? at + 8 : ""; *end && (*end != ']' || depth); end++) {
        if (*end == '{' && depth++ == 0) count++;
        if (*end == '}') depth--;
    }
    entgldb_buffer_free(&status);
    return count;
}

static void say_address(till *t) {
    entgldb_buffer status;
    const char *at;
    say(t, "offline");
    if (!t->node || entgldb_status_json(t->node, &status) != ENTGLDB_OK) return;
    at = strstr((const char *)status.data, "\"listen\":\"");
    if (at) snprintf(t->message, sizeof t->message, "%.*s", (int)strcspn(at + 10, "\""), at + 10);
    entgldb_buffer_free(&status);
}

/* ---- the screen ----------------------------------------------------------------------------------------------------- */

static void print_stock(till *t) {
    sqlite3_stmt *rows;
    printf("  %-10s %-24s %9s %7s\n", "SKU", "PRODUCT", "PRICE", "STOCK");
    if (sqlite3_prepare_v2(t->db, "SELECT sku, name, price_cents / 100.0, quantity FROM stock ORDER BY sku", -1, &rows, NULL) == SQLITE_OK) {
        while (sqlite3_step(rows) == SQLITE_ROW) {
            printf("  %-10s %-24s %9.2f %7d\n", sqlite3_column_text(rows, 0), sqlite3_column_text(rows, 1),
                   sqlite3_column_double(rows, 2), sqlite3_column_int(rows, 3));
        }
    }
    sqlite3_finalize(rows);
}

static void print_sales(till *t) {
    sqlite3_stmt *rows;
    printf("  last sales\n");
    if (sqlite3_prepare_v2(t->db, "SELECT till || '-' || no, at, quantity, sku FROM sales ORDER BY at DESC, no DESC LIMIT ?1", -1, &rows, NULL) == SQLITE_OK) {
        sqlite3_bind_int(rows, 1, SALES_SHOWN);
        while (sqlite3_step(rows) == SQLITE_ROW) {
            printf("  %-14s %s  %d x %s\n", sqlite3_column_text(rows, 0), sqlite3_column_text(rows, 1), sqlite3_column_int(rows, 2),
                   sqlite3_column_text(rows, 3));
        }
    }
    sqlite3_finalize(rows);
}

/* Draws all but the third line, where the next command is being typed. */
static void draw(till *t, int peers) {
    printf("\0337\033[H\033[7m  %-24s", t->name);
    if (peers < 0) {
        printf("%34s  ", "OFFLINE");
    } else {
        printf("%20s %d linked%5s", "online,", peers, "");
    }
    printf("\033[0m\033[K\033[4;1H\033[J  %s\n\n", t->message);
    print_stock(t);
    printf("\n");
    print_sales(t);
    printf("\n  add SKU CENTS NAME | price SKU CENTS | deliver SKU N | sell SKU N | drop SKU\n"
           "  offline | online | sync | peers | conflicts | quarantine | quit\0338");
    fflush(stdout);
}

/* Draws until a line is there to read, whenever somebody else has written to the database or a link came or went. */
static void draw_until_asked(till *t) {
    struct pollfd input = {0, POLLIN, 0};
    long seen = -1;
    int linked = 0;
    printf("\033[2J\033[3;1H> ");
    do {
        long version = number(t, "PRAGMA data_version", NULL);
        int peers = links(t);
        if (version != seen || peers != linked) draw(t, peers);
        seen = version;
        linked = peers;
    } while (poll(&input, 1, LOOK_MS) == 0);
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

/* Carries out one line. 0 ends the program. */
static int obey(till *t, char *line) {
    char word[20] = "", sku[60] = "", rest[200] = "";
    long amount = 0;
    int words = sscanf(line, "%19s %59s %ld %199[^\n]", word, sku, &amount, rest);
    say(t, "");
    if (words < 1) return 1;
    if (strcmp(word, "quit") == 0) return 0;
    if (strcmp(word, "add") == 0 && words == 4) {
        if (change(t, "INSERT INTO products(sku, name, price_cents) VALUES (?1, ?2, ?3)", sku, rest, amount) == 1) say(t, "added");
    } else if (strcmp(word, "price") == 0 && words == 3) {
        if (change(t, "UPDATE products SET price_cents = ?3 WHERE sku = ?1", sku, NULL, amount) >= 0) say(t, "priced");
    } else if (strcmp(word, "drop") == 0 && words == 2) {
        if (change(t, "DELETE FROM products WHERE sku = ?1", sku, NULL, 0) >= 0) say(t, "dropped");
    } else if (strcmp(word, "deliver") == 0 && words == 3) {
        deliver(t, sku, amount);
    } else if (strcmp(word, "sell") == 0 && words == 3) {
        sell(t, sku, amount);
    } else if (strcmp(word, "offline") == 0) {
        go_offline(t);
    } else if (strcmp(word, "online") == 0) {
        if (!t->node) go_online(t);
    } else if (strcmp(word, "sync") == 0) {
        sync_now(t);
    } else if (strcmp(word, "peers") == 0) {
        ask(t, "{\"command\":\"peers\"}", peer_lines, "no other till is linked");
    } else if (strcmp(word, "conflicts") == 0) {
        ask(t, "{\"command\":\"conflicts\"}", conflict_lines, "no conflicts");
    } else if (strcmp(word, "quarantine") == 0) {
        ask(t, "{\"command\":\"quarantine\"}", quarantine_lines, "nothing is set aside");
    } else if (strcmp(word, "address") == 0) {
        say_address(t);
    } else if (strcmp(word, "count") == 0) {
        snprintf(t->message, sizeof t->message, "%ld sales", number(t, "SELECT count(*) FROM sales", NULL));
    } else if (strcmp(word, "stock") == 0 && words >= 2) {
        snprintf(t->message, sizeof t->message, "%ld", number(t, "SELECT quantity FROM stock WHERE sku = ?1", sku));
    } else {
        say(t, "error: what is that?");
    }
    return 1;
}

static int read_arguments(till *t, int count, char **arguments) {
    int i;
    if (count < 2 || arguments[1][0] == '-') return 0;
    snprintf(t->folder, sizeof t->folder, "%s", arguments[1]);
    snprintf(t->name, sizeof t->name, "till");
    snprintf(t->listen, sizeof t->listen, "0.0.0.0:7701");
    snprintf(t->secret, sizeof t->secret, "%s/cluster.secret", t->folder);
    for (i = 2; i + 1 < count; i += 2) {
        const char *value = arguments[i + 1];
        if (strpbrk(value, "\"\\\n")) return 0;
        if (strcmp(arguments[i], "--name") == 0) {
            snprintf(t->name, sizeof t->name, "%s", value);
        } else if (strcmp(arguments[i], "--listen") == 0) {
            snprintf(t->listen, sizeof t->listen, "%s", value);
        } else if (strcmp(arguments[i], "--secret") == 0) {
            snprintf(t->secret, sizeof t->secret, "%s", value);
        } else if (strcmp(arguments[i], "--peer") == 0 && t->peer_count < PEERS_MAX) {
            t->peers[t->peer_count++] = value;
        } else {
            return 0;
        }
    }
    return i == count;
}

int main(int count, char **arguments) {
    static till t;
    char line[LINE_MAX_BYTES];
    if (!read_arguments(&t, count, arguments)) {
        fprintf(stderr, "usage: %s FOLDER [--name NAME] [--listen ADDRESS:PORT] [--peer HOST:PORT]... [--secret FILE]\n", arguments[0]);
        return 2;
    }
    t.screen = isatty(0) && isatty(1);
    mkdir(t.folder, 0700);
    if (access(t.secret, F_OK) != 0 && entgldb_keygen(entgldb_str(t.secret)) == ENTGLDB_OK) {
        fprintf(stderr, "made %s: copy it to the other tills\n", t.secret);
    }
    if (!open_database(&t)) {
        fprintf(stderr, "%s: %s\n", t.folder, sqlite3_errmsg(t.db));
        return 1;
    }
    if (!go_online(&t)) fprintf(stderr, "%s\n", t.message);
    for (;;) {
        if (t.screen) draw_until_asked(&t);
        if (!fgets(line, sizeof line, stdin) || !obey(&t, line)) break;
        if (!t.screen) {
            printf("%s\n", t.message);
            fflush(stdout);
        }
    }
    go_offline(&t);
    sqlite3_close(t.db);
    return 0;
}
