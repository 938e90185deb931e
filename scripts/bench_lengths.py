#!/usr/bin/env python3
"""bench_lengths.py > tests/bench/offline_lengths.txt: lengths of prompt and answer of 1,000 requests, as conversations have
them: log-normal, means 225 in and 195 out, 4 to 2,048 tokens, always the same."""
import math
import random

N, LEAST, MOST, SIGMA = 1000, 4, 2048, 0.9


def lengths(rng, mean):
    """N numbers whose sum is N * mean to the unit: drawn, cut, and scaled until the mean fits."""
    drawn = [rng.lognormvariate(0, SIGMA) for _ in range(N)]
    low, high = 1.0, 10.0 * mean
    for _ in range(60):
        scale = math.sqrt(low * high)
        whole = [min(MOST, max(LEAST, round(x * scale))) for x in drawn]
        low, high = (scale, high) if sum(whole) < N * mean else (low, scale)
    for i in range(N):  # what rounding left
        step = (N * mean > sum(whole)) - (N * mean < sum(whole))
        if LEAST < whole[i] < MOST:
            whole[i] += step
    assert sum(whole) == N * mean
    return whole


if __name__ == "__main__":
    source = random.Random(20260301)
    for n_in, n_out in zip(lengths(source, 225), lengths(source, 195)):
        print(n_in, n_out)
