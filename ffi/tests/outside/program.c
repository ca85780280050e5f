/* The smallest whole program: a secret, a node, a document. Its folder is its argument. */
#include <entgldb.h>

#include <stdio.h>

static int failed(void) {
    char error[500];
    entgldb_last_error(error, sizeof error);
    fprintf(stderr, "%s\n", error);
    return 1;
}

int main(int argc, char **argv) {
    char secret[1000], config[3000];
    entgldb_node *node;
    entgldb_buffer answer;
    entgldb_doc doc = {0};
    if (argc != 2) return 2;
    snprintf(secret, sizeof secret, "%s/secret", argv[1]);
    snprintf(config, sizeof config, "{\"database\":\"%s/notes.entgldb\",\"secret_file\":\"%s\",\"watch\":[\"notes\"]}", argv[1], secret);
    if (entgldb_keygen(entgldb_str(secret)) != ENTGLDB_OK) return failed();
    if (entgldb_open(entgldb_str(config), NULL, &node) != ENTGLDB_OK) return failed();
    doc.collection = entgldb_str("notes");
    doc.key = entgldb_str("1");
    doc.content = entgldb_str("{\"text\":\"hello\"}");
    if (entgldb_record(node, &doc, NULL, 1) != ENTGLDB_OK) return failed();
    if (entgldb_command(node, entgldb_str("{\"command\":\"get\",\"collection\":\"notes\",\"key\":\"1\"}"), &answer) != ENTGLDB_OK) return failed();
    printf("%s: %s\n", entgldb_version(), (const char *)answer.data);
    entgldb_buffer_free(&answer);
    if (entgldb_close(node, 5000) != ENTGLDB_OK) return failed();
    entgldb_free(node);
    return 0;
}
