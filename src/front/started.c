// What the heap calls once it has started.
#include "hardening/sample.h"
#include "src/front/front.h"
#include "src/front/options.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"

void life_started(void) {
    front_start();
    if (options_get()->sample != 0) {
        firn_sample_rate = options_get()->sample;
    }
    if (firn_sample_rate != 0) {
        sample_watch();
    }
    upkeep_set_delay(options_get()->purge_delay_ms);
}
