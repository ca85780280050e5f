/* The SQLite adapter by itself: the mapping's golden vectors in both directions, capture, pages, what a row cannot hold. The
 * engine's side is played here, so that nothing but the adapter is tested. */
#include "../../examples/c/entgldb_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s (case %s; error %s)\n", __FILE__, __LINE__, #condition, current, error); \
            exit(1); \
        } \
    } while (0)

/* ---- the engine's side ---- */

typedef struct answer {
    char key[1100], content[4000];
    uint64_t id;
    int missing;
} answer;

static answer answers[5000];
static size_t given;
static char error[500];
static const char *current = "none";
static int touched;
/* Only passed on. */
#define REPLY ((entgldb_reply *)error)

static void take(char *to, size_t cap, entgldb_bytes from) {
    CHECK(from.len < cap);
    if (from.len) memcpy(to, from.data, from.len);
    to[from.len] = 0;
}

entgldb_status entgldb_reply_doc(entgldb_reply *reply, entgldb_bytes content) {
    (void)reply;
    answers[given].missing = 0;
    take(answers[given++].content, 4000, content);
    return ENTGLDB_OK;
}

entgldb_status entgldb_reply_missing(entgldb_reply *reply) {
    (void)reply;
    answers[given++].missing = 1;
    return ENTGLDB_OK;
}

entgldb_status entgldb_reply_entry(entgldb_reply *reply, entgldb_bytes key, entgldb_bytes content) {
    (void)reply;
    take(answers[given].key, 1100, key);
    take(answers[given++].content, 4000, content);
    return ENTGLDB_OK;
}

entgldb_status entgldb_reply_change(entgldb_reply *reply, uint64_t id, entgldb_bytes collection, entgldb_bytes key,
                                    uint64_t written_ms) {
    (void)reply;
    (void)collection;
    CHECK(written_ms > 1600000000000u);
    answers[given].id = id;
    take(answers[given++].key, 1100, key);
    return ENTGLDB_OK;
}

entgldb_status entgldb_reply_blocked(entgldb_reply *reply, entgldb_bytes collection, entgldb_bytes key) {
    (void)reply;
    CHECK(collection.len == 1);
    take(answers[given++].key, 1100, key);
    return ENTGLDB_OK;
}

entgldb_status entgldb_reply_error(entgldb_reply *reply, entgldb_bytes message) {
    (void)reply;
    take(error, sizeof error, message);
    return ENTGLDB_OK;
}

entgldb_status entgldb_touch(const entgldb_node *node, const entgldb_doc *keys, size_t n) {
    (void)node;
    (void)keys;
    (void)n;
    touched++;
    return ENTGLDB_OK;
}

/* ---- a database and its adapter ---- */

static char path[] = "/tmp/entgldb-adapter-XXXXXX";
static sqlite3 *app;
static entgldb_store store;

static void remove_files(void) {
    char name[100];
    unlink(path);
    snprintf(name, sizeof name, "%s-wal", path);
    unlink(name);
    snprintf(name, sizeof name, "%s-shm", path);
    unlink(name);
}

static void exec(const char *sql) {
    char *why = NULL;
    if (sqlite3_exec(app, sql, NULL, NULL, &why) != SQLITE_OK) {
        fprintf(stderr, "%s: %s\n", sql, why);
        exit(1);
    }
}

static long number(const char *sql) {
    sqlite3_stmt *statement;
    long value;
    CHECK(sqlite3_prepare_v2(app, sql, -1, &statement, NULL) == SQLITE_OK);
    CHECK(sqlite3_step(statement) == SQLITE_ROW);
    value = (long)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void open_with(const char *schema) {
    static const char *const tables[] = {"t"};
    entgldb_sqlite *adapter;
    remove_files();
    CHECK(sqlite3_open(path, &app) == SQLITE_OK);
    sqlite3_busy_timeout(app, 5000);
    exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
    exec(schema);
    CHECK(entgldb_sqlite_open(path, tables, 1, &adapter, error, sizeof error) == SQLITE_OK);
    entgldb_sqlite_store(adapter, &store);
    CHECK(entgldb_sqlite_attach(app, NULL) == SQLITE_OK);
}

static void close_both(void) {
    store.destroy(store.ctx);
    sqlite3_close(app);
}

static entgldb_doc doc(const char *key, const char *content) {
    entgldb_doc out;
    memset(&out, 0, sizeof out);
    out.collection = entgldb_str("t");
    out.key = entgldb_str(key);
    out.content = entgldb_str(content);
    return out;
}

static entgldb_status apply(const char *key, const char *content) {
    entgldb_doc one = doc(key, content);
    entgldb_status status = store.begin(store.ctx);
    if (status == ENTGLDB_OK) status = store.apply(store.ctx, &one, 1, REPLY);
    if (status == ENTGLDB_OK) return store.commit(store.ctx);
    CHECK(store.rollback(store.ctx) == ENTGLDB_OK);
    return status;
}

static const char *read_one(const char *key) {
    entgldb_doc one = doc(key, "");
    given = 0;
    CHECK(store.read(store.ctx, &one, 1, NULL) == ENTGLDB_OK);
    CHECK(given == 1);
    return answers[0].missing ? NULL : answers[0].content;
}

static size_t outbox(uint64_t after) {
    given = 0;
    CHECK(store.outbox(store.ctx, after, 1000, NULL) == ENTGLDB_OK);
    return given;
}

/* ---- tests ---- */

static void a_row_is_the_document_that_the_vectors_say(const char *vectors) {
    sqlite3 *reader;
    sqlite3_stmt *all;
    int cases = 0;
    CHECK(sqlite3_open(":memory:", &reader) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(reader,
                             "SELECT value ->> 'name', value ->> 'schema', value ->> 'insert', value ->> 'key', "
                             "value ->> 'content' FROM json_each(?1, '$.cases')",
                             -1, &all, NULL) == SQLITE_OK);
    sqlite3_bind_text(all, 1, vectors, -1, SQLITE_STATIC);
    while (sqlite3_step(all) == SQLITE_ROW) {
        const char *schema = (const char *)sqlite3_column_text(all, 1), *insert = (const char *)sqlite3_column_text(all, 2);
        const char *key = (const char *)sqlite3_column_text(all, 3), *content = (const char *)sqlite3_column_text(all, 4);
        current = (const char *)sqlite3_column_text(all, 0);
        open_with(schema);
        exec(insert);
        CHECK(outbox(0) == 1);
        CHECK(strcmp(answers[0].key, key) == 0);
        CHECK(read_one(key) && strcmp(answers[0].content, content) == 0);
        close_both();

        open_with(schema);
        CHECK(apply(key, content) == ENTGLDB_OK);
        CHECK(read_one(key) && strcmp(answers[0].content, content) == 0);
        CHECK(number("SELECT count(*) FROM _entgldb_host_extra") == 0);
        CHECK(outbox(0) == 0);
        close_both();
        cases++;
    }
    sqlite3_finalize(all);
    sqlite3_close(reader);
    current = "none";
    CHECK(cases > 20);
    printf("%d vectors hold in both directions\n", cases);
}

static void every_kind_of_write_is_noted_once_and_in_order(void) {
    current = "writes";
    open_with("CREATE TABLE t(k TEXT PRIMARY KEY, v INTEGER, u TEXT UNIQUE)");
    touched = 0;
    exec("BEGIN; INSERT INTO t VALUES('a', 1, 'x'); UPDATE t SET v = 2; COMMIT");
    CHECK(touched == 1);
    CHECK(outbox(0) == 2 && strcmp(answers[0].key, "a") == 0 && answers[1].id > answers[0].id);
    exec("UPDATE t SET k = 'b'");
    CHECK(outbox(answers[1].id) == 2 && strcmp(answers[0].key, "a") == 0 && strcmp(answers[1].key, "b") == 0);
    CHECK(number("SELECT count(*) FROM _entgldb_host_outbox") == 2);
    exec("INSERT OR REPLACE INTO t VALUES('c', 3, 'x')");
    CHECK(outbox(answers[1].id) == 2 && strcmp(answers[0].key, "b") == 0 && strcmp(answers[1].key, "c") == 0);
    exec("BEGIN; DELETE FROM t; ROLLBACK");
    CHECK(outbox(answers[1].id) == 0);
    close_both();
}

static void a_composite_key_travels(void) {
    current = "composite";
    open_with("CREATE TABLE t(a TEXT, b BLOB, v, PRIMARY KEY(b, a)) WITHOUT ROWID");
    exec("INSERT INTO t VALUES('it''s', x'00', 1.5)");
    CHECK(outbox(0) == 1 && strcmp(answers[0].key, "[{\"$blob\":\"AA==\"},\"it's\"]") == 0);
    CHECK(strcmp(read_one("[{\"$blob\":\"AA==\"},\"it's\"]"), "{\"a\":\"it's\",\"b\":{\"$blob\":\"AA==\"},\"v\":1.5}") == 0);
    close_both();
}

static void a_unit_over_a_write_that_was_not_captured_is_not_committed(void) {
    current = "outbox moved";
    open_with("CREATE TABLE t(k TEXT PRIMARY KEY, v INTEGER)");
    exec("INSERT INTO t VALUES('a', 1)");
    CHECK(apply("a", "{\"k\":\"a\",\"v\":9}") == ENTGLDB_OUTBOX_MOVED);
    CHECK(number("SELECT v FROM t") == 1);
    CHECK(outbox(0) == 1);
    CHECK(apply("a", "{\"k\":\"a\",\"v\":9}") == ENTGLDB_OK);
    CHECK(number("SELECT v FROM t") == 9);
    close_both();
}

static void what_a_row_cannot_hold_comes_back(void) {
    current = "extra";
    open_with("CREATE TABLE t(k TEXT PRIMARY KEY, v INTEGER, w TEXT DEFAULT 'd')");
    CHECK(apply("a", "{\"k\":\"a\", \"v\":true,\"z\":{\"deep\":[1, \"\\\"}\"]}}") == ENTGLDB_OK);
    CHECK(strcmp(read_one("a"), "{\"k\":\"a\", \"v\":true,\"z\":{\"deep\":[1, \"\\\"}\"]}}") == 0);
    CHECK(number("SELECT v FROM t WHERE w = 'd'") == 1);
    exec("UPDATE t SET v = 5");
    CHECK(strcmp(read_one("a"), "{\"k\":\"a\",\"v\":5,\"z\":{\"deep\":[1, \"\\\"}\"]}}") == 0);
    exec("UPDATE t SET w = 'e'");
    CHECK(strcmp(read_one("a"), "{\"k\":\"a\",\"v\":5,\"w\":\"e\",\"z\":{\"deep\":[1, \"\\\"}\"]}}") == 0);
    CHECK(apply("a", "{\"k\":\"a\",\"v\":1,\"w\":\"f\"}") == ENTGLDB_OK || outbox(0) == 2);
    CHECK(apply("a", "{\"k\":\"a\",\"v\":1,\"w\":\"f\"}") == ENTGLDB_OK);
    CHECK(number("SELECT count(*) FROM _entgldb_host_extra") == 0);
    close_both();
}

static void a_document_that_the_table_refuses_fails_alone(void) {
    entgldb_doc docs[2];
    current = "refused";
    open_with("CREATE TABLE t(k INTEGER PRIMARY KEY, v INTEGER CHECK (v < 10))");
    CHECK(apply("1", "{\"k\":1,\"v\":11}") == ENTGLDB_ERROR_HOOK);
    CHECK(strstr(error, "CHECK") != NULL);
    CHECK(apply("007", "{\"k\":7,\"v\":1}") == ENTGLDB_ERROR_HOOK);
    CHECK(apply("7", "{\"k\":8,\"v\":1}") == ENTGLDB_OK && number("SELECT k FROM t") == 7);
    docs[0] = doc("2", "{\"k\":2,\"v\":1}");
    docs[1] = doc("3", "{\"k\":3,\"v\":12}");
    CHECK(store.begin(store.ctx) == ENTGLDB_OK);
    CHECK(store.apply(store.ctx, docs, 2, NULL) == ENTGLDB_ERROR_HOOK);
    /* Without a rollback in between: begin undoes what was left. */
    CHECK(store.begin(store.ctx) == ENTGLDB_OK);
    CHECK(store.commit(store.ctx) == ENTGLDB_OK);
    CHECK(number("SELECT count(*) FROM t") == 1);
    close_both();
}

static int is_blocked_by(const char *key, const char *content, const char *by) {
    given = 0;
    return apply(key, content) == ENTGLDB_ERROR_HOOK && given == 1 && strcmp(answers[0].key, by) == 0 && strstr(error, "UNIQUE");
}

static void rows_that_are_in_the_way_are_told_on_whatever_index(void) {
    uint64_t last;
    current = "in the way";
    open_with("CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT COLLATE NOCASE, c INTEGER, d AS (c * 10));"
              "CREATE UNIQUE INDEX t_b ON t(b) WHERE c > 0; CREATE UNIQUE INDEX t_c ON t(abs(c)) WHERE a IS NOT NULL;"
              "CREATE UNIQUE INDEX t_d ON t(d) WHERE k < 0");
    exec("INSERT INTO t VALUES(1, 'x', 'Bee', 5), (-2, NULL, 'bow', 7)");
    CHECK(outbox(0) == 2);
    last = answers[1].id;
    CHECK(is_blocked_by("3", "{\"k\":3,\"a\":\"x\",\"b\":\"other\",\"c\":1}", "1"));
    CHECK(is_blocked_by("3", "{\"k\":3,\"a\":null,\"b\":\"BEE\",\"c\":1}", "1"));
    CHECK(is_blocked_by("3", "{\"k\":3,\"a\":\"y\",\"b\":\"other\",\"c\":-5}", "1"));
    CHECK(is_blocked_by("-3", "{\"k\":-3,\"a\":null,\"b\":\"other\",\"c\":7}", "-2"));
    /* Its own row is never in its way; and nothing was removed. */
    CHECK(is_blocked_by("-2", "{\"k\":-2,\"a\":\"x\",\"b\":\"bow\",\"c\":7}", "1"));
    CHECK(number("SELECT count(*) FROM t WHERE k = 1 OR a IS NULL") == 2);
    CHECK(apply("1", "{\"k\":1,\"a\":\"x\",\"b\":\"bee\",\"c\":5}") == ENTGLDB_OK);
    CHECK(outbox(last) == 0);
    close_both();
}

static void a_database_that_somebody_holds_makes_the_store_unavailable_only(void) {
    current = "busy";
    open_with("CREATE TABLE t(k TEXT PRIMARY KEY)");
    exec("BEGIN IMMEDIATE");
    CHECK(store.begin(store.ctx) == ENTGLDB_ERROR_STORE);
    exec("COMMIT");
    CHECK(apply("a", "{\"k\":\"a\"}") == ENTGLDB_OK);
    close_both();
}

static void pages_are_in_the_order_of_the_keys_bytes(void) {
    char after[1100] = "", last[1100] = "";
    size_t all = 0, pages = 0;
    current = "pages";
    open_with("CREATE TABLE t(k INTEGER PRIMARY KEY, v)");
    exec("WITH RECURSIVE n(i) AS (SELECT -50 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) INSERT INTO t SELECT i, 1 FROM n");
    for (;;) {
        size_t i;
        given = 0;
        CHECK(store.enumerate(store.ctx, entgldb_str("t"), entgldb_str(after), 1000, NULL) == ENTGLDB_OK);
        if (given == 0) break;
        for (i = 0; i < given; i++) {
            CHECK(strcmp(answers[i].key, last) > 0);
            strcpy(last, answers[i].key);
        }
        all += given;
        pages++;
        strcpy(after, last);
        /* A write in the middle, and a unit, which ends the page: it goes on where it was. */
        if (pages == 1) exec("DELETE FROM t WHERE k = 2400");
        if (pages == 1) CHECK(outbox(0) > 0);
    }
    CHECK(pages == 3 && (all == 2551 || all == 2550));
    close_both();
}

static void what_cannot_be_synced_is_refused_with_a_reason(void) {
    static const char *const tables[] = {"t"};
    entgldb_sqlite *adapter;
    current = "refused tables";
    remove_files();
    CHECK(sqlite3_open(path, &app) == SQLITE_OK);
    CHECK(entgldb_sqlite_open(path, tables, 1, &adapter, error, sizeof error) != SQLITE_OK && adapter == NULL);
    CHECK(strstr(error, "there is no table t") != NULL);
    exec("CREATE TABLE t(v)");
    CHECK(entgldb_sqlite_open(path, tables, 1, &adapter, error, sizeof error) != SQLITE_OK);
    CHECK(strstr(error, "primary key") != NULL);
    exec("DROP TABLE t; CREATE TABLE t(k TEXT PRIMARY KEY); CREATE TABLE _entgldb_outbox(id)");
    CHECK(entgldb_sqlite_open(path, tables, 1, &adapter, error, sizeof error) != SQLITE_OK);
    CHECK(strstr(error, "one or the other") != NULL);
    sqlite3_close(app);
}

int main(int argc, char **argv) {
    static char vectors[1 << 20];
    int handle = mkstemp(path);
    CHECK(handle >= 0);
    close(handle);
    atexit(remove_files);
    if (argc == 2) {
        FILE *file = fopen(argv[1], "rb");
        CHECK(file != NULL);
        vectors[fread(vectors, 1, sizeof vectors - 1, file)] = 0;
        fclose(file);
        a_row_is_the_document_that_the_vectors_say(vectors);
    }
    every_kind_of_write_is_noted_once_and_in_order();
    a_composite_key_travels();
    a_unit_over_a_write_that_was_not_captured_is_not_committed();
    what_a_row_cannot_hold_comes_back();
    a_document_that_the_table_refuses_fails_alone();
    if (sqlite3_libversion_number() >= 3035000) rows_that_are_in_the_way_are_told_on_whatever_index();
    a_database_that_somebody_holds_makes_the_store_unavailable_only();
    pages_are_in_the_order_of_the_keys_bytes();
    what_cannot_be_synced_is_refused_with_a_reason();
    return 0;
}
