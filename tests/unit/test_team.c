/* The thread team: every member runs, barriers hold, queues give each item once, also when teams outnumber
 * cores. threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "worker/cpu/team.h"

enum { N_ROUNDS = 200, N_TEAMS = 4 };

struct job {
    struct team *team;
    int phase[TEAM_THREADS_MAX]; /* written by its member, read by all after a barrier */
    uint8_t taken[1000];
    struct team_queue queue;
    int n_bad;
    uint32_t n_runs[TEAM_THREADS_MAX];
};

static void job_run(void *arg, int member) {
    struct job *j = arg;
    j->n_runs[member]++;
    for (int phase = 1; phase <= 3; phase++) {
        j->phase[member] = phase;
        team_barrier(j->team);
        for (int i = 0; i < team_size(j->team); i++)
            if (j->phase[i] != phase)
                __atomic_fetch_add(&j->n_bad, 1, __ATOMIC_RELAXED);
        team_barrier(j->team);
    }
    uint32_t n, i;
    while (i = queue_take(&j->queue, &n), n)
        for (uint32_t k = i; k < i + n; k++)
            j->taken[k]++;
}

static int rounds(int n_threads) {
    static _Thread_local struct job j;
    memset(&j, 0, sizeof j);
    j.team = team_start(n_threads);
    if (!j.team)
        return -1;
    for (int r = 0; r < N_ROUNDS; r++) {
        memset(j.taken, 0, sizeof j.taken);
        queue_init(&j.queue, sizeof j.taken, 7);
        team_run(j.team, job_run, &j);
        for (size_t k = 0; k < sizeof j.taken; k++)
            j.n_bad += j.taken[k] != 1;
    }
    for (int i = 0; i < n_threads; i++)
        j.n_bad += j.n_runs[i] != N_ROUNDS;
    team_stop(j.team);
    return j.n_bad;
}

static void members_run_and_meet(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 8};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        assert_int_equal(rounds(sizes[i]), 0);
}

static void *team_main(void *arg) {
    *(int *)arg = rounds(4);
    return NULL;
}

static void teams_may_outnumber_cores(void **state) {
    (void)state;
    pthread_t threads[N_TEAMS];
    int results[N_TEAMS];
    for (int i = 0; i < N_TEAMS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, team_main, &results[i]), 0);
    for (int i = 0; i < N_TEAMS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(results[i], 0);
    }
}

static void stops_without_a_run(void **state) {
    (void)state;
    struct team *t = team_start(3);
    assert_non_null(t);
    assert_int_equal(team_size(t), 3);
    team_stop(t);
    team_stop(NULL);
    assert_in_range(team_cores(), 1, TEAM_THREADS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_run_and_meet),
        cmocka_unit_test(teams_may_outnumber_cores),
        cmocka_unit_test(stops_without_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
