#include "src/os/loader.h"

#include "src/base/compiler.h"

#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/auxv.h>

struct range {
    uintptr_t start, end; // end 0: not known
};

static struct range libc, loader;

static bool contains(const struct range *r, uintptr_t address) {
    return address >= r->start && address < r->end;
}

static struct range range_of(const struct dl_phdr_info *info) {
    struct range r = {UINTPTR_MAX, 0};
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD) {
            r.start = start < r.start ? start : r.start;
            r.end = start + p->p_memsz > r.end ? start + p->p_memsz : r.end;
        }
    }
    return r;
}

static int visit(struct dl_phdr_info *info, size_t bytes, void *function) {
    (void)bytes;
    struct range r = range_of(info);
    if (contains(&r, (uintptr_t)function)) {
        libc = r;
    }
    if (contains(&r, getauxval(AT_BASE))) {
        loader = r;
    }
    return 0;
}

// Not pthread_create, which a library may have put itself in front of.
void loader_note_ranges(void) {
    void *function = NULL;
    *(int (**)(pthread_attr_t *)) & function = pthread_attr_init;
    (void)dl_iterate_phdr(visit, function);
}

bool loader_is_own(uintptr_t site) {
    return contains(&libc, site) || contains(&loader, site);
}

bool loader_may_hold_locks(uintptr_t site) {
    return libc.end == 0 || loader.end == 0 || loader_is_own(site);
}
