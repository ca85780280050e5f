/* `destroy` exactly once on every path; ends with a hook in flight; nodes that are freed without being closed. */
#include "pair.h"

static void destroy_runs_once_when_opening_fails(void) {
    static memory_host host;
    entgldb_store store;
    entgldb_node *node = NULL;
    const char *bad[] = {"", "{", "{\"nothing\":1}", NULL};
    size_t i;
    for (i = 0; i < 4; i++) {
        memory_host_init(&host);
        store = memory_host_store(&host);
        /* The last: a database that lies where no folder can be. */
        CHECK(entgldb_open(entgldb_str(bad[i] ? bad[i] : config_of("secret/below", "")), &store, &node) < 0);
        CHECK(node == NULL && host.destroyed == 1);
        memory_host_free(&host);
    }
    memory_host_init(&host);
    store = memory_host_store(&host);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", "")), &store, NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK(host.destroyed == 1);
    store.read = NULL;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", "")), &store, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK(strstr(last_error(), "read") != NULL);
    CHECK(host.destroyed == 2);
    memory_host_free(&host);
}

static void a_file_that_another_node_has_is_refused(void) {
    static memory_host one, two;
    entgldb_store store;
    entgldb_node *node, *other = NULL;
    memory_host_init(&one);
    memory_host_init(&two);
    node = open_host("same", "", &one);
    store = memory_host_store(&two);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("same", "")), &store, &other), ENTGLDB_ERROR_OPEN);
    CHECK(two.destroyed == 1 && one.destroyed == 0);
    entgldb_free(node);
    CHECK(one.destroyed == 1);
    memory_host_free(&one);
    memory_host_free(&two);
}

static void a_hook_in_flight_holds_the_end_up_and_is_told(void) {
    static pair p;
    open_pair(&p, "");
    memory_host_set_mood(&p.host_b, MEMORY_BLOCKING);
    write_note(p.a, &p.host_a, "1", "{}");
    WAIT(p.host_b.in_hook == 1);
    CHECK_STATUS(entgldb_close(p.b, 200), ENTGLDB_ERROR_TIMEOUT);
    CHECK(strstr(last_error(), "apply") != NULL);
    CHECK(memory_host_destroyed(&p.host_b) == 0);
    memory_host_set_mood(&p.host_b, MEMORY_WILLING);
    close_pair(&p);
}

static void *end_the_block(void *arg) {
    pause_ms(300);
    memory_host_set_mood(arg, MEMORY_WILLING);
    return NULL;
}

static void a_node_that_is_freed_with_a_hook_in_flight_ends_after_it(void) {
    static pair p;
    pthread_t thread;
    make_folder();
    open_pair(&p, "");
    memory_host_set_mood(&p.host_b, MEMORY_BLOCKING);
    write_note(p.a, &p.host_a, "1", "{}");
    WAIT(p.host_b.in_hook == 1);
    CHECK(pthread_create(&thread, NULL, end_the_block, &p.host_b) == 0);
    entgldb_free(p.b);
    WAIT(memory_host_destroyed(&p.host_b) == 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(entgldb_close(p.b, 0), ENTGLDB_ERROR_CLOSED);
    entgldb_free(p.a);
    CHECK(p.host_a.destroyed == 1 && p.host_b.destroyed == 1);
    memory_host_free(&p.host_a);
    memory_host_free(&p.host_b);
    remove_tree(check_folder);
}

static void free_the_node(memory_host *host, entgldb_reply *reply) {
    pair *p = host->more;
    (void)reply;
    entgldb_free(p->b);
    CHECK_STATUS(entgldb_touch(p->b, NULL, 0), ENTGLDB_ERROR_CLOSED);
}

static void a_node_may_be_freed_from_inside_its_own_hook(void) {
    static pair p;
    make_folder();
    open_pair(&p, "");
    p.host_b.more = &p;
    p.host_b.inside = free_the_node;
    write_note(p.a, &p.host_a, "1", "{}");
    WAIT(memory_host_destroyed(&p.host_b) == 1);
    CHECK(memory_host_has(&p.host_b, "notes", "1", "{}"));
    p.host_b.inside = NULL;
    CHECK_STATUS(entgldb_close(p.a, 10000), ENTGLDB_OK);
    entgldb_free(p.a);
    pause_ms(100);
    CHECK(p.host_a.destroyed == 1 && p.host_b.destroyed == 1);
    memory_host_free(&p.host_a);
    memory_host_free(&p.host_b);
}

int main(void) {
    make_folder();
    destroy_runs_once_when_opening_fails();
    a_file_that_another_node_has_is_refused();
    a_hook_in_flight_holds_the_end_up_and_is_told();
    a_node_that_is_freed_with_a_hook_in_flight_ends_after_it();
    a_node_may_be_freed_from_inside_its_own_hook();
    return 0;
}
