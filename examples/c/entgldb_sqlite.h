/*
 * EntglDb beside an application's own SQLite database, through the application's own SQLite.
 *
 * Compile entgldb_sqlite.c into the application, against the same sqlite3 library that it uses: two copies of SQLite in one
 * process on one file drop each other's locks. Needs SQLite 3.31 or later, threadsafe, and a database in WAL mode (opening
 * sets it).
 *
 *     entgldb_sqlite *adapter;
 *     entgldb_store store;
 *     const char *tables[] = {"products", "sales"};
 *     if (entgldb_sqlite_open("shop.db", tables, 2, &adapter, error, sizeof error) != SQLITE_OK) ...
 *     entgldb_sqlite_store(adapter, &store);
 *     entgldb_open(config, &store, &node);          // "watch" names the same tables; frees the adapter in the end
 *     entgldb_sqlite_attach(shop_db, node);         // each connection that the application writes with
 *
 * What it promises: triggers note the key of every row that is written in the application's own transaction, whichever program
 * writes, so no write is lost; what other nodes wrote is applied in one transaction for each unit, never over a write that
 * was not captured yet. Rows become documents by docs/protocol/mapping.md, so a till with this adapter syncs with a program that
 * uses the built-in SQLite store. What a row cannot hold is kept beside it.
 *
 * What it does not: applying fires no triggers (of tables, not only of watched ones) and enforces no foreign keys; use
 * `entgldb_sqlite_on_apply` to keep a search index or a summary right. Tables need a PRIMARY KEY and must not change while they are
 * attached.
 *
 * Of rows that different nodes wrote apart and that collide on another UNIQUE index, whatever it is made of, the younger is in the
 * table, on every node; the other one is in the node's quarantine list, and comes back when there is room. (SQLite before 3.35:
 * the row that came first is in the table, so nodes can show different ones.)
 *
 * All names of its own in the database start with `_entgldb_host_`.
 */
#ifndef ENTGLDB_SQLITE_H
#define ENTGLDB_SQLITE_H

#include <sqlite3.h>
#include <stddef.h>

#include <entgldb.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct entgldb_sqlite entgldb_sqlite;

/*
 * Opens a connection of its own to the database file and makes the triggers for these tables. On failure answers an SQLite
 * result code, writes a text to `error`, and `*out` is NULL.
 */
int entgldb_sqlite_open(const char *path, const char *const *tables, size_t count, entgldb_sqlite **out, char *error,
                        size_t cap);

/* Called in the transaction that applies documents (`deleted` 0) or deletes them (1), after the rows were written. Anything but
 * SQLITE_OK undoes the unit. */
typedef int (*entgldb_sqlite_applied)(void *ctx, sqlite3 *db, const entgldb_doc *docs, size_t n, int deleted);
void entgldb_sqlite_on_apply(entgldb_sqlite *adapter, entgldb_sqlite_applied applied, void *ctx);

/* Fills in the hooks. From `entgldb_open` on the adapter belongs to the node, which frees it in the end, also if opening fails. */
void entgldb_sqlite_store(entgldb_sqlite *adapter, entgldb_store *out);

/* Lets commits on this connection wake the node at once (else it looks by itself after a while), and captures rows that
 * INSERT OR REPLACE removes. Uses the connection's WAL hook, and checkpoints every 1,000 pages as SQLite does by itself. */
int entgldb_sqlite_attach(sqlite3 *db, entgldb_node *node);

/* Frees an adapter that no node was opened with. */
void entgldb_sqlite_close(entgldb_sqlite *adapter);

#ifdef __cplusplus
}
#endif

#endif /* ENTGLDB_SQLITE_H */
