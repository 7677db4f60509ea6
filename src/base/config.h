// Every build switch, its default per level, and the relations between switches.
//
// A switch is 0/1 or a bounded integer. Elsewhere write `if (FIRN_X)`, never `#if`: both branches
// always compile, and at -O2 a feature that is off leaves no code behind.
//
// FIRN_LEVEL: 0 bare (benchmark control), 1 light, 2 default, 3 strict. See SECURITY.md.
#ifndef FIRN_BASE_CONFIG_H
#define FIRN_BASE_CONFIG_H

#include <assert.h>

#ifndef FIRN_LEVEL
#define FIRN_LEVEL 2
#endif
static_assert(FIRN_LEVEL >= 0 && FIRN_LEVEL <= 3, "FIRN_LEVEL is 0, 1, 2 or 3");

// Deterministic pointer checks on free, realloc and sized free. P-FREE-DOUBLE, P-FREE-INTERIOR,
// P-FREE-MISALIGNED, P-FREE-NEVER, P-FREE-FOREIGN, P-FREE-SIZE.
#ifndef FIRN_CHECK_FREE
#define FIRN_CHECK_FREE (FIRN_LEVEL >= 1)
#endif

// Slots freed by another thread carry a keyed tag until their owner takes them back. P-LINK.
#ifndef FIRN_SAFE_LINK
#define FIRN_SAFE_LINK (FIRN_LEVEL >= 1)
#endif

// A keyed canary after each small block, checked with those of its neighbours when it is freed or
// resized. P-CANARY.
#ifndef FIRN_CANARY
#define FIRN_CANARY (FIRN_LEVEL >= 2)
#endif

// A freed slot is overwritten with zeros. P-WIPE.
#ifndef FIRN_WIPE
#define FIRN_WIPE (FIRN_LEVEL >= 2)
#endif

// A slot is handed out again only if nothing was written to it since it was freed. P-VERIFY.
#ifndef FIRN_VERIFY
#define FIRN_VERIFY FIRN_WIPE
#endif
static_assert(!FIRN_VERIFY || FIRN_WIPE, "only zeros can be told from what was written");

// The requested size is remembered, and what lies between it and the canary checked. P-SLACK.
#ifndef FIRN_SLACK
#define FIRN_SLACK (FIRN_LEVEL >= 3)
#endif
static_assert(!FIRN_SLACK || FIRN_CANARY, "the size is kept in the canary");

// The rest of a large object's last page is filled and checked likewise. P-LARGE-SLACK.
#ifndef FIRN_LARGE_SLACK
#define FIRN_LARGE_SLACK (FIRN_LEVEL >= 3)
#endif

// Bytes of freed slots a thread keeps from use, the oldest leaving first. 0: none. At level 2 a
// fraction of what a first-level cache holds: 16 KiB cost 2 ns more for each malloc and free.
// P-QUARANTINE.
#ifndef FIRN_QUARANTINE
#define FIRN_QUARANTINE (FIRN_LEVEL < 2 ? 0 : FIRN_LEVEL == 2 ? 8 * 1024 : 256 * 1024)
#endif
static_assert(FIRN_QUARANTINE == 0 ||
                  (FIRN_QUARANTINE >= 8 * 1024 && FIRN_QUARANTINE <= 16 * 1024 * 1024 &&
                   FIRN_QUARANTINE % (8 * 1024) == 0),
              "equal parts of 1 KiB at least");

// Call-site partitions: 0 off, 1 hashed, 2 interned. P-PARTITION.
#ifndef FIRN_PARTITION_MODE
#define FIRN_PARTITION_MODE (FIRN_LEVEL == 0 ? 0 : FIRN_LEVEL == 3 ? 2 : 1)
#endif
static_assert(FIRN_PARTITION_MODE >= 0 && FIRN_PARTITION_MODE <= 2, "off, hashed or interned");

// log2 of the number of partitions. Each one more costs small programs memory: `python3 -c pass` uses
// 113 (class, partition) pairs at 4 partitions, 77 at 2, and each touches a few pages of its
// own. Two is what keeps it within 1 MiB of glibc.
#ifndef FIRN_PARTITION_BITS
#define FIRN_PARTITION_BITS (FIRN_PARTITION_MODE == 0 ? 0 : FIRN_PARTITION_MODE == 1 ? 1 : 5)
#endif
static_assert(FIRN_PARTITION_BITS >= 0 && FIRN_PARTITION_BITS <= 6, "1 to 64 partitions");
#define FIRN_PARTITIONS (1u << FIRN_PARTITION_BITS)

// A large object that reuses freed pages fills its run, so that a guard page precedes it always; else
// up to a fifth of the run may lie open before it. P-LARGE-SNUG.
#ifndef FIRN_LARGE_SNUG
#define FIRN_LARGE_SNUG (FIRN_LEVEL >= 3)
#endif

// A freed large object reads as zeros, and its pages are handed out again only if they still do.
// P-LARGE-RETIRE.
#ifndef FIRN_LARGE_RETIRE
#define FIRN_LARGE_RETIRE (FIRN_LEVEL >= 2)
#endif

// It is made inaccessible instead, and waits in a queue before its addresses are used again.
// P-LARGE-CLOSE.
#ifndef FIRN_LARGE_CLOSE
#define FIRN_LARGE_CLOSE (FIRN_LEVEL >= 3)
#endif
static_assert(!FIRN_LARGE_CLOSE || FIRN_LARGE_RETIRE, "what cannot be closed has to be wiped");

// Milliseconds, at most, that the sweep at exit takes; 0: none, unless the option `sweep` asks for it.
// Where it is not 0 spans are also looked at now and then. P-SWEEP.
#ifndef FIRN_SWEEP
#define FIRN_SWEEP (FIRN_LEVEL == 3 ? 100 : 0)
#endif
static_assert(FIRN_SWEEP == 0 || (FIRN_SWEEP >= 10 && FIRN_SWEEP <= 10000),
              "what the option accepts");

// Guard pages between spans of small blocks: one index in so many is never handed out and made
// inaccessible, at a random place; 2: every other one. 0: none. P-GUARD-SPAN.
#ifndef FIRN_SPAN_GUARDS
#define FIRN_SPAN_GUARDS (FIRN_LEVEL == 0 ? 0 : FIRN_LEVEL == 1 ? 16 : FIRN_LEVEL == 2 ? 4 : 2)
#endif
static_assert(FIRN_SPAN_GUARDS == 0 || (FIRN_SPAN_GUARDS >= 2 && FIRN_SPAN_GUARDS <= 64),
              "a window of spans has some of each kind");

// Guarded samples: one small allocation in so many lies alone on its pages, against a guard page. 0:
// none, unless the option `sample` asks for it. P-SAMPLE.
#ifndef FIRN_SAMPLE_RATE
#define FIRN_SAMPLE_RATE                                                                           \
    (FIRN_LEVEL == 0 ? 0 : FIRN_LEVEL == 1 ? 10000 : FIRN_LEVEL == 2 ? 5000 : 1000)
#endif
static_assert(FIRN_SAMPLE_RATE == 0 || (FIRN_SAMPLE_RATE >= 100 && FIRN_SAMPLE_RATE <= 1000000),
              "what the option accepts");

// The least seal of frozen pages: 0 off, 1 mac, 2 aead; the option `seal` can only raise it.
// P-COLD-SEAL.
#ifndef FIRN_SEAL
#define FIRN_SEAL (FIRN_LEVEL >= 3 ? 2 : FIRN_LEVEL >= 2 ? 1 : 0)
#endif
static_assert(FIRN_SEAL >= 0 && FIRN_SEAL <= 2, "off, mac or aead");

// Compaction without being asked, in a thread of Firn's own, unless the option `mesh` says otherwise.
#ifndef FIRN_MESH_AUTO
#define FIRN_MESH_AUTO 0
#endif

// Whole-structure validators and lock ranks. Debug and sanitizer builds.
#ifndef FIRN_DEBUG
#define FIRN_DEBUG 0
#endif

// Lets FIRN_TEST_CAPS (environment) mask kernel features. Only the test builds set this.
#ifndef FIRN_TEST_HOOKS
#define FIRN_TEST_HOOKS 0
#endif

#endif
