// Fatal signals: says what was touched, then lets the signal kill the process, so that a fuzzer sees
// the crash and a core dump shows the instruction.
//
// The program's own handlers for SIGSEGV, SIGBUS, SIGFPE and SIGILL are recorded instead of installed
// (sigaction and signal are interposed). A fault at a guard or in freed memory is never theirs; any
// other fault is passed on to them, with their mask and flags.
#ifndef FIRN_FUZZBUILD_CRASH_H
#define FIRN_FUZZBUILD_CRASH_H

// Installs the handler on an alternate stack of its own. Called once, by the first thread. Threads that
// come later run the handler on their own stack unless they set another.
void crash_install(void);

#endif
