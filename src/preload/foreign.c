// A program that brings its own malloc (jemalloc, tcmalloc or mimalloc linked into it, a sanitizer) has its own
// functions found first, by everybody: Firn's are never called, or only those that the other lacks, whose
// blocks would then end up in the wrong heap. So Firn stands aside there as with `off`, and says so.
//
// Not in the archive, where libc's malloc may be what a search finds.
#include "src/front/front.h"
#include "src/heap/life.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A program that is linked to fixed addresses and takes the address of malloc has a stub of that name, which jumps
// to whichever is first: python3 is one.
static bool is_defined(const ElfW(Sym) * entry) {
    return entry != NULL && entry->st_shndx != SHN_UNDEF;
}

// Before malloc_start decides. Where it is decided, somebody has called Firn's malloc.
__attribute__((constructor(101))) static void look_for_others(void) {
    Dl_info ours, theirs;
    void *entry = NULL;
    if (life_is_decided()) {
        return;
    }
    void *const first = dlsym(RTLD_DEFAULT, "malloc");
    void *const here = (void *)(uintptr_t)&look_for_others;
    if (first != NULL && dladdr(here, &ours) != 0 &&
        dladdr1(first, &theirs, &entry, RTLD_DL_SYMENT) != 0 &&
        theirs.dli_fbase != ours.dli_fbase && is_defined(entry)) {
        front_note_foreign(theirs.dli_fname);
    }
}
