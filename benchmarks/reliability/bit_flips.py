"""Single flipped bits in models, adapters, references, caches, checkpoints and journals: each is found."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from reliability import children
from reliability.part import Outcome, Part, Trial


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield one flip a trial, for each kind of artefact, then again with the next seed."""
    children.preload()
    from tests.support import bit_flips

    cases = list(bit_flips.cases())
    yield (Trial(f"{case.name}/{seed}", partial(_flip, case=case, seed=seed)) for seed in count() for case in cases)


def _flip(folder: Path, case: Any, seed: int) -> Outcome:
    return Outcome(failure=case.check(folder, random.Random(f"{case.name}/{seed}")))


PART = Part(
    "bit-flips",
    "bit flips found in models, adapters, references, caches, checkpoints, journals",
    1000,
    "flips",
    trials,
)
