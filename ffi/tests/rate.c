/* How fast: what a call of `record` costs, and how a node over hooks catches up beside one that keeps its documents itself. Not a
 * test: it prints figures, and `docs/BENCHMARKS.md` says how they were taken. argv[1] is the number of documents. */
#include "check.h"

#include <pthread.h>

enum { UNIT = 1000, BUCKETS = 1 << 18 };

typedef struct row {
    struct row *next;
    size_t key_len, content_len;
    char bytes[];
} row;

typedef struct table {
    row *buckets[BUCKETS];
    size_t count;
    long hooks, hook_docs;
    double hook_seconds;
} table;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static row **place(table *t, entgldb_bytes key) {
    uint64_t hash = 1469598103934665603u;
    row **at;
    size_t i;
    for (i = 0; i < key.len; i++) hash = (hash ^ key.data[i]) * 1099511628211u;
    for (at = &t->buckets[hash % BUCKETS]; *at; at = &(*at)->next) {
        if ((*at)->key_len == key.len && memcmp((*at)->bytes, key.data, key.len) == 0) break;
    }
    return at;
}

static entgldb_status apply(void *ctx, const entgldb_doc *docs, size_t n, entgldb_reply *reply) {
    table *t = ctx;
    double begin = now();
    size_t i;
    (void)reply;
    for (i = 0; i < n; i++) {
        row **at = place(t, docs[i].key), *old = *at;
        row *made = malloc(sizeof(row) + docs[i].key.len + docs[i].content.len);
        if (!made) return ENTGLDB_ERROR_STORE;
        made->next = old ? old->next : NULL;
        made->key_len = docs[i].key.len;
        made->content_len = docs[i].content.len;
        memcpy(made->bytes, docs[i].key.data, docs[i].key.len);
        memcpy(made->bytes + docs[i].key.len, docs[i].content.data, docs[i].content.len);
        *at = made;
        if (!old) t->count++;
        free(old);
    }
    t->hooks++;
    t->hook_docs += (long)n;
    t->hook_seconds += now() - begin;
    return ENTGLDB_OK;
}

static entgldb_status read_hook(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    table *t = ctx;
    size_t i;
    for (i = 0; i < n; i++) {
        const row *found = *place(t, keys[i].key);
        entgldb_bytes content;
        if (!found) {
            entgldb_reply_missing(reply);
            continue;
        }
        content.data = (const uint8_t *)found->bytes + found->key_len;
        content.len = found->content_len;
        entgldb_reply_doc(reply, content);
    }
    return ENTGLDB_OK;
}

static entgldb_status remove_hook(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    table *t = ctx;
    size_t i;
    (void)reply;
    for (i = 0; i < n; i++) {
        row **at = place(t, keys[i].key), *old = *at;
        if (!old) continue;
        *at = old->next;
        free(old);
        t->count--;
    }
    return ENTGLDB_OK;
}

static entgldb_status enumerate(void *ctx, entgldb_bytes collection, entgldb_bytes after, uint32_t limit, entgldb_reply *reply) {
    (void)ctx;
    (void)collection;
    (void)after;
    (void)limit;
    (void)reply;
    return ENTGLDB_OK;
}

/* Sale lines as in the benchmark, about 270 bytes. */
static void sale(char *out, size_t cap, long number) {
    snprintf(out, cap,
             "{\"id\":\"sale-%08ld\",\"till\":\"till-%02ld\",\"sku\":\"sku-%05ld\",\"name\":\"Product with a name of number %05ld\","
             "\"quantity\":%ld,\"price\":%ld.%02ld,\"currency\":\"EUR\",\"tax\":0.19,\"cashier\":\"cashier %ld\","
             "\"at\":\"2026-01-01T12:%02ld:%02ld.000Z\",\"note\":\"%016lx%016lx\"}",
             number, number % 12, number * 7919 % 20000, number * 7919 % 20000, number % 9 + 1, number % 90, number % 100, number % 31,
             number / 60 % 60, number % 60, number * 2654435761 % 4294967296, number * 40503 % 65536);
}

static double record_all(entgldb_node *node, long from, long count, long unit) {
    static char contents[UNIT][400], keys[UNIT][30];
    static entgldb_doc docs[UNIT];
    double begin = now();
    long done = 0;
    while (done < count) {
        long n = 0;
        for (; n < unit && done < count; n++, done++) {
            snprintf(keys[n], sizeof keys[n], "sale-%08ld", from + done);
            sale(contents[n], sizeof contents[n], from + done);
            docs[n] = doc_of("notes", keys[n], contents[n]);
        }
        CHECK_STATUS(entgldb_record(node, docs, NULL, (size_t)n), ENTGLDB_OK);
    }
    return now() - begin;
}

static double catch_up(const char *name, const char *address, const entgldb_store *store) {
    char more[200];
    entgldb_node *node = NULL;
    double begin = now(), seconds;
    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", address);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of(name, more)), store, &node), ENTGLDB_OK);
    CHECK_STATUS(entgldb_sync_now(node, entgldb_str(address), 600000), ENTGLDB_OK);
    seconds = now() - begin;
    CHECK_STATUS(entgldb_close(node, 60000), ENTGLDB_OK);
    entgldb_free(node);
    return seconds;
}

int main(int argc, char **argv) {
    static table host;
    entgldb_store store;
    entgldb_node *author = NULL;
    long documents = argc > 1 ? atol(argv[1]) : 100000, i;
    char address[100], name[20];
    double one, many, begin, own[3], hooks[3];
    make_folder();
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("author", "")), NULL, &author), ENTGLDB_OK);
    address_of(author, address, sizeof address);
    one = record_all(author, documents, 1000, 1) / 1000;
    many = record_all(author, 0, documents, UNIT) / (double)documents;
    printf("record, durability normal: %.1f us a call with 1 document, %.2f us a document in calls of %d\n", one * 1e6, many * 1e6, UNIT);
    CHECK(entgldb_sync_now(author, entgldb_str(""), 0) != ENTGLDB_OK);

    begin = now();
    for (i = 0; i < 1000000; i++) (void)entgldb_reply_missing((entgldb_reply *)text_marker());
    printf("a call that finds nothing under its number: %.0f ns\n", (now() - begin) * 1e3);

    memset(&store, 0, sizeof store);
    store.struct_size = sizeof store;
    store.ctx = &host;
    store.apply = apply;
    store.read = read_hook;
    store.remove = remove_hook;
    store.enumerate = enumerate;
    for (i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "own-%ld", i);
        own[i] = catch_up(name, address, NULL);
        memset(&host, 0, sizeof host);
        snprintf(name, sizeof name, "hooks-%ld", i);
        hooks[i] = catch_up(name, address, &store);
        CHECK(host.count == (size_t)documents + 1000);
        printf("catch-up of %ld: own documents %.2f s (%.0f/s), hooks %.2f s (%.0f/s), %.2f of its rate; %ld apply calls, %.3f s in them\n",
               documents, own[i], (double)documents / own[i], hooks[i], (double)documents / hooks[i], own[i] / hooks[i], host.hooks,
               host.hook_seconds);
        fflush(stdout);
    }
    entgldb_free(author);
    return 0;
}
