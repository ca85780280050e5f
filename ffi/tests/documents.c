/* The documents that a node keeps itself: commands, units, two nodes in one process, events. */
#include "check.h"

static char *ask(entgldb_node *node, const char *request) {
    static char answer[100000];
    entgldb_buffer out = {NULL, 0, 0};
    CHECK_STATUS(entgldb_command(node, entgldb_str(request), &out), ENTGLDB_OK);
    CHECK(out.len < sizeof answer);
    memcpy(answer, out.data, out.len + 1);
    entgldb_buffer_free(&out);
    return answer;
}

static int has_event(entgldb_node *node, const char *name) {
    entgldb_buffer out = {NULL, 0, 0};
    char tag[100];
    int found = 0;
    snprintf(tag, sizeof tag, "\"event\":\"%s\"", name);
    while (!found && entgldb_next_event(node, 10000, &out) == ENTGLDB_OK) {
        found = strstr((const char *)out.data, tag) != NULL;
        entgldb_buffer_free(&out);
    }
    return found;
}

int main(void) {
    entgldb_node *a = NULL, *b = NULL;
    entgldb_doc unit[2];
    uint8_t is_delete[2] = {0, 1};
    entgldb_buffer event = {NULL, 0, 0};
    char address[100], more[200];
    make_folder();
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("a", "")), NULL, &a), ENTGLDB_OK);
    address_of(a, address, sizeof address);
    ask(a, "{\"command\":\"put\",\"collection\":\"notes\",\"key\":\"1\",\"content\":{\"text\":\"hello\"}}");
    ask(a, "{\"command\":\"put\",\"collection\":\"notes\",\"key\":\"2\",\"content\":{\"text\":\"world\"}}");
    CHECK(strstr(ask(a, "{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"1\"}"), "hello") != NULL);

    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", address);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("b", more)), NULL, &b), ENTGLDB_OK);
    CHECK_STATUS(entgldb_sync_now(b, entgldb_str(address), 20000), ENTGLDB_OK);
    CHECK(has_event(a, "peer_up") && has_event(b, "applied"));
    CHECK(strstr(ask(b, "{\"command\":\"scan\",\"collection\":\"notes\"}"), "world") != NULL);

    /* One unit with a put and a delete. */
    unit[0] = doc_of("notes", "3", "{\"text\":\"third\"}");
    unit[1] = doc_of("notes", "2", "");
    CHECK_STATUS(entgldb_record(b, unit, is_delete, 2), ENTGLDB_OK);
    CHECK_STATUS(entgldb_sync_now(b, entgldb_str(""), 20000), ENTGLDB_OK);
    CHECK(strstr(ask(a, "{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"3\"}"), "third") != NULL);
    CHECK(strstr(ask(a, "{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"2\"}"), "world") == NULL);
    ask(a, "{\"command\":\"delete\",\"collection\":\"notes\",\"key\":\"3\"}");
    CHECK(strstr(ask(a, "{\"command\":\"scan\",\"collection\":\"notes\",\"prefix\":\"3\"}"), "third") == NULL);
    CHECK(strstr(ask(a, "{\"command\":\"peers\"}"), "\"node\"") != NULL);
    CHECK_STATUS(entgldb_touch(a, unit, 1), ENTGLDB_ERROR_REFUSED);

    /* Nobody there: not in time. Nothing happened: not in time. */
    CHECK_STATUS(entgldb_close(a, 10000), ENTGLDB_OK);
    entgldb_free(a);
    WAIT(entgldb_sync_now(b, entgldb_str(""), 1) == ENTGLDB_ERROR_TIMEOUT);
    CHECK_STATUS(entgldb_sync_now(b, entgldb_str(address), 100), ENTGLDB_ERROR_TIMEOUT);
    while (entgldb_next_event(b, 300, &event) == ENTGLDB_OK) entgldb_buffer_free(&event);
    CHECK_STATUS(entgldb_next_event(b, 0, &event), ENTGLDB_ERROR_TIMEOUT);
    CHECK_STATUS(entgldb_close(b, 10000), ENTGLDB_OK);
    entgldb_free(b);

    /* All is there after a restart. */
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("a", "")), NULL, &a), ENTGLDB_OK);
    CHECK(strstr(ask(a, "{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"1\"}"), "hello") != NULL);
    entgldb_free(a);
    return 0;
}
