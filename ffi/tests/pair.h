/* Two nodes in this process, each over a store in memory. */
#ifndef PAIR_H
#define PAIR_H

#include "check.h"
#include "memory_host.h"

typedef struct pair {
    memory_host host_a, host_b;
    entgldb_node *a, *b;
    char address[100];
} pair;

static inline entgldb_node *open_host(const char *name, const char *more, memory_host *host) {
    entgldb_store store = memory_host_store(host);
    entgldb_node *node = NULL;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of(name, more)), &store, &node), ENTGLDB_OK);
    return node;
}

/* `more` is for b, which dials a. */
static inline void open_pair(pair *p, const char *more) {
    char with[400];
    memory_host_init(&p->host_a);
    memory_host_init(&p->host_b);
    p->a = open_host("a", "", &p->host_a);
    address_of(p->a, p->address, sizeof p->address);
    snprintf(with, sizeof with, ",\"peers\":[\"%s\"]%s", p->address, more);
    p->b = open_host("b", with, &p->host_b);
    CHECK_STATUS(entgldb_sync_now(p->b, entgldb_str(p->address), 20000), ENTGLDB_OK);
}

static inline void close_pair(pair *p) {
    CHECK_STATUS(entgldb_close(p->a, 10000), ENTGLDB_OK);
    CHECK_STATUS(entgldb_close(p->b, 10000), ENTGLDB_OK);
    CHECK(memory_host_destroyed(&p->host_a) == 1 && memory_host_destroyed(&p->host_b) == 1);
    entgldb_free(p->a);
    entgldb_free(p->b);
    CHECK(memory_host_destroyed(&p->host_a) == 1 && memory_host_destroyed(&p->host_b) == 1);
    CHECK(p->host_a.nested == 0 && p->host_b.nested == 0);
    memory_host_free(&p->host_a);
    memory_host_free(&p->host_b);
    remove_tree(check_folder);
}

/* The application writes, and tells. */
static inline void write_note(entgldb_node *node, memory_host *host, const char *key, const char *content) {
    entgldb_doc doc = doc_of("notes", key, content ? content : "");
    uint8_t is_delete = content == NULL;
    memory_host_put(host, "notes", key, content);
    CHECK_STATUS(entgldb_record(node, &doc, &is_delete, 1), ENTGLDB_OK);
}

#endif
