/* The runner of examples/conformance in C. argv: the peer's program, steps.json. */
#include "check.h"
#include "memory_host.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

static sqlite3 *json; /* SQLite reads the script */
static memory_host host;
static entgldb_node *node;
static FILE *to_peer, *from_peer;
static char peer_address[100];

/* One value out of SQL, to be freed; NULL for NULL. */
static char *sql(const char *statement, const char *one, const char *two) {
    sqlite3_stmt *prepared;
    char *out = NULL;
    CHECK(sqlite3_prepare_v2(json, statement, -1, &prepared, NULL) == SQLITE_OK);
    if (one) sqlite3_bind_text(prepared, 1, one, -1, SQLITE_STATIC);
    if (two) sqlite3_bind_text(prepared, 2, two, -1, SQLITE_STATIC);
    if (sqlite3_step(prepared) == SQLITE_ROW && sqlite3_column_type(prepared, 0) != SQLITE_NULL) {
        out = strdup((const char *)sqlite3_column_text(prepared, 0));
        CHECK(out != NULL);
    }
    sqlite3_finalize(prepared);
    return out;
}

/* A member of a step as text; for `content`, its JSON. */
static char *member(const char *step, const char *name) {
    return strcmp(name, "content") == 0 ? sql("SELECT nullif(?1 -> '$.content', 'null')", step, NULL)
                                        : sql("SELECT ?1 ->> ?2", step, name);
}

static void start_peer(const char *program) {
    const char *arguments[] = {program, check_folder, NULL};
    spawn_piped(arguments, &to_peer, &from_peer);
    CHECK(fgets(peer_address, sizeof peer_address, from_peer));
    peer_address[strcspn(peer_address, "\n")] = 0;
}

static int at_peer(const char *step) {
    char answer[2000];
    char *line = sql("SELECT json(?1)", step, NULL);
    fprintf(to_peer, "%s\n", line);
    fflush(to_peer);
    free(line);
    CHECK(fgets(answer, sizeof answer, from_peer) != NULL);
    if (strncmp(answer, "error", 5) == 0) {
        fprintf(stderr, "the peer: %s", answer);
        exit(1);
    }
    return strcmp(answer, "ok\n") == 0;
}

static void open_node(void) {
    entgldb_store store = memory_host_store(&host);
    char more[200];
    snprintf(more, sizeof more, ",\"peers\":[\"%s\"]", peer_address);
    host.destroyed = 0;
    CHECK_STATUS(entgldb_open(entgldb_str(config_of("here", more)), &store, &node), ENTGLDB_OK);
}

/* Closed nodes are kept until the next one: a call on one has to be refused. */
static void close_node(void) {
    CHECK_STATUS(entgldb_close(node, 10000), ENTGLDB_OK);
    CHECK(memory_host_destroyed(&host) == 1);
    entgldb_free(node);
    CHECK(memory_host_destroyed(&host) == 1);
}

static int command_names(const char *command, const char *key) {
    entgldb_buffer out = {NULL, 0, 0};
    int named = 0;
    if (entgldb_command(node, entgldb_str(command), &out) == ENTGLDB_OK) named = strstr((const char *)out.data, key) != NULL;
    entgldb_buffer_free(&out);
    return named;
}

static void command_done(const char *command) {
    entgldb_buffer out = {NULL, 0, 0};
    CHECK_STATUS(entgldb_command(node, entgldb_str(command), &out), ENTGLDB_OK);
    entgldb_buffer_free(&out);
}

static int expect(const char *collection, const char *key, const char *content) {
    char *found = memory_host_get(&host, collection, key), *same = NULL;
    int is;
    if (found && content) same = sql("SELECT json(?1) = json(?2)", found, content);
    is = content ? same && strcmp(same, "1") == 0 : !found;
    free(found);
    free(same);
    return is;
}

static void refused_when_closed(void) {
    entgldb_doc doc = doc_of("notes", "k", "{}");
    entgldb_buffer out = {NULL, 0, 0};
    CHECK_STATUS(entgldb_record(node, &doc, NULL, 1), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_touch(node, &doc, 1), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_sync_now(node, entgldb_str(""), 10), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_command(node, entgldb_str("{\"command\":\"members\"}"), &out), ENTGLDB_ERROR_CLOSED);
    CHECK_STATUS(entgldb_close(node, 10), ENTGLDB_ERROR_CLOSED);
}

static memory_mood mood_of(const char *name) {
    CHECK(strcmp(name, "willing") == 0 || strcmp(name, "failing") == 0 || strcmp(name, "unavailable") == 0);
    return name[0] == 'w' ? MEMORY_WILLING : name[0] == 'f' ? MEMORY_FAILING : MEMORY_UNAVAILABLE;
}

/* Carries out a step here. 0: not yet so. */
static int at_here(const char *step, const char *what) {
    char *collection = member(step, "collection"), *key = member(step, "key"), *content = member(step, "content");
    int done = 1;
    if (strcmp(what, "open") == 0) {
        open_node();
    } else if (strcmp(what, "close") == 0) {
        close_node();
    } else if (strcmp(what, "refused_when_closed") == 0) {
        refused_when_closed();
    } else if (strcmp(what, "write") == 0) {
        memory_host_put(&host, collection, key, content);
    } else if (strcmp(what, "touch") == 0) {
        entgldb_doc doc = doc_of(collection, key, "");
        CHECK_STATUS(entgldb_touch(node, &doc, 1), ENTGLDB_OK);
    } else if (strcmp(what, "record") == 0 || strcmp(what, "delete") == 0) {
        entgldb_doc doc = doc_of(collection, key, content ? content : "");
        uint8_t is_delete = content == NULL;
        memory_host_put(&host, collection, key, content);
        CHECK_STATUS(entgldb_record(node, &doc, &is_delete, 1), ENTGLDB_OK);
    } else if (strcmp(what, "sync") == 0) {
        CHECK_STATUS(entgldb_sync_now(node, entgldb_str(peer_address), 20000), ENTGLDB_OK);
    } else if (strcmp(what, "expect") == 0) {
        done = expect(collection, key, content);
    } else if (strcmp(what, "expect_quarantine") == 0) {
        done = command_names("{\"command\":\"quarantine\"}", key);
    } else if (strcmp(what, "expect_conflict") == 0) {
        done = command_names("{\"command\":\"conflicts\"}", key);
    } else if (strcmp(what, "mood") == 0) {
        char *mood = member(step, "mood");
        memory_host_set_mood(&host, mood_of(mood));
        free(mood);
    } else if (strcmp(what, "retry") == 0) {
        char *request = sql("SELECT json_object('command', 'quarantine_retry', 'collection', ?1, 'key', ?2)", collection, key);
        command_done(request);
        free(request);
    } else if (strcmp(what, "reconcile") == 0) {
        command_done("{\"command\":\"reconcile\"}");
    } else {
        fprintf(stderr, "there is no step %s\n", what);
        exit(1);
    }
    free(collection);
    free(key);
    free(content);
    return done;
}

int main(int argc, char **argv) {
    static char script[100000];
    sqlite3_stmt *steps;
    FILE *file;
    size_t n;
    int count = 0, status;
    CHECK(argc == 3);
    signal(SIGPIPE, SIG_IGN);
    make_folder();
    memory_host_init(&host);
    file = fopen(argv[2], "rb");
    CHECK(file != NULL);
    n = fread(script, 1, sizeof script - 1, file);
    script[n] = 0;
    fclose(file);
    CHECK(sqlite3_open(":memory:", &json) == SQLITE_OK);
    start_peer(argv[1]);
    CHECK(sqlite3_prepare_v2(json, "SELECT value ->> 'at', value ->> 'do', value FROM json_each(?1)", -1, &steps, NULL) == SQLITE_OK);
    sqlite3_bind_text(steps, 1, script, -1, SQLITE_STATIC);
    while (sqlite3_step(steps) == SQLITE_ROW) {
        const char *at = (const char *)sqlite3_column_text(steps, 0), *what = (const char *)sqlite3_column_text(steps, 1);
        const char *step = (const char *)sqlite3_column_text(steps, 2);
        printf("%s\n", step);
        fflush(stdout);
        if (strcmp(at, "peer") == 0) {
            WAIT(at_peer(step));
        } else {
            CHECK(strcmp(at, "here") == 0);
            WAIT(at_here(step, what));
        }
        count++;
    }
    sqlite3_finalize(steps);
    sqlite3_close(json);
    CHECK(count > 30);
    fclose(to_peer);
    CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fclose(from_peer);
    memory_host_free(&host);
    printf("%d steps\n", count);
    return 0;
}
