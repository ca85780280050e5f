/* What the tests share: checks that name their place, folders that are gone afterwards, waiting with a limit. */
#ifndef CHECK_H
#define CHECK_H

#include <entgldb.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition); \
    } while (0)

/* The text of the last error is what one wants to see first. */
static inline void check_failed(const char *file, int line, const char *condition) {
    char error[500];
    entgldb_last_error(error, sizeof error);
    fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", file, line, condition, error);
    exit(1);
}

#define CHECK_STATUS(call, expected) check_status(__FILE__, __LINE__, #call, (call), (expected))

static inline void check_status(const char *file, int line, const char *call, entgldb_status is, entgldb_status expected) {
    char condition[400];
    if (is == expected) return;
    snprintf(condition, sizeof condition, "%s answered %d instead of %d", call, (int)is, (int)expected);
    check_failed(file, line, condition);
}

static inline const char *last_error(void) {
    static char error[4096];
    entgldb_last_error(error, sizeof error);
    return error;
}

static inline void pause_ms(long ms) {
    struct timespec time;
    time.tv_sec = ms / 1000;
    time.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&time, NULL);
}

/* Waits until the condition holds, at most 20 seconds. */
#define WAIT(condition) \
    do { \
        int wait_rounds = 0; \
        while (!(condition)) { \
            if (++wait_rounds > 4000) check_failed(__FILE__, __LINE__, "in time: " #condition); \
            pause_ms(5); \
        } \
    } while (0)

static char check_folder[200];

static inline void remove_tree(const char *path) {
    char inner[1000];
    struct dirent *entry;
    struct stat info;
    DIR *folder;
    if (lstat(path, &info) == 0 && !S_ISDIR(info.st_mode)) {
        unlink(path);
        return;
    }
    folder = opendir(path);
    if (!folder) return;
    while ((entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < (int)sizeof inner) remove_tree(inner);
    }
    closedir(folder);
    rmdir(path);
}

static inline void remove_folder(void) { remove_tree(check_folder); }

/* A folder for this test with a cluster secret in it. */
static inline void make_folder(void) {
    char secret[300];
    const char *base = getenv("TMPDIR");
    snprintf(check_folder, sizeof check_folder, "%s/entgldb-XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(check_folder) != NULL);
    atexit(remove_folder);
    snprintf(secret, sizeof secret, "%s/secret", check_folder);
    CHECK_STATUS(entgldb_keygen(entgldb_str(secret)), ENTGLDB_OK);
}

/* A configuration of a node that keeps all it has under `name` in the folder. `more` is JSON members that begin with a comma. */
static inline const char *config_of(const char *name, const char *more) {
    static char config[2000];
    snprintf(config, sizeof config,
             "{\"database\":\"%s/%s.entgldb\",\"secret_file\":\"%s/secret\",\"watch\":[\"notes\",\"others\"],"
             "\"listen\":\"127.0.0.1:0\",\"sync_interval_ms\":100,\"durability\":\"normal\"%s}",
             check_folder, name, check_folder, more);
    return config;
}

/* Where a node listens. */
static inline void address_of(entgldb_node *node, char *out, size_t cap) {
    entgldb_buffer status = {NULL, 0, 0};
    const char *at, *end;
    CHECK_STATUS(entgldb_status_json(node, &status), ENTGLDB_OK);
    at = strstr((const char *)status.data, "\"listen\":\"");
    CHECK(at != NULL);
    at += strlen("\"listen\":\"");
    end = strchr(at, '"');
    CHECK(end != NULL && (size_t)(end - at) < cap);
    memcpy(out, at, (size_t)(end - at));
    out[end - at] = 0;
    entgldb_buffer_free(&status);
}

static inline entgldb_doc doc_of(const char *collection, const char *key, const char *content) {
    entgldb_doc doc;
    memset(&doc, 0, sizeof doc);
    doc.collection = entgldb_str(collection);
    doc.key = entgldb_str(key);
    doc.content = entgldb_str(content);
    return doc;
}

/* A pointer that is not NULL and leads nowhere. */
static inline void *text_marker(void) {
    static char marker[16];
    return marker;
}

static inline int is_text(entgldb_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

/* A program with pipes to its input and from its output. `arguments` begins with its path and ends with NULL. */
static inline pid_t spawn_piped(const char *const *arguments, FILE **to, FILE **from) {
    int in[2], out[2];
    pid_t pid;
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[0]);
        close(in[1]);
        close(out[0]);
        close(out[1]);
        execv(arguments[0], (char *const *)arguments);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *to = fdopen(in[1], "w");
    *from = fdopen(out[0], "r");
    CHECK(*to && *from);
    return pid;
}

#endif
