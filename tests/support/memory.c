#include "tests/support/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool memory_is_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
    return false;
#endif
}

bool memory_can_read(uintptr_t address) {
    int ends[2];
    bool done = pipe(ends) == 0 && write(ends[1], (const void *)address, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return done;
}

bool memory_can_write(uintptr_t address) {
    int ends[2];
    bool done = pipe(ends) == 0 && write(ends[1], (const void *)address, 1) == 1 &&
                read(ends[0], (void *)address, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return done;
}

bool memory_is_zero(const void *p, size_t n) {
    const unsigned char *bytes = p;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

size_t memory_count_vmas(uintptr_t address, size_t bytes) {
    char line[4096];
    size_t count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
        uintptr_t start, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2 && start < address + bytes &&
            end > address) {
            count++;
        }
    }
    fclose(maps);
    return count;
}

// Copies the line of /proc/self/smaps that begins with `key`, for the mapping around `address`.
static bool find_line(uintptr_t address, const char *key, char *line, size_t line_bytes) {
    bool is_here = false, is_found = false;
    FILE *smaps = fopen("/proc/self/smaps", "r");
    while (smaps != NULL && !is_found && fgets(line, (int)line_bytes, smaps) != NULL) {
        uintptr_t start, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
            is_here = address >= start && address < end;
        } else if (is_here && strncmp(line, key, strlen(key)) == 0) {
            is_found = true;
        }
    }
    fclose(smaps);
    return is_found;
}

bool memory_has_flag(uintptr_t address, const char *flag) {
    char line[4096], word[8];
    snprintf(word, sizeof(word), " %s ", flag);
    return find_line(address, "VmFlags:", line, sizeof(line)) && strstr(line, word) != NULL;
}

size_t memory_resident_kib(uintptr_t address) {
    char line[4096];
    size_t kib = 0;
    if (find_line(address, "Rss:", line, sizeof(line))) {
        sscanf(line, "Rss: %zu", &kib);
    }
    return kib;
}

size_t memory_pss_bytes(void) {
    char line[128];
    size_t sum = 0, kib = 0;
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    while (rollup != NULL && fgets(line, sizeof(line), rollup) != NULL) {
        if (sscanf(line, "Pss_Anon: %zu", &kib) == 1 || sscanf(line, "Pss_Shmem: %zu", &kib) == 1) {
            sum += kib;
        }
    }
    if (rollup != NULL) {
        fclose(rollup);
    }
    return sum << 10;
}
