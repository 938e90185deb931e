#include "tests/cuda/emu.h"

#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include <vector>

#include <sanitizer/asan_interface.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" {
#include "common/base.h"
}

enum { STACK_BYTES = 128 << 10, THREADS_MAX = 1024 };
enum state { READY, AT_WARP, AT_BLOCK, ENDED };

struct copy {
    void *to;
    const void *from;
    int n;
};

struct product {
    float (*d)[4];
    int n;
    const uint32_t *a_regs;
    uint64_t a, b;
    bool add, is_bf16;
};

struct fiber {
    emu_thread thread;
    void *sp;
    uint8_t *stack;
    enum state state;
    std::vector<copy> copies;    /* asked for and not done */
    std::vector<size_t> groups; /* copies of each group that was ended */
    size_t n_open;               /* copies behind the last group */
    std::vector<product> products;       /* of a warpgroup, asked for and not done */
    std::vector<size_t> product_groups;
    size_t n_products_open;
};

struct warp {
    uint8_t slot[2][32 * 64]; /* what lanes give each other; two, so that one barrier an exchange is enough */
};

thread_local emu_thread *emu_self;
thread_local dim3 emu_block, emu_block_dim, emu_grid_dim;
thread_local uint64_t emu_block_count;

static thread_local struct device {
    ~device();
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::vector<uint8_t> flip;
    const std::function<void()> *kernel;
    uint8_t *shared;
    size_t shared_bytes;
    void *sp; /* of the scheduler */
    size_t current;
    uint64_t seed;
} emu;

/* The thread's device goes with it. */
device::~device() {
    for (fiber &f : fibers)
        if (f.stack) {
            /* Its last frame was never left, and ASan would hold what is mapped there next for that frame. */
            ASAN_UNPOISON_MEMORY_REGION(f.stack, STACK_BYTES);
            munmap(f.stack, STACK_BYTES);
        }
}

/* emu_switch: saves what a called function must keep and the stack's place at *from, and goes on at `to`. */
extern "C" void emu_switch(void **from, void *to);
__asm__(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emu_switch,.-emu_switch\n");

static uint64_t shuffle_next(void) {
    emu.seed = emu.seed * 6364136223846793005ull + 1442695040888963407ull;
    return emu.seed >> 33;
}

void emu_seed(uint64_t seed) {
    emu.seed = seed;
}

void *emu_shared(void) {
    return emu.shared;
}

#if defined(__SANITIZE_ADDRESS__)
static thread_local const void *main_stack; /* of the scheduler, as ASan tells it to the first fiber */
static thread_local size_t main_bytes;
#endif

/* leave: back to the scheduler. */
static void leave(fiber *f, bool ends) {
#if defined(__SANITIZE_ADDRESS__)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(ends ? NULL : &fake, main_stack, main_bytes);
    emu_switch(&f->sp, emu.sp);
    __sanitizer_finish_switch_fiber(fake, &main_stack, &main_bytes);
#else
    (void)ends;
    emu_switch(&f->sp, emu.sp);
#endif
}

static void entry(void) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &main_stack, &main_bytes);
#endif
    (*emu.kernel)();
    fiber *f = &emu.fibers[emu.current];
    f->state = ENDED;
    leave(f, true);
    CHECK(!"an ended thread goes on");
}

static void enter(size_t i) {
    fiber *f = &emu.fibers[i];
    emu.current = i;
    emu_self = &f->thread;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, f->stack, STACK_BYTES);
    emu_switch(&emu.sp, f->sp);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#else
    emu_switch(&emu.sp, f->sp);
#endif
}

static void fiber_start(fiber *f, size_t i) {
    if (!f->stack) {
        void *p = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED);
        f->stack = static_cast<uint8_t *>(p);
    }
    void **sp = reinterpret_cast<void **>(f->stack + STACK_BYTES) - 3; /* entry finds the stack as after a call */
    *--sp = reinterpret_cast<void *>(entry);
    sp -= 6;
    memset(sp, 0, 6 * sizeof *sp);
    f->sp = sp;
    f->state = READY;
    f->thread.index = dim3(static_cast<unsigned>(i) % emu_block_dim.x, static_cast<unsigned>(i) / emu_block_dim.x);
    f->copies.clear();
    f->groups.clear();
    f->n_open = 0;
    f->products.clear();
    f->product_groups.clear();
    f->n_products_open = 0;
}

/* release: lets threads [at, at + n) go on if all of them that live are in state `s`. */
static bool release(size_t at, size_t n, enum state s) {
    bool some = false;
    for (size_t i = at; i < at + n; i++) {
        if (emu.fibers[i].state != s && emu.fibers[i].state != ENDED)
            return false;
        some |= emu.fibers[i].state == s;
    }
    for (size_t i = at; some && i < at + n; i++)
        if (emu.fibers[i].state == s)
            emu.fibers[i].state = READY;
    return some;
}

static void block_run(size_t n) {
    std::vector<size_t> order(n);
    emu_block_count++;
    for (size_t i = 0; i < n; i++) {
        fiber_start(&emu.fibers[i], i);
        order[i] = i;
        emu.flip[i] = 0;
    }
    if (emu.shared_bytes)
        memset(emu.shared, 0xFF, emu.shared_bytes); /* NaN, until it is written */
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = n; i > 1; i--)
            std::swap(order[i - 1], order[shuffle_next() % i]);
        for (size_t i : order)
            if (emu.fibers[i].state == READY) {
                enter(i);
                moved = true;
            }
        for (size_t w = 0; w < n; w += 32)
            moved |= release(w, MIN(n - w, (size_t)32), AT_WARP);
        moved |= release(0, n, AT_BLOCK);
    }
    for (size_t i = 0; i < n; i++)
        CHECK(emu.fibers[i].state == ENDED); /* else: a barrier that not all threads reach */
}

void emu_run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel) {
    size_t n = static_cast<size_t>(block.x) * block.y * block.z;
    CHECK(n > 0 && n <= THREADS_MAX && n % 32 == 0 && grid.x > 0 && grid.y > 0 && grid.z > 0);
    CHECK(grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535 && shared_bytes <= 227 * KIB);
    if (emu.fibers.size() < n)
        emu.fibers.resize(n);
    emu.flip.resize(n);
    emu.warps.resize(n / 32);
    emu_grid_dim = grid;
    emu_block_dim = block;
    emu.kernel = &kernel;
    emu.shared_bytes = shared_bytes;
    emu.shared = shared_bytes ? static_cast<uint8_t *>(aligned_alloc(1024, (shared_bytes + 1023) / 1024 * 1024)) : NULL;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                emu_block = dim3(x, y, z);
                block_run(n);
            }
    free(emu.shared);
}

static void stop_at(enum state s) {
    fiber *f = &emu.fibers[emu.current];
    f->state = s;
    leave(f, false);
}

void give_way(void) {
    const struct timespec nap = {0, 20000};
    nanosleep(&nap, NULL); /* ranks may outnumber cores */
    stop_at(READY);
}

void __syncthreads(void) {
    stop_at(AT_BLOCK);
}

void warp_sync(void) {
    stop_at(AT_WARP);
}

const uint8_t *emu_exchange(const void *mine, size_t n) {
    size_t i = emu.current, lane = i % 32;
    warp *w = &emu.warps[i / 32];
    uint8_t *slot = w->slot[emu.flip[i]];
    CHECK(n <= 64);
    emu.flip[i] ^= 1;
    memcpy(slot + lane * n, mine, n);
    warp_sync();
    return slot;
}

void emu_mma(float d[4], const uint32_t a[4], const uint32_t b[2], bool is_bf16) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    uint32_t all[32][6];
    memcpy(all, emu_exchange(mine, sizeof mine), sizeof all);
    uint32_t g = static_cast<uint32_t>(emu_lane()) / 4, t = static_cast<uint32_t>(emu_lane()) % 4;
    auto half = [&](uint32_t pair, uint32_t i) {
        uint16_t h = static_cast<uint16_t>(i ? pair >> 16 : pair);
        return is_bf16 ? f32_of_bf16(h) : f32_of_f16(h);
    };
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = g + (i / 2) * 8, col = 2 * t + i % 2;
        float s = d[i];
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t ap = all[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
            uint32_t bp = all[col * 4 + k % 8 / 2][4 + k / 8];
            s = fmaf(half(ap, k % 2), half(bp, k % 2), s);
        }
        d[i] = s;
    }
}

void emu_mma_f8(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    uint32_t all[32][6];
    memcpy(all, emu_exchange(mine, sizeof mine), sizeof all);
    uint32_t g = static_cast<uint32_t>(emu_lane()) / 4, t = static_cast<uint32_t>(emu_lane()) % 4;
    auto byte = [](uint32_t four, uint32_t i) { return emu_f32_of_f8(static_cast<uint8_t>(four >> 8 * i)); };
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = g + (i / 2) * 8, col = 2 * t + i % 2;
        float s = d[i];
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t ap = all[row % 8 * 4 + k % 16 / 4][row / 8 + 2 * (k / 16)];
            uint32_t bp = all[col * 4 + k % 16 / 4][4 + k / 16];
            s = fmaf(byte(ap, k % 4), byte(bp, k % 4), s);
        }
        d[i] = s;
    }
}

static void matrices(uint32_t r[4], const void *row, bool transposed) {
    const void *rows[32];
    memcpy(rows, emu_exchange(&row, sizeof row), sizeof rows);
    int l = emu_lane();
    for (int m = 0; m < 4; m++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
            int at_row = transposed ? l % 4 * 2 + i : l / 4, col = transposed ? l / 4 : l % 4 * 2 + i;
            const uint8_t *p = static_cast<const uint8_t *>(rows[m * 8 + at_row]);
            CHECK(reinterpret_cast<uintptr_t>(p) % 16 == 0);
            memcpy(&pair[i], p + col * 2, 2);
        }
        r[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
    warp_sync(); /* rows may be written again */
}

void load_matrix(uint32_t r[4], const void *row) {
    matrices(r, row, false);
}

void load_matrix_t(uint32_t r[4], const void *row) {
    matrices(r, row, true);
}

void copy16(void *shared, const void *global, int n_bytes) {
    fiber *f = &emu.fibers[emu.current];
    CHECK(n_bytes >= 0 && n_bytes <= 16 && reinterpret_cast<uintptr_t>(shared) % 16 == 0);
    CHECK(n_bytes == 0 || reinterpret_cast<uintptr_t>(global) % 16 == 0);
    f->copies.push_back(copy{shared, global, n_bytes});
    f->n_open++;
}

void copies_commit(void) {
    fiber *f = &emu.fibers[emu.current];
    f->groups.push_back(f->n_open);
    f->n_open = 0;
}

void emu_copies_wait(int n) {
    fiber *f = &emu.fibers[emu.current];
    while (f->groups.size() > static_cast<size_t>(n)) {
        for (size_t i = 0; i < f->groups[0]; i++) {
            memset(f->copies[i].to, 0, 16);
            memcpy(f->copies[i].to, f->copies[i].from, static_cast<size_t>(f->copies[i].n));
        }
        f->copies.erase(f->copies.begin(), f->copies.begin() + static_cast<long>(f->groups[0]));
        f->groups.erase(f->groups.begin());
    }
}

/* ---- products of a warpgroup ---------------------------------------------------------------------- */

uint32_t shared_at(const void *p) {
    size_t at = static_cast<size_t>(static_cast<const uint8_t *>(p) - emu.shared);
    CHECK(at < emu.shared_bytes);
    return static_cast<uint32_t>(at);
}

/* operand: elements (mn, 0..15) of the 16-bit matrix that a descriptor names. by_cols: mn lies along rows of memory. */
static void operand(float out[16], uint64_t descriptor, uint32_t mn, bool by_cols, bool is_bf16) {
    uint32_t start = static_cast<uint32_t>(descriptor & 0x3FFF) << 4, leading = static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) << 4,
             stride = static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) << 4, mode = static_cast<uint32_t>(descriptor >> 62);
    CHECK(mode == 1 || mode == 2); /* permutations within 128 or 64 bytes */
    uint32_t bytes = mode == 1 ? 128 : 64, chunk = bytes / 2, mask = bytes == 128 ? 7 : 3;
    uint32_t base = by_cols ? start + mn / chunk * leading + mn % chunk * 2 : start + mn / 8 * stride + mn % 8 * bytes;
    for (uint32_t k = 0; k < 16; k++) {
        uint32_t at = base + (by_cols ? k / 8 * stride + k % 8 * bytes : k * 2);
        at ^= (at >> 7 & mask) << 4;
        CHECK(at + 2 <= emu.shared_bytes);
        uint16_t v;
        memcpy(&v, emu.shared + at, 2);
        out[k] = is_bf16 ? f32_of_bf16(v) : f32_of_f16(v);
    }
}

static void product_do(const product &p) {
    uint32_t lane = static_cast<uint32_t>(emu_lane()), g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4;
    uint32_t all[32][4] = {};
    float a[2][16], b[16];
    if (p.a_regs)
        memcpy(all, emu_exchange(p.a_regs, sizeof all[0]), sizeof all);
    for (uint32_t h = 0; h < 2; h++) {
        if (!p.a_regs)
            operand(a[h], p.a, warp * 16 + g + h * 8, false, p.is_bf16);
        for (uint32_t k = 0; k < 16 && p.a_regs; k++) {
            uint32_t pair = all[g * 4 + k % 8 / 2][h + 2 * (k / 8)];
            uint16_t v = static_cast<uint16_t>(k % 2 ? pair >> 16 : pair);
            a[h][k] = p.is_bf16 ? f32_of_bf16(v) : f32_of_f16(v);
        }
    }
    for (uint32_t i = 0; i < static_cast<uint32_t>(p.n) / 8; i++)
        for (uint32_t c = 0; c < 2; c++) {
            operand(b, p.b, i * 8 + 2 * t + c, p.a_regs != NULL, p.is_bf16);
            for (uint32_t h = 0; h < 2; h++) {
                float s = p.add ? p.d[i][2 * h + c] : 0.0f;
                for (uint32_t k = 0; k < 16; k++)
                    s = fmaf(a[h][k], b[k], s);
                p.d[i][2 * h + c] = s;
            }
        }
}

void emu_wg_mma(float (*d)[4], int n, const uint32_t *a_regs, uint64_t a, uint64_t b, bool add, bool is_bf16) {
    fiber *f = &emu.fibers[emu.current];
    CHECK(n % 8 == 0 && emu_block_dim.x % 128 == 0);
    f->products.push_back(product{d, n, a_regs, a, b, add, is_bf16});
    f->n_products_open++;
}

void emu_wg_commit(void) {
    fiber *f = &emu.fibers[emu.current];
    f->product_groups.push_back(f->n_products_open);
    f->n_products_open = 0;
}

void emu_wg_wait(int n) {
    fiber *f = &emu.fibers[emu.current];
    while (f->product_groups.size() > static_cast<size_t>(n)) {
        for (size_t i = 0; i < f->product_groups[0]; i++)
            product_do(f->products[i]);
        f->products.erase(f->products.begin(), f->products.begin() + static_cast<long>(f->product_groups[0]));
        f->product_groups.erase(f->product_groups.begin());
    }
}

float emu_f32_of_f8(uint8_t u) {
    uint32_t e = u >> 3 & 15, m = u & 7;
    float v = e ? ldexpf(1.0f + (float)m / 8, (int)e - 7) : ldexpf((float)m / 8, -6);
    if (e == 15 && m == 7)
        return NAN;
    return u & 0x80 ? -v : v;
}

uint8_t emu_f8_of_f32(float x) {
    uint8_t best = 0;
    float a = fabsf(x), error = INFINITY;
    if (isnan(x))
        return 0x7F;
    for (uint8_t u = 0; u < 0x7F; u++) { /* nearest, even among equals */
        float d = fabsf(emu_f32_of_f8(u) - a);
        if (d < error || (d == error && u % 2 == 0)) {
            error = d;
            best = u;
        }
    }
    return static_cast<uint8_t>(best | (signbit(x) ? 0x80 : 0));
}
