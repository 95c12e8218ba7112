"""How often the false-positive rate reached on new records lies in the interval that a calibration states.

A pool of synthetic records is split into halves again and again. The threshold is chosen on one half; the rate is
measured on the other. The stated interval is the one for as many negative records as the other half has. The interval
in the long run leaves out the variation of the new records, so a measured rate lies in it less often.

    python benchmarks/calibration_coverage.py                 # 200 halves of 4,000 records each
    python benchmarks/calibration_coverage.py --halves 1000 --records 1000
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from peers.flags import positive_int

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration.fit import block_threshold, long_run_interval, new_set_interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """Outcome of many halves.

    Args:
        within: share of halves whose reached rate lies in the stated interval.
        within_long_run: the same for the interval in the long run.
        reached: mean reached rate; 0 for a refused half, where nothing is blocked.
        refused: number of halves for which no threshold reaches the wanted rate; left out of the shares.
    """

    within: float
    within_long_run: float
    reached: float
    refused: int


def continuous(negatives: int, random: np.random.Generator) -> Array:
    """Return scores without ties."""
    return sigmoid(2 * random.normal(size=negatives) - 2)


def rounded(negatives: int, random: np.random.Generator) -> Array:
    """Return scores of two digits."""
    return continuous(negatives, random).round(2)


def saturated(negatives: int, random: np.random.Generator) -> Array:
    """Return scores of a very sure model in single precision: many are exactly 0, and one percent exactly 1."""
    scores = sigmoid(12 * random.normal(size=negatives) - 11)
    return np.where(scores > 1 - 2**-24, 1.0, np.where(scores < 2**-24, 0.0, scores))


def votes(k: int) -> Callable[[int, np.random.Generator], Array]:
    """Return a generator of shares of k votes."""

    def draw(negatives: int, random: np.random.Generator) -> Array:
        return random.binomial(k, sigmoid(2 * random.normal(size=negatives) - 5)) / k

    return draw


def unscored(negatives: int, random: np.random.Generator) -> Array:
    """Return scores of which half a percent is missing."""
    scores = continuous(negatives, random)
    scores[random.random(negatives) < 0.005] = np.nan
    return scores


SCORES: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "continuous": continuous,
    "two digits": rounded,
    "saturated": saturated,
    "votes, k = 4": votes(4),
    "votes, k = 16": votes(16),
    "0.5 % unscored": unscored,
}
RATES = (0.01, 0.05)


def coverage(scores: Array, rate: float, halves: int, random: np.random.Generator) -> Coverage:
    """Choose and measure the threshold on random halves of negative records.

    Args:
        scores: (N,) scores of negative records; NaN for an unscored one.
        rate: wanted false-positive rate.
        halves: number of splits.
        random: source of the splits.
    """
    within, long_run, reached, refused = 0, 0, [], 0
    for _ in range(halves):
        order = random.permutation(len(scores))
        chosen, new = np.split(scores[order], [len(scores) // 2])
        try:
            threshold = block_threshold(chosen, rate, "negative records")
        except InputError:
            refused += 1
            continue
        if threshold.value > 1:
            refused += 1
            continue
        measured = float(((new >= threshold.value) | np.isnan(new)).mean())
        low, high = new_set_interval(threshold.errors, threshold.n, len(new))
        within += low - 1e-9 <= measured <= high + 1e-9
        low, high = long_run_interval(threshold.errors, threshold.n)
        long_run += low <= measured <= high
        reached.append(measured)
    counted = max(1, len(reached))
    return Coverage(within / counted, long_run / counted, sum(reached) / halves, refused)


def sigmoid(values: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-values))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--halves", type=positive_int, default=200)
    parser.add_argument("--records", type=int, default=4_000, help="negative records in the pool")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{arguments.halves} halves of {arguments.records:,} negative records, seed {arguments.seed}")
    headings = f"{'in stated interval':>19} {'in long-run interval':>21} {'refused':>8}"
    print(f"{'scores':<16} {'wanted':>7} {'reached':>8} {headings}")
    for name, draw in SCORES.items():
        for rate in RATES:
            random = np.random.default_rng(arguments.seed)
            found = coverage(draw(arguments.records, random), rate, arguments.halves, random)
            shares = f"{100 * found.within:>17.1f} % {100 * found.within_long_run:>19.1f} % {found.refused:>8}"
            print(f"{name:<16} {100 * rate:>5.1f} % {100 * found.reached:>6.2f} % {shares}")


if __name__ == "__main__":
    main()
