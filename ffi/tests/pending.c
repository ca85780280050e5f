/* Hooks that answer PENDING: finished from another thread, finished late, twice, by failing, and never. */
#include "pair.h"

static void *finish_soon(void *arg) {
    memory_host *host = arg;
    pause_ms(20);
    memory_host_set_mood(host, MEMORY_WILLING);
    CHECK_STATUS(entgldb_reply_finish(memory_host_pending(host), ENTGLDB_OK), ENTGLDB_OK);
    return NULL;
}

static void wait_for_pending(pair *p, const char *key) {
    p->host_b.pending = NULL;
    memory_host_set_mood(&p->host_b, MEMORY_PENDING);
    write_note(p->a, &p->host_a, key, "{\"n\":1}");
    WAIT(memory_host_pending(&p->host_b) != NULL);
}

static void a_hook_may_be_finished_by_another_thread(pair *p) {
    pthread_t thread;
    wait_for_pending(p, "other thread");
    CHECK(pthread_create(&thread, NULL, finish_soon, &p->host_b) == 0);
    WAIT(memory_host_has(&p->host_b, "notes", "other thread", "{\"n\":1}"));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 20000), ENTGLDB_OK);
}

static void a_second_finish_is_an_error_and_nothing_else(pair *p) {
    entgldb_reply *reply;
    wait_for_pending(p, "twice");
    reply = memory_host_pending(&p->host_b);
    memory_host_set_mood(&p->host_b, MEMORY_WILLING);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_OK), ENTGLDB_OK);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_OK), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_reply_error(reply, entgldb_str("late")), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 20000), ENTGLDB_OK);
}

static void a_pending_hook_may_fail_and_is_called_again(pair *p) {
    entgldb_reply *reply;
    int calls;
    wait_for_pending(p, "fails");
    reply = memory_host_pending(&p->host_b);
    calls = memory_host_calls(&p->host_b);
    memory_host_set_mood(&p->host_b, MEMORY_WILLING);
    CHECK_STATUS(entgldb_reply_error(reply, entgldb_str("not now")), ENTGLDB_OK);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_ERROR_STORE), ENTGLDB_OK);
    WAIT(memory_host_calls(&p->host_b) > calls);
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 20000), ENTGLDB_OK);
}

/* hook_timeout_ms is 300 here. */
static void a_late_finish_is_told_so_and_syncing_goes_on(pair *p) {
    entgldb_reply *reply;
    int calls;
    wait_for_pending(p, "late");
    reply = memory_host_pending(&p->host_b);
    memory_host_set_mood(&p->host_b, MEMORY_WILLING);
    calls = memory_host_calls(&p->host_b);
    pause_ms(600);
    /* While it is in flight no other hook is called: never two at a time. */
    CHECK(memory_host_calls(&p->host_b) == calls);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_OK), ENTGLDB_ERROR_TIMEOUT);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_OK), ENTGLDB_ERROR_CLOSED);
    WAIT(memory_host_calls(&p->host_b) > calls);
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 20000), ENTGLDB_OK);
}

static void what_is_never_finished_keeps_the_store_until_it_is(pair *p) {
    entgldb_reply *reply;
    wait_for_pending(p, "never");
    reply = memory_host_pending(&p->host_b);
    pause_ms(400);
    CHECK_STATUS(entgldb_close(p->b, 1000), ENTGLDB_ERROR_TIMEOUT);
    CHECK(memory_host_destroyed(&p->host_b) == 0);
    CHECK_STATUS(entgldb_reply_finish(reply, ENTGLDB_OK), ENTGLDB_ERROR_TIMEOUT);
    CHECK_STATUS(entgldb_close(p->b, 10000), ENTGLDB_OK);
    CHECK(memory_host_destroyed(&p->host_b) == 1);
}

int main(void) {
    static pair p;
    make_folder();
    open_pair(&p, ",\"hook_timeout_ms\":300");
    a_hook_may_be_finished_by_another_thread(&p);
    a_second_finish_is_an_error_and_nothing_else(&p);
    a_pending_hook_may_fail_and_is_called_again(&p);
    a_late_finish_is_told_so_and_syncing_goes_on(&p);
    what_is_never_finished_keeps_the_store_until_it_is(&p);
    close_pair(&p);
    return 0;
}
