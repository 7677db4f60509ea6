// What the heap calls once it has started.
#include "hardening/sample.h"
#include "mesh/mesh.h"
#include "src/base/config.h"
#include "src/base/text.h"
#include "src/cold/cold.h"
#include "src/front/cold_text.h"
#include "src/front/front.h"
#include "src/front/options.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/fault.h"
#include "src/os/strain.h"
#include "src/os/sys.h"

#include <string.h>

// Tests do not wait for a second.
static uint64_t cold_after_ms(void) {
    const char *text = FIRN_TEST_HOOKS ? sys_environment("FIRN_TEST_COLD") : NULL;
    uint64_t ms = (uint64_t)options_get()->cold_after_s * 1000;
    if (text != NULL) {
        (void)!text_parse_size(text, strlen(text), &ms);
    }
    return ms;
}

bool life_may_start(void) {
    return front_start();
}

void life_started(void) {
    if (options_get()->sample != 0) {
        firn_sample_rate = options_get()->sample;
    }
    if (firn_sample_rate != 0) {
        sample_watch();
    }
    enum fault_engine engine = (enum fault_engine)options_get()->fault;
    if (engine != FAULT_NONE) { // else nothing of it is touched
        fault_choose(engine);
        cold_choose_engine(engine);
    }
    if (options_get()->cold == OPTION_COLD_AUTO) {
        cold_choose_event_only();
    }
    if (options_get()->cold != OPTION_COLD_OFF) {
        if (options_get()->cold_store == OPTION_STORE_SWAP) {
            cold_choose_swap(options_get()->seal != 0);
        }
        cold_choose(true, cold_after_ms(), options_get()->seal, options_get()->cold_max_bytes);
        strain_choose(sys_environment("MEMORY_PRESSURE_WATCH"),
                      sys_environment("MEMORY_PRESSURE_WRITE"));
        upkeep_add_cold();
    }
    if (options_get()->stats_signal) {
        cold_text_on_signal();
    }
    upkeep_set_delay(options_get()->purge_delay_ms);
    if (options_get()->mesh_auto) {
        upkeep_add_keeper(options_get()->mesh_pace);
    }
    if (options_get()->mesh_budget != 0) {
        mesh_set_budget(options_get()->mesh_budget);
    }
}
