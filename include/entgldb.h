/*
 * EntglDb: sync beside the store that an application already has.
 *
 * Generated from ffi/src by `cargo xtask header`: change it there.
 *
 * A node keeps collections of JSON documents the same on every machine that asks for them, peer to peer, encrypted, also
 * after days offline. It has two ways to hold documents:
 *
 *   - in its own file (`store` NULL): `entgldb_command` puts, gets, deletes and scans documents. Nothing else is needed;
 *   - in the application's own store: eight hooks, four of them required (`entgldb_store`), write and read it; the application
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
 * The engine's own file failed, or is full, or read-only since it failed. What was asked for is not durable.
 */
#define ENTGLDB_ERROR_STORE -10

/**
 * The command was understood and cannot be carried out; the text says why.
 */
#define ENTGLDB_ERROR_REFUSED -11

/**
 * For hooks: the application's store failed. Any other negative number means the same.
 */
#define ENTGLDB_ERROR_HOOK -12

/**
 * What a hook answers with, beside its status. One belongs to one call of one hook: it may be used until the hook has
 * returned, or after `ENTGLDB_PENDING` until `entgldb_reply_finish`, by one thread after another. A use after that is
 * recognised and answered with `ENTGLDB_ERROR_CLOSED`.
 */
typedef struct entgldb_reply entgldb_reply;

/**
 * Bytes that the library has allocated for the caller, who gives them back with `entgldb_buffer_free`, and in no other
 * way. They are text as JSON in UTF-8; a NUL follows that `len` does not count, so `data` can be printed.
 *
 * A function that fills one writes to it only if it succeeds, and never frees what it held before.
 */
typedef struct {
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

/**
 * What a function or a hook answers: 0 or more is good, below 0 is an error, whose text `entgldb_last_error` gives.
 * One of the `ENTGLDB_...` constants; their numbers are fixed and never used again for something else.
 */
typedef int32_t entgldb_status;

/**
 * Bytes that are only lent: whoever passes them keeps them, and they are not read after the call that they were passed
 * to has returned. No NUL is needed at the end. `data` may be NULL where `len` is 0.
 */
typedef struct {
    /**
     * The first byte.
     */
    const uint8_t *data;
    /**
     * How many there are.
     */
    size_t len;
} entgldb_bytes;

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

#endif  /* ENTGLDB_H */

/** The bytes of a C string, lent as long as it is. NULL gives no bytes. */
static inline entgldb_bytes entgldb_str(const char *text) {
    entgldb_bytes bytes;
    bytes.data = (const uint8_t *)text;
    bytes.len = text ? strlen(text) : 0;
    return bytes;
}
