#include "src/fuzzbuild/start.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/fuzzbuild/blocks.h"
#include "src/fuzzbuild/crash.h"
#include "src/fuzzbuild/pattern.h"
#include "src/fuzzbuild/settings.h"
#include "src/fuzzbuild/space.h"
#include "src/fuzzbuild/trace.h"
#include "src/os/caps.h"
#include "src/os/sys.h"

#include <errno.h>
#include <string.h>

bool start_is_done;

// Test builds make every lesser path run on a kernel that has the better one.
static uint32_t capability_mask(void) {
    const char *text = FIRN_TEST_HOOKS ? sys_environment("FIRN_TEST_CAPS") : NULL;
    uint64_t mask;
    return text != NULL && text_parse_size(text, strlen(text), &mask) ? (uint32_t)mask : ~0u;
}

static void announce(void) {
    char buffer[128];
    struct text line = text_on(buffer, sizeof(buffer));
    text_str(&line, "firn: fuzz build: seed ");
    text_dec(&line, settings_get()->seed);
    text_str(&line, caps_has(CAP_GUARD_MARKER) ? ", guard markers\n" : ", mprotect guards\n");
    sys_write(2, line.data, line.length);
}

void start_now(void) {
    int saved = errno;
    start_is_done = true;
    settings_read();
    caps_probe(capability_mask());
    fatal_set_locator(sys_locate);
    FIRN_ENSURE(space_start(settings_get()->seed));
    pattern_start(settings_get()->seed);
    trace_start((unsigned)settings_get()->depth);
    blocks_start();
    crash_install();
    if (settings_get()->verbose) {
        announce();
    }
    errno = saved;
}

// A program that allocates nothing before main still has its crashes reported.
__attribute__((constructor)) static void start_program(void) {
    start_once();
}

__attribute__((destructor)) static void start_finish(void) {
    blocks_finish();
}
