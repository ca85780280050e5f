/* Hooks that misbehave: they fail, are unavailable, answer nonsense, refuse one document, call back in, close and free. */
#include "pair.h"

/* What was refused may have been set aside. While the store is unavailable there is nobody to retry. */
static int retried(pair *p, const char *key) {
    entgldb_buffer out = {NULL, 0, 0};
    char request[200];
    snprintf(request, sizeof request, "{\"command\":\"quarantine_retry\",\"collection\":\"notes\",\"key\":\"%s\"}", key);
    if (entgldb_command(p->b, entgldb_str(request), &out) == ENTGLDB_OK) entgldb_buffer_free(&out);
    return 0;
}

static void a_hook_that_fails_is_called_again(pair *p, memory_mood mood) {
    char key[30];
    int calls = memory_host_calls(&p->host_b);
    snprintf(key, sizeof key, "mood-%d", (int)mood);
    memory_host_set_mood(&p->host_b, mood);
    write_note(p->a, &p->host_a, key, "{\"n\":1}");
    WAIT(memory_host_calls(&p->host_b) > calls);
    memory_host_set_mood(&p->host_b, MEMORY_WILLING);
    WAIT(memory_host_has(&p->host_b, "notes", key, "{\"n\":1}") || retried(p, key));
}

static void one_document_that_is_refused_is_set_aside_and_the_others_go_on(pair *p) {
    entgldb_buffer out = {NULL, 0, 0};
    entgldb_doc unit[3];
    p->host_b.poison = "bad";
    unit[0] = doc_of("notes", "good-1", "{\"n\":1}");
    unit[1] = doc_of("notes", "bad", "{\"n\":2}");
    unit[2] = doc_of("notes", "good-2", "{\"n\":3}");
    memory_host_put(&p->host_a, "notes", "good-1", "{\"n\":1}");
    memory_host_put(&p->host_a, "notes", "bad", "{\"n\":2}");
    memory_host_put(&p->host_a, "notes", "good-2", "{\"n\":3}");
    CHECK_STATUS(entgldb_record(p->a, unit, NULL, 3), ENTGLDB_OK);
    WAIT(memory_host_has(&p->host_b, "notes", "good-1", "{\"n\":1}") && memory_host_has(&p->host_b, "notes", "good-2", "{\"n\":3}"));
    CHECK(memory_host_has(&p->host_b, "notes", "bad", NULL));
    WAIT(entgldb_command(p->b, entgldb_str("{\"command\":\"quarantine\"}"), &out) == ENTGLDB_OK &&
         (strstr((const char *)out.data, "poison") != NULL || (entgldb_buffer_free(&out), 0)));
    CHECK(strstr((const char *)out.data, "\"bad\"") != NULL);
    entgldb_buffer_free(&out);
    p->host_b.poison = NULL;
    WAIT(memory_host_has(&p->host_b, "notes", "bad", "{\"n\":2}") || retried(p, "bad"));
}

/* What calls from inside of a hook answered. */
static struct {
    entgldb_status record, sync, command, close, touch, status, wrong_answer, event;
    int done;
} inside;

static void call_back_in(memory_host *host, entgldb_reply *reply) {
    pair *p = host->more;
    entgldb_doc doc = doc_of("others", "inside", "{}");
    entgldb_buffer out = {NULL, 0, 0};
    if (inside.done) return;
    inside.record = entgldb_record(p->b, &doc, NULL, 1);
    inside.sync = entgldb_sync_now(p->b, entgldb_str(""), 1000);
    inside.command = entgldb_command(p->b, entgldb_str("{\"command\":\"members\"}"), &out);
    inside.touch = entgldb_touch(p->b, &doc, 1);
    inside.status = entgldb_status_json(p->b, &out);
    entgldb_buffer_free(&out);
    inside.event = entgldb_next_event(p->b, 0, &out);
    if (inside.event == ENTGLDB_OK) entgldb_buffer_free(&out);
    /* Last: it tells the node to end. */
    inside.close = entgldb_close(p->b, 1000);
    (void)reply;
    inside.done = 1;
}

static void calls_from_inside_a_hook_are_refused_where_they_would_wait_for_it(pair *p) {
    p->host_b.more = p;
    p->host_b.inside = call_back_in;
    write_note(p->a, &p->host_a, "call-back", "{}");
    WAIT(memory_host_has(&p->host_b, "notes", "call-back", "{}"));
    CHECK_STATUS(entgldb_close(p->b, 10000), ENTGLDB_OK);
    CHECK(inside.done);
    CHECK(inside.record == ENTGLDB_ERROR_REENTRANT);
    CHECK(inside.sync == ENTGLDB_ERROR_REENTRANT);
    CHECK(inside.command == ENTGLDB_ERROR_REENTRANT);
    CHECK(inside.touch == ENTGLDB_OK);
    CHECK(inside.status == ENTGLDB_OK);
    CHECK(inside.event == ENTGLDB_OK || inside.event == ENTGLDB_ERROR_TIMEOUT);
    CHECK(inside.close == ENTGLDB_ERROR_REENTRANT);
}

static void give_a_wrong_answer(memory_host *host, entgldb_reply *reply) {
    (void)host;
    inside.wrong_answer = entgldb_reply_missing(reply);
}

static void an_answer_that_the_hook_may_not_give_is_refused(pair *p) {
    p->host_b.inside = give_a_wrong_answer;
    write_note(p->a, &p->host_a, "wrong", "{}");
    WAIT(inside.wrong_answer == ENTGLDB_ERROR_INVALID_ARGUMENT);
    p->host_b.inside = NULL;
}

int main(void) {
    static pair p;
    make_folder();
    open_pair(&p, "");
    a_hook_that_fails_is_called_again(&p, MEMORY_FAILING);
    a_hook_that_fails_is_called_again(&p, MEMORY_NONSENSE);
    a_hook_that_fails_is_called_again(&p, MEMORY_UNAVAILABLE);
    a_hook_that_fails_is_called_again(&p, MEMORY_BLOCKING);
    one_document_that_is_refused_is_set_aside_and_the_others_go_on(&p);
    an_answer_that_the_hook_may_not_give_is_refused(&p);
    calls_from_inside_a_hook_are_refused_where_they_would_wait_for_it(&p);
    close_pair(&p);
    return 0;
}
