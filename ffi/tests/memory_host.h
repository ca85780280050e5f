/* An application's store in memory, which can be told to misbehave. */
#ifndef MEMORY_HOST_H
#define MEMORY_HOST_H

#include <entgldb.h>

#include <pthread.h>

enum { MEMORY_DOCUMENTS = 4096 };

typedef struct memory_document {
    char collection[130], key[1030], *content;
} memory_document;

/* What a hook does beside its work. */
typedef enum memory_mood {
    MEMORY_WILLING,
    MEMORY_FAILING,     /* answers an error with a text */
    MEMORY_UNAVAILABLE, /* answers ENTGLDB_ERROR_STORE */
    MEMORY_BLOCKING,    /* does not return until the mood changes */
    MEMORY_PENDING,     /* answers PENDING; the test finishes `pending` */
    MEMORY_NONSENSE     /* answers a number that means nothing */
} memory_mood;

typedef struct memory_host {
    pthread_mutex_t lock;
    memory_document documents[MEMORY_DOCUMENTS]; /* in no order */
    size_t count;
    memory_mood mood;       /* of `apply` and `remove` */
    const char *poison;     /* a key that `apply` refuses */
    entgldb_reply *pending; /* of the last hook that answered PENDING */
    int calls, applied, reads, in_hook, nested, destroyed;
    void (*inside)(struct memory_host *host, entgldb_reply *reply); /* called from inside `apply` */
    void *more;
} memory_host;

void memory_host_init(memory_host *host);
entgldb_store memory_host_store(memory_host *host);
void memory_host_free(memory_host *host);

/* As the application writes: `content` NULL deletes. Tells no node. */
void memory_host_put(memory_host *host, const char *collection, const char *key, const char *content);
/* A copy to be freed; NULL if there is none. */
char *memory_host_get(memory_host *host, const char *collection, const char *key);
int memory_host_has(memory_host *host, const char *collection, const char *key, const char *content);
size_t memory_host_count(memory_host *host);
void memory_host_set_mood(memory_host *host, memory_mood mood);
entgldb_reply *memory_host_pending(memory_host *host);
int memory_host_destroyed(memory_host *host);
int memory_host_calls(memory_host *host);

#endif
