"""Single flipped bits in models, adapters, references, caches, checkpoints and journals: each is found."""

from collections.abc import Iterator
from itertools import count

from reliability.part import Part, Trial, cases
from reliability.suite import suite

FLIPS = 92
"""Bits that the tests flip in one run."""


def _listed() -> Iterator[Trial]:
    for seed in count(1):
        variables = {"BIT_FLIPS_SEED": str(seed)}
        yield suite("tests/workflow/test_bit_flips.py", FLIPS, f"seed {seed}", variables)


PART = Part(
    "bit-flips",
    "bit flips found in models, adapters, references, caches, checkpoints, journals",
    1000,
    "flips",
    cases(_listed),
)
