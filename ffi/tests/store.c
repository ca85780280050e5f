/* Two nodes over stores in memory: what one application writes, the other finds. */
#include "pair.h"

static void what_is_recorded_arrives(pair *p) {
    char key[20];
    int i;
    write_note(p->a, &p->host_a, "1", "{\"text\":\"from a\"}");
    write_note(p->b, &p->host_b, "2", "{\"text\":\"from b\"}");
    WAIT(memory_host_has(&p->host_b, "notes", "1", "{\"text\":\"from a\"}"));
    WAIT(memory_host_has(&p->host_a, "notes", "2", "{\"text\":\"from b\"}"));
    write_note(p->b, &p->host_b, "1", NULL);
    WAIT(memory_host_has(&p->host_a, "notes", "1", NULL));
    for (i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "many-%d", i);
        write_note(p->a, &p->host_a, key, "{\"n\":1}");
    }
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 20000), ENTGLDB_OK);
    CHECK(memory_host_count(&p->host_b) == 201);
}

static void what_is_touched_is_read_and_arrives(pair *p) {
    entgldb_doc keys[2];
    keys[0] = doc_of("others", "touched", "");
    keys[1] = doc_of("notes", "2", "");
    memory_host_put(&p->host_b, "others", "touched", "{\"t\":true}");
    memory_host_put(&p->host_b, "notes", "2", NULL);
    CHECK_STATUS(entgldb_touch(p->b, keys, 2), ENTGLDB_OK);
    WAIT(memory_host_has(&p->host_a, "others", "touched", "{\"t\":true}"));
    WAIT(memory_host_has(&p->host_a, "notes", "2", NULL));
}

static void a_touch_of_what_is_known_is_no_change(pair *p) {
    entgldb_doc key = doc_of("others", "touched", "");
    int applied = p->host_a.applied;
    CHECK_STATUS(entgldb_touch(p->b, &key, 1), ENTGLDB_OK);
    CHECK_STATUS(entgldb_sync_now(p->b, entgldb_str(""), 20000), ENTGLDB_OK);
    pause_ms(300);
    CHECK(p->host_a.applied == applied);
}

static void what_was_written_while_off_is_found_by_comparing(pair *p) {
    entgldb_buffer out = {NULL, 0, 0};
    char more[200];
    CHECK_STATUS(entgldb_close(p->b, 10000), ENTGLDB_OK);
    entgldb_free(p->b);
    CHECK(memory_host_destroyed(&p->host_b) == 1);
    p->host_b.destroyed = 0;
    memory_host_put(&p->host_b, "notes", "offline", "{\"by\":\"b\"}");
    memory_host_put(&p->host_b, "notes", "many-7", NULL);
    write_note(p->a, &p->host_a, "meanwhile", "{\"by\":\"a\"}");
    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", p->address);
    p->b = open_host("b", more, &p->host_b);
    CHECK_STATUS(entgldb_command(p->b, entgldb_str("{\"command\":\"reconcile\"}"), &out), ENTGLDB_OK);
    entgldb_buffer_free(&out);
    WAIT(memory_host_has(&p->host_a, "notes", "offline", "{\"by\":\"b\"}"));
    WAIT(memory_host_has(&p->host_a, "notes", "many-7", NULL));
    WAIT(memory_host_has(&p->host_b, "notes", "meanwhile", "{\"by\":\"a\"}"));
}

int main(void) {
    static pair p;
    make_folder();
    open_pair(&p, "");
    what_is_recorded_arrives(&p);
    what_is_touched_is_read_and_arrives(&p);
    a_touch_of_what_is_known_is_no_change(&p);
    what_was_written_while_off_is_found_by_comparing(&p);
    close_pair(&p);
    return 0;
}
