// C, POSIX and glibc semantics. Everything a caller can get wrong without touching memory is
// decided here, so that the heap below sees possible sizes and power-of-two alignments only.
#include "src/front/front.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/cold/cold.h"
#include "src/front/figures.h"
#include "src/front/options.h"
#include "src/front/policy.h"
#include "src/heap/aside.h"
#include "src/heap/compact.h"
#include "src/heap/extent.h"
#include "src/heap/life.h"
#include "src/heap/report.h"
#include "src/heap/sweep.h"
#include "src/heap/upkeep.h"
#include "src/os/fault.h"
#include "src/os/keep.h"
#include "src/os/loader.h"
#include "src/os/sink.h"
#include "src/os/sys.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>

void *front_refuse(void) {
    errno = ENOMEM;
    return NULL;
}

static bool front_is_power_of_two(size_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

// P-SIZE: every entry refuses what cannot be, before anybody calculates with it.
// `align` is a power of two. The sum is bounded too, so that nobody below can overflow by rounding.
static void *front_alloc_aligned(size_t align, size_t size, uintptr_t site) {
    if (size > PTRDIFF_MAX || align > PTRDIFF_MAX - size) {
        return front_refuse();
    }
    return heap_alloc_aligned(align, size, site);
}

// A block with such an alignment or size was never handed out. The heap is not asked: its
// arithmetic is for possible sizes, and SIZE_MAX means "not named" to it.
static void front_check_named(const void *p, const struct heap_call *call) {
    const bool is_bad_align = call->align != 0 && !front_is_power_of_two(call->align);
    const size_t align = call->align > PTRDIFF_MAX ? PTRDIFF_MAX : call->align;
    if ((!is_bad_align && call->size <= PTRDIFF_MAX - align) || life_is_aside()) {
        return;
    }
    const struct fatal_info info = {
        .api = call->api,
        .address = (uintptr_t)p,
        .class_bytes = FATAL_CLASS_NONE,
        .size = call->size,
        .found = is_bad_align ? "alignment is not a power of two" : "size is impossible",
        .caller = call->site,
    };
    fatal(FATAL_SIZE_MISMATCH, &info);
}

void front_free_checked(void *p, const struct heap_call *call) {
    if (p == NULL) {
        return;
    }
    if (!FIRN_CHECK_FREE) {
        heap_free(p, call->site);
        return;
    }
    front_check_named(p, call);
    heap_free_sized(p, call);
}

// Some of its small blocks libc touches with every signal blocked, or hands to the kernel: a thread's table of
// thread-local storage when the thread ends, the extension of a pthread_attr_t, and its set of CPUs, when one is started.
// They come from calloc, or from realloc of nothing, and never go where that would do harm (cold/mark.h).
static void *keep_libcs(void *p, size_t bytes, uintptr_t site) {
    if (FIRN_UNLIKELY(firn_has_cold_upkeep) && p != NULL && bytes < FAULT_STACK_LEAST &&
        loader_is_own(site)) {
        cold_keep((uintptr_t)p, bytes);
    }
    return p;
}

void *front_alloc_zeroed(size_t count, size_t size, uintptr_t site) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX) {
        return front_refuse();
    }
    return keep_libcs(heap_alloc_zeroed(bytes, site), bytes, site);
}

// realloc and reallocarray, after the product.
static void *front_resize_as(void *p, const struct heap_call *call) {
    if (p == NULL) {
        return keep_libcs(front_alloc(call->size, call->site), call->size, call->site);
    }
    if (call->size == 0) {
        heap_free_slow(p, call);
        return NULL;
    }
    if (call->size > PTRDIFF_MAX) {
        return front_refuse();
    }
    return heap_resize_as(p, call);
}

void *front_resize(void *p, size_t size, uintptr_t site) {
    return front_resize_as(p, &(struct heap_call){"realloc", site, size, 0});
}

void *front_resize_array(void *p, size_t count, size_t size, uintptr_t site) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return front_refuse();
    }
    return front_resize_as(p, &(struct heap_call){"reallocarray", site, bytes, 0});
}

int front_posix_memalign(void **out, size_t align, size_t size, uintptr_t site) {
    if (!front_is_power_of_two(align) || align % sizeof(void *) != 0) {
        return EINVAL;
    }
    const int saved = errno;
    void *p = front_alloc_aligned(align, size, site);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

void *front_aligned_alloc(size_t align, size_t size, uintptr_t site) {
    if (!front_is_power_of_two(align)) {
        errno = EINVAL;
        return NULL;
    }
    return front_alloc_aligned(align, size, site);
}

void *front_memalign(size_t align, size_t size, uintptr_t site) {
    if (align > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = 1;
    while (power < align) {
        power <<= 1;
    }
    return front_alloc_aligned(power, size, site);
}

void *front_valloc(size_t size, uintptr_t site) {
    return front_alloc_aligned(FIRN_PAGE, size, site);
}

void *front_pvalloc(size_t size, uintptr_t site) {
    if (size > PTRDIFF_MAX - FIRN_PAGE) {
        return front_refuse();
    }
    const size_t pages = size == 0 ? 1 : (size + FIRN_PAGE - 1) / FIRN_PAGE;
    return front_alloc_aligned(FIRN_PAGE, pages * FIRN_PAGE, site);
}

size_t front_usable(const void *p, uintptr_t site) {
    return p != NULL ? heap_usable(p, site) : 0;
}

size_t front_object_size(const void *p) {
    return heap_extent(p);
}

int front_trim(size_t pad) {
    if (life_is_aside()) {
        return firn_aside.malloc_trim(pad);
    }
    if (options_get()->cold != OPTION_COLD_OFF) {
        cold_press();
    }
    // glibc keeps `pad` at the top of its heap; there is no top here.
    bool any = options_get()->mesh_auto ? compact_now() > 0 : heap_trim();
    bool any_next = firn_large_only != 0 && firn_aside.malloc_trim(pad) != 0;
    return any || any_next ? 1 : 0;
}

int front_mallopt(int parameter, int value) {
    if (life_is_aside() || firn_large_only != 0) {
        return firn_aside.mallopt(parameter, value);
    }
    // Thresholds, arenas and fast bins are glibc's way of working. Programs tune them for speed and
    // check the result; none of them can ask for less hardening here.
    switch (parameter) {
    case M_MXFAST:
    case M_TRIM_THRESHOLD:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_CHECK_ACTION:
    case M_PERTURB:
    case M_ARENA_TEST:
    case M_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}

static struct keep front_stderr = KEEP_NONE; // where the summary goes

static unsigned front_apply(const char *options, const char *origin, void *context) {
    (void)context;
    return options_apply(options, origin);
}

// Which wins: the environment over the policy, as whoever starts a program knows best what this run is for.
static void front_read_options(void) {
    const struct policy_source source = {POLICY_FILE, POLICY_FOLDER, 0, NULL};
    unsigned complaints = policy_read(&source, front_apply, NULL);
    complaints += options_apply(sys_environment("FIRN_OPTIONS"), "FIRN_OPTIONS");
    options_judge(complaints);
}

static const char *front_foreign; // the file

void front_note_foreign(const char *module) {
    front_foreign = module;
}

static void front_say_foreign(void) {
    char buffer[PATH_MAX + 128];
    struct text line = text_on(buffer, sizeof(buffer));
    text_str(&line, "firn: malloc is that of ");
    text_printable(&line, front_foreign);
    text_str(&line, ": Firn stands aside; FIRN_OPTIONS=off does so without a word\n");
    sys_write(2, line.data, line.length);
}

// True if Firn is to stand aside and can.
static bool front_is_off(void) {
    static const char cannot[] = "firn: off: there is no other malloc in this program; ignored\n";
    const bool is_off = options_get()->is_off;
    if (!is_off && front_foreign == NULL) {
        return false;
    }
    if (!aside_find()) {
        sys_write(2, cannot, sizeof cannot - 1);
        return false;
    }
    if (!is_off) {
        front_say_foreign();
    }
    return true;
}

// Before anything is allocated.
static void front_choose_next(void) {
    static const char cannot[] =
        "firn: large_only: there is no other malloc in this program; ignored\n";
    if (options_get()->large_only_bytes == 0) {
        return;
    }
    if (aside_find()) {
        aside_take_below(options_get()->large_only_bytes);
    } else {
        sys_write(2, cannot, sizeof cannot - 1);
    }
}

static void front_say_hello(bool is_off) {
    char buffer[128];
    struct text line = text_on(buffer, sizeof(buffer));
    text_str(&line, "firn: ");
    text_str(&line, FIGURES_VERSION);
    text_str(&line, " pid=");
    text_dec(&line, (uint64_t)sys_process_id());
    text_str(&line, is_off ? " off\n" : "\n");
    sys_write(2, line.data, line.length);
}

// Whoever asks for reports in a file relies on it: what cannot work is said now, not when it is
// needed.
static void front_open_report(const char *target) {
    char buffer[SINK_TARGET_BYTES + 160];
    struct text line = text_on(buffer, sizeof(buffer));
    const char *wrong = sink_set(target);
    fatal_set_writer(sink_write);
    if (wrong == NULL) {
        return;
    }
    text_str(&line, "firn: FIRN_OPTIONS: report: cannot use '");
    text_printable(&line, target);
    text_str(&line, "': ");
    text_str(&line, wrong);
    text_str(&line, "; reports go to standard error\n");
    sys_write(2, line.data, line.length);
}

bool front_start(void) {
    const int saved = errno;
    // Here too, and not only when the heap starts: a program's first call may be a wrong free.
    fatal_set_locator(sys_locate);
    fatal_set_detail(report_describe);
    front_read_options();
    const bool is_off = front_is_off();
    if (options_get()->verbose) {
        front_say_hello(is_off);
    }
    if (is_off) {
        errno = saved;
        return false;
    }
    front_choose_next();
    if (options_get()->stats_exit) {
        keep_copy(&front_stderr, 2);
    }
    if (options_get()->report[0] != '\0') {
        front_open_report(options_get()->report);
    }
    errno = saved;
    return true;
}

void front_end(void) {
    if (life_is_aside()) {
        return;
    }
    sweep_at_exit(options_get()->sweep_ms);
    if (options_get()->stats_exit) {
        figures_print(keep_descriptor(&front_stderr));
    }
}
