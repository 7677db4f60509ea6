// How much of a processor the thread may have that looks for idle pages. All of it is that thread's.
#ifndef FIRN_COLD_PACE_H
#define FIRN_COLD_PACE_H

// Before the thread runs.
void pace_configure(unsigned cpu_percent);
// Pace is kept from now on.
void pace_start(void);
// Sleeps off what was used beyond the share.
void pace_keep(void);

#endif
