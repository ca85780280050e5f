/* Calls in any order with any arguments, from two threads: whatever comes, no fault. Prints its seed; ENTGLDB_SEED repeats a run,
 * ENTGLDB_CALLS says how many. */
#include "pair.h"

enum { SLOTS = 4, REPLIES = 64 };

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static entgldb_node *slots[SLOTS];
static memory_host hosts[SLOTS];
static entgldb_reply *seen[REPLIES];

typedef struct dice {
    uint64_t state;
    long calls;
} dice;

static unsigned roll(dice *d, unsigned sides) {
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return (unsigned)(d->state >> 32) % sides;
}

static entgldb_bytes any_bytes(dice *d) {
    static const char *const texts[] = {"notes", "others", "nowhere", "a", "b", "{\"a\":1}", "{\"a\":", "", "[]", "\xFF", "{\"command\":\"peers\"}",
                                        "{\"command\":\"scan\",\"collection\":\"notes\"}", "{\"command\":\"members\"}", "x\ny"};
    entgldb_bytes bytes = entgldb_str(texts[roll(d, sizeof texts / sizeof *texts)]);
    if (roll(d, 30) == 0) bytes.data = NULL;
    return bytes;
}

static entgldb_node *any_node(dice *d) {
    entgldb_node *node;
    if (roll(d, 20) == 0) return NULL;
    if (roll(d, 20) == 0) return (entgldb_node *)(uintptr_t)(roll(d, 2000) * 2 + 1);
    pthread_mutex_lock(&slots_lock);
    node = slots[roll(d, SLOTS)];
    pthread_mutex_unlock(&slots_lock);
    return node;
}

static entgldb_reply *any_reply(dice *d) {
    entgldb_reply *reply;
    if (roll(d, 4) == 0) return (entgldb_reply *)(uintptr_t)(roll(d, 100000) * 2 + 1);
    pthread_mutex_lock(&slots_lock);
    reply = seen[roll(d, REPLIES)];
    pthread_mutex_unlock(&slots_lock);
    return reply;
}

static void keep_reply(memory_host *host, entgldb_reply *reply) {
    static unsigned next;
    (void)host;
    pthread_mutex_lock(&slots_lock);
    seen[next++ % REPLIES] = reply;
    pthread_mutex_unlock(&slots_lock);
}

/* Replaces the node in a slot; now and then only, as opening and closing cost most. */
static void reopen(dice *d) {
    unsigned slot = roll(d, SLOTS);
    entgldb_node *old, *node = NULL;
    entgldb_store store;
    char name[20];
    pthread_mutex_lock(&slots_lock);
    old = slots[slot];
    slots[slot] = NULL;
    pthread_mutex_unlock(&slots_lock);
    if (old && roll(d, 2)) (void)entgldb_close(old, roll(d, 2000));
    entgldb_free(old);
    snprintf(name, sizeof name, "random-%u", slot);
    store = memory_host_store(&hosts[slot]);
    pthread_mutex_lock(&slots_lock);
    /* The other thread may have been here first; then its file is in use and this fails, which is as good. */
    (void)entgldb_open(entgldb_str(config_of(name, ",\"hook_timeout_ms\":50")), slot % 2 ? &store : NULL, &node);
    old = slots[slot];
    if (node) slots[slot] = node;
    pthread_mutex_unlock(&slots_lock);
    if (node) entgldb_free(old);
}

static void call(dice *d) {
    entgldb_doc docs[3];
    uint8_t is_delete[3];
    entgldb_buffer out = {NULL, 0, 0};
    char text[40];
    size_t i, n = roll(d, 4);
    for (i = 0; i < 3; i++) {
        memset(&docs[i], 0, sizeof docs[i]);
        docs[i].collection = any_bytes(d);
        docs[i].key = any_bytes(d);
        docs[i].content = any_bytes(d);
        is_delete[i] = (uint8_t)roll(d, 2);
    }
    switch (roll(d, 16)) {
    case 0:
        (void)entgldb_record(any_node(d), n ? docs : NULL, roll(d, 2) ? is_delete : NULL, n);
        break;
    case 1:
        (void)entgldb_touch(any_node(d), n ? docs : NULL, n);
        break;
    case 2:
        (void)entgldb_sync_now(any_node(d), any_bytes(d), roll(d, 3));
        break;
    case 3:
        (void)entgldb_status_json(any_node(d), roll(d, 10) ? &out : NULL);
        break;
    case 4:
        (void)entgldb_next_event(any_node(d), roll(d, 2), roll(d, 10) ? &out : NULL);
        break;
    case 5:
        (void)entgldb_command(any_node(d), any_bytes(d), roll(d, 10) ? &out : NULL);
        break;
    case 6:
        (void)entgldb_reply_doc(any_reply(d), any_bytes(d));
        break;
    case 7:
        (void)entgldb_reply_missing(any_reply(d));
        (void)entgldb_reply_blocked(any_reply(d), any_bytes(d), any_bytes(d));
        break;
    case 8:
        (void)entgldb_reply_entry(any_reply(d), any_bytes(d), any_bytes(d));
        break;
    case 9:
        (void)entgldb_reply_change(any_reply(d), roll(d, 9), any_bytes(d), any_bytes(d), roll(d, 9));
        break;
    case 10:
        (void)entgldb_reply_error(any_reply(d), any_bytes(d));
        break;
    case 11:
        (void)entgldb_reply_finish(any_reply(d), (entgldb_status)roll(d, 4) - 1);
        break;
    case 12:
        memory_host_set_mood(&hosts[roll(d, SLOTS)], roll(d, 6) ? MEMORY_WILLING : roll(d, 2) ? MEMORY_PENDING : MEMORY_FAILING);
        break;
    case 13:
        (void)entgldb_last_error(roll(d, 2) ? text : NULL, 0);
        (void)entgldb_last_error(text, 1 + roll(d, sizeof text));
        break;
    case 14:
        if (roll(d, 50) == 0) (void)entgldb_close(any_node(d), roll(d, 30));
        break;
    default:
        if (roll(d, 2000) == 0) reopen(d);
        break;
    }
    entgldb_buffer_free(&out);
    entgldb_buffer_free(&out);
}

static void *calls(void *arg) {
    dice *d = arg;
    long i;
    for (i = 0; i < d->calls; i++) call(d);
    return NULL;
}

int main(void) {
    const char *many = getenv("ENTGLDB_CALLS"), *seed = getenv("ENTGLDB_SEED");
    dice first, second;
    pthread_t thread;
    int i;
    first.state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
    printf("ENTGLDB_SEED=%llu\n", (unsigned long long)first.state);
    fflush(stdout);
    first.state |= 1;
    second.state = first.state * 6364136223846793005u | 1;
    first.calls = second.calls = (many ? atol(many) : 20000) / 2;
    make_folder();
    for (i = 0; i < SLOTS; i++) {
        memory_host_init(&hosts[i]);
        hosts[i].inside = keep_reply;
    }
    for (i = 0; i < SLOTS; i++) reopen(&first);
    CHECK(pthread_create(&thread, NULL, calls, &second) == 0);
    calls(&first);
    CHECK(pthread_join(thread, NULL) == 0);
    for (i = 0; i < SLOTS; i++) memory_host_set_mood(&hosts[i], MEMORY_WILLING);
    for (i = 0; i < REPLIES; i++) (void)entgldb_reply_finish(seen[i], ENTGLDB_OK);
    for (i = 0; i < SLOTS; i++) entgldb_free(slots[i]);
    return 0;
}
