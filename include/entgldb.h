/*
 * EntglDb: sync beside the store that an application already has.
 *
 * Generated from ffi/src by `cargo xtask header`: change it there.
 *
 * A node keeps collections of JSON documents the same on every machine that asks for them, peer to peer, encrypted, also
 * after days offline. It has two ways to hold documents:
 *
 *   - in its own file (`store` NULL): `entgldb_command` puts, gets, deletes and scans documents. Nothing else is needed;
 *   - in the application's own store: nine hooks (`entgldb_store`), of which four are required, write and read it; the application
 *     tells of its own writes with `entgldb_record` or `entgldb_touch`, or through the `outbox` hook. For SQLite there is
 *     a ready one: examples/c/entgldb_sqlite.h.
 *
 * A whole program:
 *
 *     #include <entgldb.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         entgldb_node *node;
 *         entgldb_buffer answer;
 *         char error[500];
 *         const char *config = "{\"database\":\"notes.entgldb\",\"secret_file\":\"cluster.secret\","
 *                              "\"watch\":[\"notes\"],\"peers\":[\"office.local:7700\"]}";
 *         const char *put = "{\"command\":\"put\",\"collection\":\"notes\",\"key\":\"1\",\"content\":{\"text\":\"hello\"}}";
 *         if (entgldb_open(entgldb_str(config), NULL, &node) == ENTGLDB_OK) {
 *             if (entgldb_command(node, entgldb_str(put), &answer) == ENTGLDB_OK) entgldb_buffer_free(&answer);
 *             if (entgldb_sync_now(node, entgldb_str(""), 5000) == ENTGLDB_OK) puts("everybody has it");
 *             entgldb_close(node, 5000);
 *             entgldb_free(node);
 *             return 0;
 *         }
 *         entgldb_last_error(error, sizeof error);
 *         fprintf(stderr, "%s\n", error);
 *         return 1;
 *     }
 *
 *     cc program.c $(pkg-config --cflags --libs entgldb)
 *
 * Rules that hold everywhere
 *
 *   Ownership   What is passed in is lent until the call returns; the library copies what it keeps. What a function fills an
 *               `entgldb_buffer` with is the caller's until `entgldb_buffer_free`. Nothing else changes hands: `malloc` and
 *               `free` of one side never meet memory of the other.
 *   Errors      Every function answers an `entgldb_status`. If it is negative, `entgldb_last_error` has a text for people,
 *               and results are not written. No error leaves the process damaged.
 *   Threads     Every function may be called from any thread. Hooks are called from one thread of the engine, one at a time.
 *   Lifetime    open, use, close, free. Using a node after that is an error with a text, not a fault of memory.
 *   Fork        A node stays with the process that opened it; in a fork every function of it answers
 *               `ENTGLDB_ERROR_FORKED`. The fork can open nodes of its own.
 *   Text        UTF-8. JSON for configuration, status, events and commands: an unknown field is refused, and errors name it.
 *               Their JSON Schemas are in docs/schema.
 */


#ifndef ENTGLDB_H
#define ENTGLDB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#include <cstring>
#else
#include <string.h>
#endif


/**
 * The version of the binary interface that a program compiled with this header relies on. A library with another one is
 * another library: its file name and SONAME differ too.
 */
#define ENTGLDB_ABI_VERSION 1

/**
 * It is done.
 */
#define ENTGLDB_OK 0

/**
 * Only from a hook: it is not done yet, and `entgldb_reply_finish` will be called, from whichever thread.
 */
#define ENTGLDB_PENDING 1

/**
 * Only from the `commit` hook: the application has written since the outbox was read last. Nothing was committed; the
 * engine looks into the outbox and comes again.
 */
#define ENTGLDB_OUTBOX_MOVED 2

/**
 * The caller's mistake: NULL where something must be, text that is not UTF-8, a name or a key that cannot be one, a
 * reply that does not fit its hook. Nothing happened.
 */
#define ENTGLDB_ERROR_INVALID_ARGUMENT -1

/**
 * The configuration cannot be used; the text names the field. Nothing was started.
 */
#define ENTGLDB_ERROR_CONFIG -2

/**
 * The node cannot be opened: a file, the secret, the address. The text says which, and what to do.
 */
#define ENTGLDB_ERROR_OPEN -3

/**
 * It was not done within the given time. What it may have done anyway is said at each function.
 */
#define ENTGLDB_ERROR_TIMEOUT -4

/**
 * The node is closed or was never opened, or the reply is over.
 */
#define ENTGLDB_ERROR_CLOSED -5

/**
 * A call that waits was made from inside a hook, where it would wait for itself. Nothing happened.
 */
#define ENTGLDB_ERROR_REENTRANT -6

/**
 * This process is a fork of the one that opened the node. The node lives on there; this process must leave it alone.
 */
#define ENTGLDB_ERROR_FORKED -7

/**
 * A bug of EntglDb, caught at the boundary. The node may be unusable: close it, and report the text.
 */
#define ENTGLDB_ERROR_PANIC -8

/**
 * A limit, which the text names. Nothing happened.
 */
#define ENTGLDB_ERROR_LIMIT -9

/**
 * The engine's own file failed, or is full, or read-only since it failed. What was asked for is not durable. From a hook: the
 * application's store cannot be used at all now (locked, full, offline). Nothing is set aside; the engine waits and comes
 * again.
 */
#define ENTGLDB_ERROR_STORE -10

/**
 * The command was understood and cannot be carried out; the text says why.
 */
#define ENTGLDB_ERROR_REFUSED -11

/**
 * From a hook: it failed, perhaps because of a single document. It is called again, then document by document, and those that
 * fail alone are set aside. Any other negative number means the same.
 */
#define ENTGLDB_ERROR_HOOK -12

/**
 * A running node. Every function may be called from any thread at any time, also on one that is closed or freed: that is
 * recognised and answered with `ENTGLDB_ERROR_CLOSED`.
 */
typedef struct entgldb_node entgldb_node;

/**
 * What a hook answers with, beside its status. One belongs to one call of one hook: it may be used until the hook has
 * returned, or after `ENTGLDB_PENDING` until `entgldb_reply_finish`, by one thread after another. A use after that is
 * recognised and answered with `ENTGLDB_ERROR_CLOSED`.
 */
typedef struct entgldb_reply entgldb_reply;

/**
 * What a function or a hook answers: 0 or more is good, below 0 is an error, whose text `entgldb_last_error` gives.
 * One of the `ENTGLDB_...` constants; their numbers are fixed and never used again for something else.
 */
typedef int32_t entgldb_status;

/**
 * Bytes that are only lent: whoever passes them keeps them, and they are not read after the call that they were passed
 * to has returned. No NUL is needed at the end. `data` may be NULL where `len` is 0.
 */
typedef struct entgldb_bytes {
    /**
     * The first byte.
     */
    const uint8_t *data;
    /**
     * How many there are.
     */
    size_t len;
} entgldb_bytes;

/**
 * A document, or only the name of one. Set what is not used to zero: `entgldb_doc doc = {0};`.
 */
typedef struct entgldb_doc {
    /**
     * The collection's name: 1 to 128 bytes of UTF-8 without control characters.
     */
    entgldb_bytes collection;
    /**
     * The key in it: 1 to 1,024 bytes of UTF-8 without NUL.
     */
    entgldb_bytes key;
    /**
     * A JSON object in UTF-8. Empty where only keys are passed, and in deletes.
     */
    entgldb_bytes content;
    /**
     * When the version was made: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Given to hooks;
     * ignored in what is passed to the library.
     */
    uint64_t hlc;
    /**
     * Zero.
     */
    uint64_t reserved[3];
} entgldb_doc;

/**
 * The application's own store, as hooks. `entgldb_open` copies the struct; `ctx` is passed to each hook.
 *
 * Hooks are called from one thread of the engine, one at a time, never nested, with no lock held. What they are passed is
 * lent until they return (after `ENTGLDB_PENDING` until the reply is finished). They may take their time, though nothing
 * syncs meanwhile; a warning event tells of slow ones. From inside of a hook every function that waits answers
 * `ENTGLDB_ERROR_REENTRANT`; `entgldb_touch`, `entgldb_status_json`, `entgldb_free` and the `entgldb_reply_...` functions
 * are allowed. A C++ exception must not leave a hook: `entgldb.hpp` takes care of that.
 *
 * No hook may write a document between the application's own write of it and the `entgldb_record` or `entgldb_touch` that tells
 * of it: do both under one lock, and take that lock in `apply` and `remove` too. A store with `begin`, `commit` and `outbox` needs
 * no lock: its database keeps the order.
 *
 * A hook answers `ENTGLDB_OK`, `ENTGLDB_PENDING` where it has a reply, or an error, best with a text by
 * `entgldb_reply_error`. What fails is tried again; a document that keeps failing is set aside in the quarantine list,
 * and the others go on.
 */
typedef struct entgldb_store {
    /**
     * `sizeof(entgldb_store)`. It tells the library which hooks the caller's header knew: those beyond it count as NULL.
     */
    size_t struct_size;
    /**
     * Passed to each hook.
     */
    void *ctx;
    /**
     * Required: writes these documents, whether or not they are there. Calling it again with the same must change nothing.
     * Best in one transaction. At most 1,000 documents and 1 MiB, or one document that is larger. Where others are in a document's
     * way, tells of them (`entgldb_reply_blocked`) and fails.
     */
    entgldb_status (*apply)(void *ctx, const entgldb_doc *docs, size_t n, entgldb_reply *reply);
    /**
     * Required: answers for each key in order, with `entgldb_reply_doc` or `entgldb_reply_missing`.
     */
    entgldb_status (*read)(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply);
    /**
     * Required: deletes these documents; those that are not there count as deleted. At most 1,000.
     */
    entgldb_status (*remove)(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply);
    /**
     * Required: answers with `entgldb_reply_entry` for each document of the collection whose key is greater than `after`
     * (empty: from the first), in order of the bytes of their keys, at most `limit`. No answer means the end.
     */
    entgldb_status (*enumerate)(void *ctx,
                                entgldb_bytes collection,
                                entgldb_bytes after,
                                uint32_t limit,
                                entgldb_reply *reply);
    /**
     * Optional, all three or none: a unit of `apply` and `remove` calls begins. If the one before it was neither committed nor
     * undone (a hook was not finished in time), undoes that first ...
     */
    entgldb_status (*begin)(void *ctx);
    /**
     * ... and is made durable when this returns, all of it or nothing. May answer `ENTGLDB_OUTBOX_MOVED` ...
     */
    entgldb_status (*commit)(void *ctx);
    /**
     * ... or is undone.
     */
    entgldb_status (*rollback)(void *ctx);
    /**
     * Optional, for stores that note their own writes in the transaction that makes them: answers with
     * `entgldb_reply_change` for each noted write with an id greater than `after`, in the order of their commits, at most
     * `limit`. Notes up to `after` are done with and may be dropped. `entgldb_touch` with no keys tells the engine to look.
     */
    entgldb_status (*outbox)(void *ctx, uint64_t after, uint32_t limit, entgldb_reply *reply);
    /**
     * Optional, for the collections that the configuration names in `custom_hook`: decides between versions of a document that
     * were made apart, given in order of their age, a deleted one with `content.data` NULL. Answers once, with
     * `entgldb_reply_doc` or `entgldb_reply_missing` (deleted). It must be a pure function of `heads`, the same on all nodes.
     */
    entgldb_status (*resolve)(void *ctx,
                              entgldb_bytes collection,
                              entgldb_bytes key,
                              const entgldb_doc *heads,
                              size_t n,
                              entgldb_reply *reply);
    /**
     * Optional: `ctx` is not used any more. Called exactly once, after the last hook has returned and the last pending reply
     * was finished; also when `entgldb_open` fails.
     */
    void (*destroy)(void *ctx);
} entgldb_store;

/**
 * Bytes that the library has allocated for the caller, who gives them back with `entgldb_buffer_free`, and in no other
 * way. They are text as JSON in UTF-8; a NUL follows that `len` does not count, so `data` can be printed.
 *
 * A function that fills one writes to it only if it succeeds, and never frees what it held before.
 */
typedef struct entgldb_buffer {
    /**
     * The first byte; NULL in an empty one.
     */
    uint8_t *data;
    /**
     * How many there are, without the NUL.
     */
    size_t len;
    /**
     * The library's own affair.
     */
    size_t cap;
} entgldb_buffer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * `ENTGLDB_ABI_VERSION` as the library was built with it, to compare with the header's.
 */
uint32_t entgldb_abi_version(void);

/**
 * The library's release, such as "0.1.0". Static: it is never freed.
 */
const char *entgldb_version(void);

/**
 * Copies the text of the last error of a function that was called on this thread into `buf`, cut to `cap - 1` bytes (never
 * within a character) and ended by a NUL. Functions that succeed leave it as it was.
 *
 * Returns the length of the whole text without the NUL; 0 if there was no error. `buf` may be NULL if `cap` is 0.
 */
size_t entgldb_last_error(char *buf,
                          size_t cap);

/**
 * Opens a node and starts to sync. `config_json` is described by docs/schema/config.json; required are `database` (the
 * engine's own file, which is made if it is not there and belongs to nobody else; never the application's database),
 * `secret_file` (see `entgldb_keygen`) and `watch` (the collections).
 *
 * `store` has the application's hooks; NULL for documents in the engine's own file. It is copied. Hooks may be called before
 * this returns. `store->destroy` is called exactly once, also if this fails (before it returns then).
 *
 * On success `*out` is a node to be closed and freed.
 */
entgldb_status entgldb_open(entgldb_bytes config_json,
                            const entgldb_store *store,
                            entgldb_node **out);

/**
 * Tells of changes that the application has made in its own store, with their content: one unit, which other nodes apply as
 * a whole or not at all. `is_delete` has a byte for each document, not 0 if it was deleted; NULL if none was. Durable on
 * return. At most 4,096 documents and about 3 MiB.
 *
 * On a node without a store it writes the documents themselves. Not from inside a hook.
 */
entgldb_status entgldb_record(const entgldb_node *node,
                              const entgldb_doc *docs,
                              const uint8_t *is_delete,
                              size_t n);

/**
 * Tells that the application has written these documents, without their content, which the engine reads through `read` soon.
 * Only `collection` and `key` are looked at. Durable on return. With `n` 0 it only makes the engine look into the outbox.
 * May be called from inside a hook.
 */
entgldb_status entgldb_touch(const entgldb_node *node,
                             const entgldb_doc *keys,
                             size_t n);

/**
 * Waits until this node and all linked peers are known to hold the same, after a look for what the application has written so
 * far. `peer` is `host:port` of one that must be linked for it, and is dialled if it was not; empty: any. Waits at most
 * `timeout_ms` for all of that, and answers `ENTGLDB_ERROR_TIMEOUT` after it; syncing goes on all the same. Not from inside
 * a hook.
 */
entgldb_status entgldb_sync_now(const entgldb_node *node,
                                entgldb_bytes peer,
                                uint32_t timeout_ms);

/**
 * How the node stands, as JSON: health, peers, lag, counters (docs/schema/status.json). At most a second old. Never waits; may
 * be called from inside a hook, and on a closed node.
 */
entgldb_status entgldb_status_json(const entgldb_node *node,
                                   entgldb_buffer *out);

/**
 * The next event as JSON (docs/schema/event.json), waiting for it at most `timeout_ms`; 0 does not wait. Answers
 * `ENTGLDB_ERROR_TIMEOUT` if nothing has happened, `ENTGLDB_ERROR_CLOSED` once the node has ended and all its events are
 * read. One queue for all threads that ask, from the start of the node on; nobody has to read it: what is too much is
 * counted and left out.
 */
entgldb_status entgldb_next_event(const entgldb_node *node,
                                  uint32_t timeout_ms,
                                  entgldb_buffer *out_json);

/**
 * Carries out a command given as JSON (docs/schema/command.json) and answers as JSON: `{"command":"peers"}`, and likewise
 * members, conflicts, restore, quarantine, reconcile, snapshot_export and more; on a node without a store put, get, delete and
 * scan. Not from inside a hook.
 */
entgldb_status entgldb_command(const entgldb_node *node,
                               entgldb_bytes request_json,
                               entgldb_buffer *out_json);

/**
 * Ends the node: links are closed with a word, and no hook is called any more. `ENTGLDB_OK` says that no hook runs and
 * `destroy` has returned. `ENTGLDB_ERROR_TIMEOUT` says that a hook is still in flight after `timeout_ms`; the node ends once
 * it has returned, and this may be called again to wait for that. From inside a hook it answers
 * `ENTGLDB_ERROR_REENTRANT`, and the node ends once the hook has returned.
 *
 * The node must still be freed.
 */
entgldb_status entgldb_close(entgldb_node *node,
                             uint32_t timeout_ms);

/**
 * Gives the node back; NULL is left alone. A node that was not closed is closed first, which is waited for up to 5 seconds; a
 * hook that is still in flight then (or from which this is called) keeps the node alive until it has returned, and `destroy`
 * is called after that.
 */
void entgldb_free(entgldb_node *node);

/**
 * Makes a new file with a cluster secret that nobody has, readable by its owner only. Whoever has a copy of it can join the
 * cluster: carry it to the other machines over a channel that you trust. A file that is there is left alone:
 * `ENTGLDB_ERROR_REFUSED`.
 */
entgldb_status entgldb_keygen(entgldb_bytes path);

/**
 * Gives back what a function wrote to a buffer, and empties it. A buffer that is empty (all zero) or NULL is left alone, so
 * calling it twice does no harm.
 */
void entgldb_buffer_free(entgldb_buffer *buffer);

/**
 * In `read` and `resolve`: the next document, which is copied.
 */
entgldb_status entgldb_reply_doc(entgldb_reply *reply, entgldb_bytes content);

/**
 * In `read`: the next document is not there. In `resolve`: the document is deleted.
 */
entgldb_status entgldb_reply_missing(entgldb_reply *reply);

/**
 * In `enumerate`: the next document. Its content may be left out (`data` NULL); it is asked for with `read` then.
 */
entgldb_status entgldb_reply_entry(entgldb_reply *reply,
                                   entgldb_bytes key,
                                   entgldb_bytes content);

/**
 * In `outbox`: the next write that the application has noted. `id` rises from note to note; `written_ms` is the time of
 * the write in milliseconds since 1970.
 */
entgldb_status entgldb_reply_change(entgldb_reply *reply,
                                    uint64_t id,
                                    entgldb_bytes collection,
                                    entgldb_bytes key,
                                    uint64_t written_ms);

/**
 * In `apply`, before it fails: a document of the store that stands in the way of one that is to be written, as under a UNIQUE
 * constraint. Of those that collide the younger stays, on every node: a store with `begin` and `outbox` loses the older ones to
 * it, what has to go is in the quarantine list, and it comes back when there is room. Any other store just refuses.
 */
entgldb_status entgldb_reply_blocked(entgldb_reply *reply,
                                     entgldb_bytes collection,
                                     entgldb_bytes key);

/**
 * In every hook: the text of the error that the hook will answer with. It shows in events, in the quarantine list and in
 * `entgldb_last_error`. Cut at 4 KiB. The last one counts.
 */
entgldb_status entgldb_reply_error(entgldb_reply *reply,
                                   entgldb_bytes message);

/**
 * Ends a hook that has answered `ENTGLDB_PENDING`, or is about to; from any thread, exactly once. `status` is what the hook
 * would have answered. The reply, and what the hook was lent, must not be used afterwards.
 *
 * Answers `ENTGLDB_ERROR_TIMEOUT` if the engine had given up waiting (`hook_timeout_ms` of the configuration): the call
 * counts as failed, and is made again. Answers `ENTGLDB_ERROR_CLOSED` if the reply is finished already.
 */
entgldb_status entgldb_reply_finish(entgldb_reply *reply,
                                    entgldb_status status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/**
 * The bytes of a C string, lent as long as it is. NULL gives no bytes.
 */
static inline entgldb_bytes entgldb_str(const char *text) {
    entgldb_bytes bytes;
    bytes.data = (const uint8_t *)text;
    bytes.len = text ? strlen(text) : 0;
    return bytes;
}

#endif  /* ENTGLDB_H */
