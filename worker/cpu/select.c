#include "worker/cpu/select.h"

uint64_t select_key(const uint64_t *keys, const uint64_t *weights, uint32_t n, uint64_t target,
                    uint32_t *room) {
    uint64_t hist[SELECT_BUCKETS], lo = UINT64_MAX, hi = 0, sum = 0;
    CHECK(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        room[i] = i;
        lo = MIN(lo, keys[i]);
        hi = MAX(hi, keys[i]);
    }
    for (;
         ;) { /* the answer is in [lo, hi]; sum is the weight of all keys below lo; room[0..n) those within */
        uint32_t bits = hi > lo ? 64 - (uint32_t)__builtin_clzll(hi - lo) : 0, j = 0, n_left = 0;
        uint32_t shift = bits > SELECT_BITS ? bits - SELECT_BITS : 0;
        memset(hist, 0, sizeof hist);
        for (uint32_t i = 0; i < n; i++)
            hist[(keys[room[i]] - lo) >> shift] += weights ? weights[room[i]] : 1;
        while (j < SELECT_BUCKETS - 1 && sum + hist[j] < target)
            sum += hist[j++];
        CHECK(sum + hist[j] >= target);
        lo += (uint64_t)j << shift;
        if (shift == 0)
            return lo;
        hi = MIN(hi, lo + (((uint64_t)1 << shift) - 1));
        for (uint32_t i = 0; i < n; i++) {
            room[n_left] = room[i];
            n_left += keys[room[i]] >= lo && keys[room[i]] <= hi;
        }
        n = n_left;
    }
}

/* sift: restores the heap (largest on top) below i. */
static void sift(uint64_t *keys, uint32_t i, uint32_t n) {
    uint64_t key = keys[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && keys[child + 1] > keys[child])
            child++;
        if (keys[child] <= key)
            break;
        keys[i] = keys[child];
    }
    keys[i] = key;
}

void select_sort(uint64_t *keys, uint32_t n) {
    for (uint32_t i = n / 2; i-- > 0;)
        sift(keys, i, n);
    for (uint32_t end = n; end-- > 1;) {
        uint64_t largest = keys[0];
        keys[0] = keys[end];
        keys[end] = largest;
        sift(keys, 0, end);
    }
}
