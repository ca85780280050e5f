/* Two tills (examples/c-pos) as processes of their own: they sell, one of them is killed in the middle of it and started again,
 * many times; in the end both have every sale that either has ever confirmed. argv[1] is the program; ENTGLDB_KILLS says how
 * often. */
#include "check.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { STOCK = 1000000 };

typedef struct till {
    const char *name;
    char folder[300], listen[60], peer[60];
    pid_t pid;
    FILE *in, *out;
    long confirmed; /* the greatest number of a sale that it has confirmed */
} till;

static const char *program;

static void start(till *t) {
    char secret[300];
    const char *arguments[] = {program,     t->folder, "--name",   t->name, "--listen", t->listen,
                               "--secret", secret,    "--peer", t->peer, NULL};
    snprintf(secret, sizeof secret, "%s/secret", check_folder);
    t->pid = spawn_piped(arguments, &t->in, &t->out);
}

static void stop(till *t, int signal_number) {
    int status;
    if (signal_number) {
        kill(t->pid, signal_number);
    } else {
        fputs("quit\n", t->in);
    }
    fclose(t->in);
    CHECK(waitpid(t->pid, &status, 0) == t->pid);
    fclose(t->out);
    CHECK(signal_number || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

/* A line and its answer; empty if the till is gone. */
static const char *tell(till *t, const char *line) {
    static char answer[20000];
    if (fprintf(t->in, "%s\n", line) < 0 || fflush(t->in) != 0 || !fgets(answer, sizeof answer, t->out)) return "";
    answer[strcspn(answer, "\n")] = 0;
    return answer;
}

static int says(till *t, const char *line, const char *expected) { return strcmp(tell(t, line), expected) == 0; }

static int sell(till *t) {
    const char *answer = tell(t, "sell tea 1"), *no = strrchr(answer, '-');
    if (strncmp(answer, "sold ", 5) != 0) {
        fprintf(stderr, "%s: %s\n", t->name, answer);
        return 0;
    }
    if (no && atol(no + 1) > t->confirmed) t->confirmed = atol(no + 1);
    return 1;
}

static long stock(till *t) { return atol(tell(t, "stock tea")); }

/* A free port outside of the range that systems give out by themselves: it is listened on again and again. */
static void choose_port(till *t, int salt) {
    struct sockaddr_in address = {0};
    int taken = 1, offset = (int)(((long)getpid() * 7 + salt * 13) % 12000);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (; taken; offset = (offset + 1) % 12000) {
        int probe = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(probe >= 0);
        address.sin_port = htons((in_port_t)(20000 + offset));
        taken = bind(probe, (struct sockaddr *)&address, sizeof address) != 0;
        close(probe);
        snprintf(t->listen, sizeof t->listen, "127.0.0.1:%d", 20000 + offset);
    }
}

static void both_have_every_sale(till *a, till *b, int kills) {
    char counted[100];
    long sales;
    WAIT(stock(a) == stock(b) && says(a, "sync", "in sync") && says(b, "sync", "in sync"));
    CHECK(stock(a) == stock(b));
    sales = STOCK - stock(a);
    CHECK(sales >= a->confirmed + b->confirmed);
    snprintf(counted, sizeof counted, "%ld sales", sales);
    CHECK(says(a, "count", counted) && says(b, "count", counted));
    CHECK(strstr(tell(a, "quarantine"), "\"documents\":[]") != NULL);
    CHECK(strstr(tell(b, "quarantine"), "\"documents\":[]") != NULL);
    printf("%d kills, %ld sales, %ld of them confirmed: all there on both\n", kills, sales, a->confirmed + b->confirmed);
}

/* Offline both change a price; online both have the later one, and the other is in the list. */
static void a_price_changed_on_both_is_a_conflict_that_both_know(till *a, till *b) {
    CHECK(says(a, "offline", "offline") && says(b, "offline", "offline"));
    CHECK(says(a, "price tea 400", "priced"));
    pause_ms(5);
    CHECK(says(b, "price tea 420", "priced"));
    CHECK(says(a, "online", "online") && says(b, "online", "online"));
    WAIT(says(a, "sync", "in sync") && says(b, "sync", "in sync") && strstr(tell(a, "conflicts"), "400") != NULL);
    CHECK(strstr(tell(b, "conflicts"), "400") != NULL);
}

int main(int argc, char **argv) {
    static till a, b;
    const char *many = getenv("ENTGLDB_KILLS");
    int kills = many ? atoi(many) : 3, round, i;
    unsigned dice = (unsigned)getpid();
    CHECK(argc == 2);
    program = argv[1];
    signal(SIGPIPE, SIG_IGN);
    make_folder();
    a.name = "a";
    b.name = "b";
    snprintf(a.folder, sizeof a.folder, "%s/a", check_folder);
    snprintf(b.folder, sizeof b.folder, "%s/b", check_folder);
    choose_port(&a, 1);
    choose_port(&b, 2);
    strcpy(a.peer, b.listen);
    strcpy(b.peer, a.listen);
    start(&a);
    start(&b);
    CHECK(says(&a, "add tea 350 Tea, green", "added") && says(&a, "deliver tea 1000000", "delivered"));
    WAIT(stock(&b) == STOCK);

    for (round = 0; round < kills; round++) {
        till *victim, *other;
        dice = dice * 1103515245u + 12345u;
        victim = dice >> 16 & 1 ? &a : &b;
        other = victim == &a ? &b : &a;
        for (i = (int)(dice >> 8 & 15); i >= 0; i--) CHECK(sell(victim) && sell(other));
        /* Some more on their way, and then wherever it is. */
        fputs("sell tea 1\nsell tea 1\nsell tea 1\n", victim->in);
        fflush(victim->in);
        pause_ms((long)(dice >> 20 & 15));
        stop(victim, SIGKILL);
        for (i = 0; i < 3; i++) CHECK(sell(other));
        start(victim);
    }
    both_have_every_sale(&a, &b, kills);
    a_price_changed_on_both_is_a_conflict_that_both_know(&a, &b);
    stop(&a, 0);
    stop(&b, 0);
    return 0;
}
