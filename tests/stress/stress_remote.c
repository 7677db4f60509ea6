// Every block is freed by a thread that did not allocate it.
//
// Phase 1, a graph: each thread sends blocks to random others and frees what arrives.
// Phase 2, fill and drain: one thread allocates 64 MiB of one size, another frees it all, then the
// next size. An allocator that leaves such memory with an owner who never asks for that size
// again grows by 64 MiB a size; the bound at the end is what this phase is for.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address,thread

#include "tests/stress/stress.h"

#include <stdatomic.h>

#define THREADS 5u
#define INBOX 512u
#define FILL_BYTES ((size_t)64 << 20)
#define FILL_SIZES 6u

// A bounded queue under a mutex: the allocator is the subject, not the queue.
struct inbox {
    pthread_mutex_t lock;
    void *blocks[INBOX];
    unsigned count;
};

struct node {
    pthread_t thread;
    struct rng rng;
    struct inbox inbox;
    uint64_t sent, freed;
};

static struct node nodes[THREADS];
static atomic_uint running = THREADS;

static bool inbox_put(struct inbox *inbox, void *p) {
    pthread_mutex_lock(&inbox->lock);
    bool has_room = inbox->count < INBOX;
    if (has_room) {
        inbox->blocks[inbox->count++] = p;
    }
    pthread_mutex_unlock(&inbox->lock);
    return has_room;
}

static unsigned inbox_take(struct inbox *inbox, void **out, unsigned max) {
    pthread_mutex_lock(&inbox->lock);
    unsigned n = inbox->count < max ? inbox->count : max;
    inbox->count -= n;
    memcpy(out, &inbox->blocks[inbox->count], n * sizeof *out);
    pthread_mutex_unlock(&inbox->lock);
    return n;
}

static unsigned drain(struct node *self) {
    void *blocks[64];
    unsigned n = inbox_take(&self->inbox, blocks, 64);
    for (unsigned i = 0; i < n; i++) {
        block_free(blocks[i], "remote free");
    }
    self->freed += n;
    return n;
}

static void send_some(struct node *self, unsigned index) {
    for (unsigned i = 0; i < 64; i++) {
        void *p = block_new(&self->rng, rng_size(&self->rng));
        unsigned other = (index + 1 + (unsigned)rng_below(&self->rng, THREADS - 1)) % THREADS;
        while (!inbox_put(&nodes[other].inbox, p)) {
            if (drain(self) == 0) {
                sched_yield();
            }
        }
        self->sent++;
    }
}

static void *run_node(void *arg) {
    struct node *self = arg;
    unsigned index = (unsigned)(self - nodes);
    // Half the time for the graph, the rest for phase 2.
    uint64_t end = stress_deadline_ns - (uint64_t)stress_seconds * 500000000u;
    while (stress_now_ns() < end) {
        send_some(self, index);
        drain(self);
    }
    // A sender may be waiting for room here: drain until the last one is done.
    atomic_fetch_sub_explicit(&running, 1, memory_order_acq_rel);
    while (atomic_load_explicit(&running, memory_order_acquire) > 0 || drain(self) > 0) {
        if (drain(self) == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static uint64_t run_graph(void) {
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_mutex_init(&nodes[i].inbox.lock, NULL);
        nodes[i].rng = rng_for(i + 1);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        nodes[i].thread = stress_thread(run_node, &nodes[i]);
    }
    uint64_t sent = 0;
    uint64_t freed = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(nodes[i].thread);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        while (drain(&nodes[i]) > 0) {
        }
        sent += nodes[i].sent;
        freed += nodes[i].freed;
    }
    STRESS_CHECK(sent == freed && sent > 0, "%" PRIu64 " sent, %" PRIu64 " freed", sent, freed);
    return sent;
}

struct drain_job {
    void **blocks;
    size_t count;
};

static void *run_drain(void *arg) {
    struct drain_job *job = arg;
    for (size_t i = 0; i < job->count; i++) {
        block_free(job->blocks[i], "drain");
    }
    return NULL;
}

static void fill_and_drain(struct rng *rng, size_t size) {
    size_t count = FILL_BYTES / size;
    void **blocks = mem_alloc(count * sizeof *blocks);
    STRESS_CHECK(blocks != NULL, "out of memory for the table");
    for (size_t i = 0; i < count; i++) {
        blocks[i] = block_new(rng, size);
    }
    struct drain_job job = {.blocks = blocks, .count = count};
    stress_join(stress_thread(run_drain, &job));
    mem_free(blocks);
}

int main(int argc, char **argv) {
    stress_start("stress_remote", argc, argv);
    size_t before = stress_pss_kib();
    uint64_t sent = run_graph();
    static const size_t sizes[FILL_SIZES] = {48, 112, 320, 768, 2048, 6000};
    struct rng rng = rng_for(99);
    unsigned rounds = 0;
    do {
        fill_and_drain(&rng, sizes[rounds % FILL_SIZES]);
        rounds++;
    } while (rounds < FILL_SIZES || !stress_time_is_up());
    size_t after = stress_pss_settled_kib();
    // Nothing is live. Two fills and what the graph can have had in flight at once.
    size_t bound = before + 2 * (FILL_BYTES >> 10) + 32 * 1024;
    STRESS_CHECK(!stress_pss_counts() || after <= bound,
                 "nothing is live, Pss is %zu KiB (bound %zu, %zu at start)", after, bound, before);
    printf("ok %s sent=%" PRIu64 " fills=%u pss=%zuK..%zuK seed=%" PRIu64 "\n", stress_name, sent,
           rounds, before, after, stress_seed);
    return 0;
}
