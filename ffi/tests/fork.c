/* A fork of the process: every function of the parent's node answers FORKED at once; the fork may open a node of its own. */
#include "pair.h"

#include <sys/wait.h>

static int in_the_fork(pair *p) {
    entgldb_doc doc = doc_of("notes", "fork", "{}");
    entgldb_buffer out = {NULL, 0, 0};
    entgldb_node *own = NULL;
    CHECK_STATUS(entgldb_record(p->a, &doc, NULL, 1), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_touch(p->a, &doc, 1), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_sync_now(p->a, entgldb_str(""), 100), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_status_json(p->a, &out), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_next_event(p->a, 100, &out), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_command(p->a, entgldb_str("{\"command\":\"peers\"}"), &out), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_close(p->a, 100), ENTGLDB_ERROR_FORKED);
    entgldb_free(p->a);
    CHECK(strstr(last_error(), "fork") != NULL);

    CHECK_STATUS(entgldb_open(entgldb_str(config_of("own", "")), NULL, &own), ENTGLDB_OK);
    CHECK_STATUS(entgldb_record(own, &doc, NULL, 1), ENTGLDB_OK);
    CHECK_STATUS(entgldb_record(p->a, &doc, NULL, 1), ENTGLDB_ERROR_FORKED);
    CHECK_STATUS(entgldb_close(own, 10000), ENTGLDB_OK);
    entgldb_free(own);
    return 0;
}

int main(void) {
    static pair p;
    pid_t child;
    int status = -1;
    make_folder();
    open_pair(&p, "");
    child = fork();
    if (child == 0) _exit(in_the_fork(&p));
    CHECK(child > 0);
    WAIT(waitpid(child, &status, WNOHANG) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent's nodes have not noticed. */
    write_note(p.a, &p.host_a, "after", "{}");
    WAIT(memory_host_has(&p.host_b, "notes", "after", "{}"));
    close_pair(&p);
    return 0;
}
