#include "memory_host.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void lock(memory_host *host) { pthread_mutex_lock(&host->lock); }
static void unlock(memory_host *host) { pthread_mutex_unlock(&host->lock); }

static memory_document *find(memory_host *host, entgldb_bytes collection, entgldb_bytes key) {
    size_t i;
    for (i = 0; i < host->count; i++) {
        memory_document *d = &host->documents[i];
        if (strlen(d->collection) == collection.len && memcmp(d->collection, collection.data, collection.len) == 0 &&
            strlen(d->key) == key.len && memcmp(d->key, key.data, key.len) == 0) {
            return d;
        }
    }
    return NULL;
}

static void take(char *to, entgldb_bytes from) {
    if (from.len) memcpy(to, from.data, from.len);
    to[from.len] = 0;
}

static void put(memory_host *host, entgldb_bytes collection, entgldb_bytes key, entgldb_bytes content) {
    memory_document *d = find(host, collection, key);
    if (!d) {
        if (host->count == MEMORY_DOCUMENTS) abort();
        d = &host->documents[host->count++];
        take(d->collection, collection);
        take(d->key, key);
        d->content = NULL;
    }
    free(d->content);
    d->content = malloc(content.len + 1);
    if (!d->content) abort();
    take(d->content, content);
}

static void drop(memory_host *host, entgldb_bytes collection, entgldb_bytes key) {
    memory_document *d = find(host, collection, key);
    if (!d) return;
    free(d->content);
    *d = host->documents[--host->count];
}

/* Enters a hook. Answers what it does if not its work. */
static memory_mood enter(memory_host *host) {
    memory_mood mood;
    lock(host);
    host->calls++;
    if (host->in_hook++) host->nested++;
    mood = host->mood;
    unlock(host);
    return mood;
}

static entgldb_status leave(memory_host *host, entgldb_status status) {
    lock(host);
    host->in_hook--;
    unlock(host);
    return status;
}

static entgldb_status behave(memory_host *host, memory_mood mood, entgldb_reply *reply) {
    struct timespec pause = {0, 2000000};
    switch (mood) {
    case MEMORY_FAILING:
        entgldb_reply_error(reply, entgldb_str("the host does not want to"));
        return ENTGLDB_ERROR_HOOK;
    case MEMORY_UNAVAILABLE:
        return ENTGLDB_ERROR_STORE;
    case MEMORY_NONSENSE:
        return 77;
    case MEMORY_BLOCKING:
        for (;;) {
            lock(host);
            mood = host->mood;
            unlock(host);
            if (mood != MEMORY_BLOCKING) return ENTGLDB_OK;
            nanosleep(&pause, NULL);
        }
    case MEMORY_PENDING:
        lock(host);
        host->pending = reply;
        unlock(host);
        return ENTGLDB_PENDING;
    default:
        return ENTGLDB_OK;
    }
}

static entgldb_status apply(void *ctx, const entgldb_doc *docs, size_t n, entgldb_reply *reply) {
    memory_host *host = ctx;
    memory_mood mood = enter(host);
    entgldb_status status = behave(host, mood, reply);
    size_t i;
    if (status < 0 || status == 77) return leave(host, status);
    if (host->inside) host->inside(host, reply);
    lock(host);
    for (i = 0; i < n && status >= 0; i++) {
        if (host->poison && strlen(host->poison) == docs[i].key.len && memcmp(host->poison, docs[i].key.data, docs[i].key.len) == 0) {
            entgldb_reply_error(reply, entgldb_str("poison"));
            status = ENTGLDB_ERROR_HOOK;
        } else {
            put(host, docs[i].collection, docs[i].key, docs[i].content);
            host->applied++;
        }
    }
    unlock(host);
    return leave(host, status);
}

static entgldb_status remove_hook(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    memory_host *host = ctx;
    memory_mood mood = enter(host);
    entgldb_status status = behave(host, mood, reply);
    size_t i;
    if (status < 0 || status == 77) return leave(host, status);
    lock(host);
    for (i = 0; i < n; i++) drop(host, keys[i].collection, keys[i].key);
    unlock(host);
    return leave(host, status);
}

static entgldb_status read_hook(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    memory_host *host = ctx;
    entgldb_status status = ENTGLDB_OK;
    size_t i;
    enter(host);
    lock(host);
    host->reads++;
    for (i = 0; i < n && status == ENTGLDB_OK; i++) {
        const memory_document *d = find(host, keys[i].collection, keys[i].key);
        status = d ? entgldb_reply_doc(reply, entgldb_str(d->content)) : entgldb_reply_missing(reply);
    }
    unlock(host);
    return leave(host, status);
}

static int by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static entgldb_status enumerate(void *ctx, entgldb_bytes collection, entgldb_bytes after, uint32_t limit, entgldb_reply *reply) {
    memory_host *host = ctx;
    const char **keys;
    size_t i, n = 0;
    entgldb_status status = ENTGLDB_OK;
    entgldb_bytes nothing = {NULL, 0};
    char last[1030];
    take(last, after);
    enter(host);
    lock(host);
    keys = malloc((host->count + 1) * sizeof *keys);
    if (!keys) abort();
    for (i = 0; i < host->count; i++) {
        const memory_document *d = &host->documents[i];
        if (strlen(d->collection) == collection.len && memcmp(d->collection, collection.data, collection.len) == 0 &&
            strcmp(d->key, last) > 0) {
            keys[n++] = d->key;
        }
    }
    qsort(keys, n, sizeof *keys, by_key);
    for (i = 0; i < n && i < limit && status == ENTGLDB_OK; i++) {
        /* Every other one with its content, to use both ways. */
        const memory_document *d = find(host, collection, entgldb_str(keys[i]));
        status = entgldb_reply_entry(reply, entgldb_str(keys[i]), i % 2 ? nothing : entgldb_str(d->content));
    }
    free(keys);
    unlock(host);
    return leave(host, status);
}

static void destroy(void *ctx) {
    memory_host *host = ctx;
    lock(host);
    host->destroyed++;
    unlock(host);
}

void memory_host_init(memory_host *host) {
    memset(host, 0, sizeof *host);
    pthread_mutex_init(&host->lock, NULL);
}

entgldb_store memory_host_store(memory_host *host) {
    entgldb_store store;
    memset(&store, 0, sizeof store);
    store.struct_size = sizeof store;
    store.ctx = host;
    store.apply = apply;
    store.read = read_hook;
    store.remove = remove_hook;
    store.enumerate = enumerate;
    store.destroy = destroy;
    return store;
}

void memory_host_free(memory_host *host) {
    size_t i;
    for (i = 0; i < host->count; i++) free(host->documents[i].content);
    pthread_mutex_destroy(&host->lock);
}

void memory_host_put(memory_host *host, const char *collection, const char *key, const char *content) {
    lock(host);
    if (content) {
        put(host, entgldb_str(collection), entgldb_str(key), entgldb_str(content));
    } else {
        drop(host, entgldb_str(collection), entgldb_str(key));
    }
    unlock(host);
}

char *memory_host_get(memory_host *host, const char *collection, const char *key) {
    const memory_document *d;
    char *out = NULL;
    lock(host);
    d = find(host, entgldb_str(collection), entgldb_str(key));
    if (d) {
        out = malloc(strlen(d->content) + 1);
        if (out) strcpy(out, d->content);
    }
    unlock(host);
    return out;
}

int memory_host_has(memory_host *host, const char *collection, const char *key, const char *content) {
    char *found = memory_host_get(host, collection, key);
    int has = content ? found && strcmp(found, content) == 0 : !found;
    free(found);
    return has;
}

size_t memory_host_count(memory_host *host) {
    size_t count;
    lock(host);
    count = host->count;
    unlock(host);
    return count;
}

void memory_host_set_mood(memory_host *host, memory_mood mood) {
    lock(host);
    host->mood = mood;
    unlock(host);
}

entgldb_reply *memory_host_pending(memory_host *host) {
    entgldb_reply *reply;
    lock(host);
    reply = host->pending;
    unlock(host);
    return reply;
}

int memory_host_destroyed(memory_host *host) {
    int destroyed;
    lock(host);
    destroyed = host->destroyed;
    unlock(host);
    return destroyed;
}

int memory_host_calls(memory_host *host) {
    int calls;
    lock(host);
    calls = host->calls;
    unlock(host);
    return calls;
}
