/* A program and a library of different releases: `struct_size` grows in both directions. */
#include "pair.h"

#include <stddef.h>

/* As a program sees it whose header is older: without what came after `enumerate`. */
typedef struct older_store {
    size_t struct_size;
    void *ctx;
    void (*hooks[4])(void);
    void (*garbage[6])(void);
} older_store;

/* As a program sees it whose header is newer. */
typedef struct newer_store {
    entgldb_store store;
    void (*hook_of_the_future)(void);
} newer_store;

static void never(void) { abort(); }

int main(void) {
    static memory_host host;
    entgldb_store store;
    older_store older;
    newer_store newer;
    entgldb_node *node = NULL;
    size_t i;
    const size_t impossible[] = {0, 7, 8, 40, 5000, (size_t)-1};
    make_folder();
    memory_host_init(&host);
    store = memory_host_store(&host);

    /* What lies beyond an older struct is not looked at. */
    memcpy(&older, &store, offsetof(entgldb_store, begin));
    older.struct_size = offsetof(entgldb_store, begin);
    for (i = 0; i < 6; i++) older.garbage[i] = never;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("older", "")), (const entgldb_store *)&older, &node), ENTGLDB_OK);
    CHECK_STATUS(entgldb_close(node, 10000), ENTGLDB_OK);
    entgldb_free(node);
    CHECK(host.destroyed == 0);

    /* A newer struct is taken, unless it has a hook that would never be called. */
    memset(&newer, 0, sizeof newer);
    newer.store = store;
    newer.store.struct_size = sizeof newer;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("newer", "")), &newer.store, &node), ENTGLDB_OK);
    entgldb_free(node);
    CHECK(host.destroyed == 1);
    newer.hook_of_the_future = never;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("newer", "")), &newer.store, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK(strstr(last_error(), "newer") != NULL);
    CHECK(host.destroyed == 2);

    /* Sizes that no header has; the library must not believe them. */
    for (i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        memset(&newer, 0, sizeof newer);
        newer.store.struct_size = impossible[i];
        CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", "")), &newer.store, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    }

    /* A unit's three hooks go together. */
    store.begin = (entgldb_status(*)(void *))(void (*)(void))never;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", "")), &store, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    memory_host_free(&host);
    return 0;
}
