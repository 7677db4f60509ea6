// Calls for which libc has a thread that blocks all signals: under engine `protect` no page goes any more after them.
#include "tests/preload/handed.h"

#include <aio.h>

static int zero;

__attribute__((constructor)) static void open_zero(void) {
    zero = open("/dev/zero", O_RDWR);
}

static long wait_for(struct aiocb *p) {
    const struct aiocb *list[1] = {p};
    while (aio_error(p) == EINPROGRESS) {
        aio_suspend(list, 1, NULL);
    }
    return aio_return(p);
}

static struct aiocb request;

CASE(aio_read, a[0] = put_room(100),
     (request = (struct aiocb){.aio_fildes = zero, .aio_buf = a[0], .aio_nbytes = 100},
      aio_read(&request) == 0 ? wait_for(&request) + must_be_kept(a[0]) : -1))
CASE(aio_write, a[0] = put_room(100),
     (request = (struct aiocb){.aio_fildes = zero, .aio_buf = a[0], .aio_nbytes = 100},
      aio_write(&request) == 0 ? wait_for(&request) + must_be_kept(a[0]) : -1))
CASE(aio_error, (void)a, aio_error(&request))

// What else there is, and goes again or not.
static void put_more(void) {
    for (int i = 0; i < 10; i++) {
        (void)put_room(100);
    }
}

CASE(others, put_more(), 0)

int main(int argc, char **argv) {
    return handed_main(argc, argv);
}
