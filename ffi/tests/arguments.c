/* Every function with NULL, wrong lengths, text that is none, and a node that is closed or freed: an error with a text each time,
 * and results untouched. */
#include "check.h"

static const entgldb_bytes nothing = {NULL, 0};
static const entgldb_bytes bad_length = {NULL, 5};
static const uint8_t half[] = {0xC3};
static const entgldb_bytes not_text = {half, 1};

static entgldb_node *open_documents(const char *name) {
    entgldb_node *node = NULL;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of(name, "")), NULL, &node), ENTGLDB_OK);
    CHECK(node != NULL);
    return node;
}

static void the_library_says_what_it_is(void) {
    CHECK(entgldb_abi_version() == ENTGLDB_ABI_VERSION);
    CHECK(strchr(entgldb_version(), '.') != NULL);
}

static void the_last_error_is_cut_to_the_buffer_and_never_within_a_character(void) {
    char text[64];
    size_t whole;
    CHECK_STATUS(entgldb_close(NULL, 0), ENTGLDB_ERROR_INVALID_ARGUMENT);
    whole = entgldb_last_error(NULL, 0);
    CHECK(whole > 10 && whole < sizeof text);
    memset(text, 'x', sizeof text);
    CHECK(entgldb_last_error(text, 5) == whole);
    CHECK(strlen(text) == 4 && text[5] == 'x');
    CHECK(entgldb_last_error(text, 0) == whole && strlen(text) == 4);
    CHECK(entgldb_last_error(text, sizeof text) == whole && strlen(text) == whole);
    CHECK_STATUS(entgldb_keygen(entgldb_str("/nowhere/\xC3\xA4")), ENTGLDB_ERROR_REFUSED);
    CHECK(entgldb_last_error(text, 11) > 11);
    CHECK(strcmp(text, "/nowhere/") == 0);
}

static void a_configuration_that_cannot_be_is_refused_and_names_its_field(void) {
    entgldb_node *node = (entgldb_node *)text_marker();
    CHECK_STATUS(entgldb_open(nothing, NULL, &node), ENTGLDB_ERROR_CONFIG);
    CHECK_STATUS(entgldb_open(bad_length, NULL, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_open(not_text, NULL, &node), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_open(entgldb_str("{\"databse\":\"x\"}"), NULL, &node), ENTGLDB_ERROR_CONFIG);
    CHECK(strstr(last_error(), "databse") != NULL);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", ",\"max_skew_ms\":\"soon\"")), NULL, &node), ENTGLDB_ERROR_CONFIG);
    CHECK(strstr(last_error(), "max_skew_ms") != NULL);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", ",\"peers\":[\"nowhere\"]")), NULL, &node), ENTGLDB_ERROR_CONFIG);
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("x", "")), NULL, NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_open(entgldb_str("{\"database\":\"d\",\"secret_file\":\"/nowhere/s\",\"watch\":[\"t\"]}"), NULL, &node),
                 ENTGLDB_ERROR_OPEN);
    CHECK(node == (entgldb_node *)text_marker());
}

static void each_function_refuses_what_is_no_node(entgldb_node *node, entgldb_status expected) {
    entgldb_buffer out = {NULL, 7, 9};
    entgldb_doc doc = doc_of("notes", "k", "{}");
    CHECK_STATUS(entgldb_record(node, &doc, NULL, 1), expected);
    CHECK_STATUS(entgldb_touch(node, &doc, 1), expected);
    CHECK_STATUS(entgldb_sync_now(node, nothing, 10), expected);
    CHECK_STATUS(entgldb_status_json(node, &out), expected);
    CHECK_STATUS(entgldb_next_event(node, 0, &out), expected);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"peers\"}"), &out), expected);
    CHECK_STATUS(entgldb_close(node, 10), expected);
    CHECK(strlen(last_error()) > 0);
    CHECK(out.data == NULL && out.len == 7 && out.cap == 9);
}

static void each_function_refuses_what_it_cannot_read(entgldb_node *node) {
    entgldb_buffer out = {NULL, 7, 9};
    entgldb_doc doc = doc_of("notes", "k", "{}");
    entgldb_doc wrong[6];
    size_t i;
    CHECK_STATUS(entgldb_record(node, NULL, NULL, 3), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_record(node, (const entgldb_doc *)((const char *)&doc + 1), NULL, 1), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_record(node, &doc, NULL, (size_t)-1), ENTGLDB_ERROR_LIMIT);
    CHECK_STATUS(entgldb_touch(node, NULL, 3), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_sync_now(node, bad_length, 10), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_sync_now(node, entgldb_str("nowhere"), 10), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_status_json(node, NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_next_event(node, 0, NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"peers\"}"), NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, bad_length, &out), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, not_text, &out), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, nothing, &out), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"fly\"}"), &out), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"a\",\"kez\":1}"), &out),
                 ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK(strstr(last_error(), "kez") != NULL);
    CHECK(out.data == NULL && out.len == 7);

    for (i = 0; i < 6; i++) wrong[i] = doc;
    wrong[0].collection = nothing;
    wrong[1].collection = bad_length;
    wrong[2].key = nothing;
    wrong[3].key = not_text;
    wrong[4].content = entgldb_str("{\"a\":}");
    wrong[5].collection = entgldb_str("unwatched");
    for (i = 0; i < 6; i++) {
        CHECK_STATUS(entgldb_record(node, &wrong[i], NULL, 1), ENTGLDB_ERROR_INVALID_ARGUMENT);
        CHECK(strlen(last_error()) > 0);
    }
    /* All of a call or nothing of it. */
    wrong[0] = doc;
    CHECK_STATUS(entgldb_record(node, wrong, NULL, 2), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"k\"}"), &out), ENTGLDB_OK);
    CHECK(strstr((const char *)out.data, "null") != NULL);
    entgldb_buffer_free(&out);
}

static void replies_that_are_none_are_refused(void) {
    entgldb_reply *made_up = (entgldb_reply *)text_marker();
    CHECK_STATUS(entgldb_reply_doc(NULL, nothing), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_missing(NULL), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_entry(NULL, entgldb_str("k"), nothing), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_change(NULL, 1, entgldb_str("c"), entgldb_str("k"), 1), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_blocked(NULL, entgldb_str("c"), entgldb_str("k")), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_blocked(made_up, entgldb_str("c"), entgldb_str("k")), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_reply_error(NULL, nothing), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_finish(NULL, ENTGLDB_OK), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_finish(made_up, ENTGLDB_OK), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_reply_finish(made_up, ENTGLDB_PENDING), ENTGLDB_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(entgldb_reply_doc(made_up, bad_length), ENTGLDB_ERROR_INVALID_ARGUMENT);
}

static void buffers_may_be_freed_at_any_time(entgldb_node *node) {
    entgldb_buffer out = {NULL, 0, 0};
    entgldb_buffer_free(NULL);
    entgldb_buffer_free(&out);
    CHECK_STATUS(entgldb_status_json(node, &out), ENTGLDB_OK);
    CHECK(out.data[0] == '{' && out.data[out.len] == 0 && strlen((const char *)out.data) == out.len);
    entgldb_buffer_free(&out);
    CHECK(out.data == NULL && out.len == 0);
    entgldb_buffer_free(&out);
}

int main(void) {
    entgldb_node *node;
    entgldb_buffer out = {NULL, 0, 0};
    make_folder();
    the_library_says_what_it_is();
    the_last_error_is_cut_to_the_buffer_and_never_within_a_character();
    a_configuration_that_cannot_be_is_refused_and_names_its_field();
    replies_that_are_none_are_refused();
    each_function_refuses_what_is_no_node(NULL, ENTGLDB_ERROR_INVALID_ARGUMENT);
    each_function_refuses_what_is_no_node((entgldb_node *)text_marker(), ENTGLDB_ERROR_CLOSED);

    node = open_documents("arguments");
    each_function_refuses_what_it_cannot_read(node);
    buffers_may_be_freed_at_any_time(node);
    CHECK_STATUS(entgldb_close(node, 10000), ENTGLDB_OK);
    CHECK_STATUS(entgldb_close(node, 0), ENTGLDB_OK);
    {
        entgldb_doc doc = doc_of("notes", "k", "{}");
        CHECK_STATUS(entgldb_record(node, &doc, NULL, 1), ENTGLDB_ERROR_CLOSED);
        CHECK_STATUS(entgldb_sync_now(node, nothing, 10), ENTGLDB_ERROR_CLOSED);
        CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"peers\"}"), &out), ENTGLDB_ERROR_CLOSED);
        while (entgldb_next_event(node, 1000, &out) == ENTGLDB_OK) entgldb_buffer_free(&out);
        CHECK_STATUS(entgldb_next_event(node, 1000, &out), ENTGLDB_ERROR_CLOSED);
        CHECK_STATUS(entgldb_status_json(node, &out), ENTGLDB_OK);
        CHECK(strstr((const char *)out.data, "\"stopped\"") != NULL);
        entgldb_buffer_free(&out);
    }
    entgldb_free(node);
    each_function_refuses_what_is_no_node(node, ENTGLDB_ERROR_CLOSED);
    entgldb_free(node);
    entgldb_free(NULL);
    return 0;
}
