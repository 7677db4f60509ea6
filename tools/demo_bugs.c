// Three heap bugs as they occur in programs, for tools/demo.  demo_bugs NAME
//
// Compiled without optimisation and without builtins, so that the compiler does not see them.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct session {
    char user[32];
    char buffer[64];
};

// Both the cache and the connection think that the session is theirs.
static void free_twice(void) {
    struct session *cached = malloc(sizeof *cached);
    struct session *connection = cached;
    strcpy(cached->user, "alice");
    free(cached);
    free(connection);
}

// A parser that skips leading spaces and then frees the pointer it moved.
static void free_inside(void) {
    char *line = malloc(200);
    strcpy(line, "                value");
    while (*line == ' ') {
        line++;
    }
    free(line);
}

static void *end_session(void *arg) {
    free(arg);
    return NULL;
}

// A worker thread ends the session; the main thread still writes to it. The overwritten bytes may
// be what an allocator uses to find its next free block: with those, the writer picks the address
// that a later malloc returns.
static void write_after_free(void) {
    enum { SESSIONS = 64 };
    struct session *sessions[SESSIONS];
    for (int i = 0; i < SESSIONS; i++) {
        sessions[i] = malloc(sizeof *sessions[i]);
        memset(sessions[i], 0, sizeof *sessions[i]);
    }
    for (int i = 0; i < SESSIONS; i++) {
        pthread_t worker;
        pthread_create(&worker, NULL, end_session, sessions[i]);
        pthread_join(worker, NULL);
    }
    for (int i = 0; i < SESSIONS; i++) {
        strcpy(sessions[i]->user, "mallory was here");
    }
    for (int i = 0; i < 100000; i++) {
        if (malloc(sizeof(struct session)) == NULL) {
            return;
        }
    }
}

int main(int argc, char **argv) {
    const char *bug = argc > 1 ? argv[1] : "";
    if (strcmp(bug, "double-free") == 0) {
        free_twice();
    } else if (strcmp(bug, "interior-pointer") == 0) {
        free_inside();
    } else if (strcmp(bug, "corrupt-link") == 0) {
        write_after_free();
    } else {
        fprintf(stderr, "usage: demo_bugs double-free|interior-pointer|corrupt-link\n");
        return 2;
    }
    return 0;
}
