// For tests: a thread that stages pages of the heap at random, all the time, as if everything were being
// merged. Nothing in libraries without test hooks.
#ifndef FIRN_HEAP_STORM_H
#define FIRN_HEAP_STORM_H

// FIRN_TEST_ARM=1 takes an engine into use, FIRN_TEST_ARM=storm starts the thread as well. Once, from a
// constructor: the engines need the system calls' pins.
void storm_start_if_asked(void);

#endif
