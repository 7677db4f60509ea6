/* The merge of a page (mesh/merge.h) against its owner, a thread that frees one of its slots, and a
 * partner that already lives in the frame. Checked exhaustively by merge.sh.
 *
 * Page A has two slots. Slot 0 is live at first; slot 1 is free. Granule 1 of the frame is the partner's.
 * Memory is a byte a granule; a write takes the page's mapping at the moment of the write, and waits while
 * the page is staged. In the end the page is taken away before the frame is mapped: a read waits then, too.
 * Mutants (-DNO_STAGE, -DNO_COVER, -DNO_LOCK, -DTAKES_FROM_MESHED) must fail. */

#define TAG 77

byte private[2], frame[2];
bool is_mapped;      /* A maps the frame */
bool is_staged;
bool is_covered;     /* who reads waits */
bool lock;           /* A's owner's */
bool is_free[2];     /* not occupied: neither live nor in hand. Slot 1 at first: see Start */
bool is_remote;      /* slot 0: freed by another thread, not taken back yet */
byte value[2];       /* what was last written by its user, per slot of A */
bool has_slot[2];    /* the program has slot i of A */
byte partner;        /* what the partner wrote last */
bool has_begun;

active proctype Start() {
    atomic { is_free[1] = true; has_slot[0] = true; has_begun = true }
}

inline acquire() { atomic { !lock -> lock = true } }
inline release() { lock = false }

/* One store of the program, or of free. */
inline store(i, v) {
    atomic {
        !is_staged;
        if
        :: is_mapped -> frame[i] = v
        :: else -> private[i] = v
        fi
    }
}

#define LOAD(i) (is_mapped -> frame[i] : private[i])

/* What the program, or central, finds in its slot. */
inline look(i, v) {
    atomic {
        !is_covered;
        assert(LOAD(i) == v)
    }
}

/* With the lock: the last slot is gone, the page is private again, and zero. */
inline part_if_empty() {
    if
    :: is_mapped && is_free[0] && is_free[1] ->
        atomic { is_mapped = false; private[0] = 0; private[1] = 0 }
    :: else
    fi
}

/* Moves slots between live, in hand and free; writes to what it has. */
active proctype Owner() provided (has_begun) {
    byte rounds = 0;
    do
    :: rounds == 4 -> break
    :: else ->
        rounds++;
        if
        :: has_slot[1] ->                   /* a program that writes and reads */
            value[1]++;
            store(1, value[1]);
            look(1, value[1])
        :: has_slot[1] ->                   /* free, then put back on a slow path */
            has_slot[1] = false;
            acquire();
            is_free[1] = true;
            part_if_empty();
            release()
        :: !has_slot[1] ->                  /* refill, if the span may be taken from */
            acquire();
            if
#ifdef TAKES_FROM_MESHED
            :: is_free[1] ->
#else
            :: is_free[1] && !is_mapped ->
#endif
                is_free[1] = false;
                has_slot[1] = true;
                value[1] = LOAD(1)
            :: else
            fi;
            release()
        fi
    od
}

/* Uses slot 0 and frees it as a thread that does not own it. */
active proctype Remote() provided (has_begun) {
    byte rounds = 0;
    do
    :: rounds == 2 -> break
    :: else ->
        rounds++;
        value[0]++;
        store(0, value[0]);
        look(0, value[0])
    od;
    has_slot[0] = false;
    store(0, TAG);
    is_remote = true
}

/* Takes the freed slot back: the owner's drain, or central. */
active proctype Drain() {
    is_remote;
    acquire();
    look(0, TAG);
    is_remote = false;
    is_free[0] = true;
    part_if_empty();
    release()
}

active proctype Partner() provided (has_begun) {
    byte rounds = 0;
    do
    :: rounds == 3 -> break
    :: else ->
        rounds++;
        atomic { partner++; frame[1] = partner }
        assert(frame[1] == partner)
    od
}

active proctype Mesher() provided (has_begun) {
    byte passes = 0, copy;
    bool occupied[2];
    do
    :: passes == 2 -> break
    :: else ->
        passes++;
#ifndef NO_LOCK
        acquire();
#endif
        occupied[0] = !is_free[0];
        occupied[1] = !is_free[1];
        if
        :: !is_mapped && occupied[0] && !occupied[1] ->   /* disjoint from the partner's */
#ifndef NO_STAGE
            is_staged = true;
#endif
            copy = private[0];
            frame[0] = copy;
#ifndef NO_COVER
            is_covered = true;
#endif
            atomic { private[0] = 0; private[1] = 0 };
            is_mapped = true;                            /* one step, for who reads */
            is_covered = false;
            is_staged = false
        :: else
        fi;
#ifndef NO_LOCK
        release()
#endif
    od
}

