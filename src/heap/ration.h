// Address space that becomes scarce while the process runs: a limit (RLIMIT_AS) it sets itself, or
// mlockall, which counts every mapping against RLIMIT_MEMLOCK.
#ifndef FIRN_HEAP_RATION_H
#define FIRN_HEAP_RATION_H

// Gives back all addresses that are reserved and not in use. From then on they are mapped piece by
// piece, as in a process that started under such a limit; guards and what was handed out stay. Once
// done it is not undone, and costs nothing more. Any thread; preserves errno. Does nothing before the
// heap has started (start finds out for itself), or in a signal handler that interrupted the heap.
void ration_addresses(void);

// Before mlockall: see mesh_end.
void ration_before_lock(void);

#endif
