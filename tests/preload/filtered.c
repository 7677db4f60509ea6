// Runs the rest of its arguments where Docker's default profile has been put around it.
#include "tests/support/filter.h"

#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 2 || !filter_install(FILTER_DOCKER, FILTER_BY_PRCTL)) {
        return FILTER_EXIT;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
