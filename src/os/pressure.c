#include "src/os/pressure.h"

#include "src/base/text.h"
#include "src/os/sys.h"

#include <stdint.h>
#include <string.h>

bool pressure_is_high(void) {
    char text[256];
    size_t n = sys_read_file("/proc/pressure/memory", text, sizeof text - 1);
    text[n] = '\0';
    const char *at = strstr(text, "some avg10=");
    uint64_t percent = 0;
    if (at == NULL) {
        return false;
    }
    at += sizeof("some avg10=") - 1;
    return text_parse_size(at, strcspn(at, ". \n"), &percent) && percent >= PRESSURE_PERCENT;
}
