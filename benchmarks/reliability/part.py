"""A part of the campaign is a list of trials and the number of successes that it must reach."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Args:
        count: Successes or failures that the trial counts as: kills that hit, cases, flipped bits.
        failure: What went wrong, None if nothing did.
        note: A measured figure for the page.
    """

    count: int = 1
    failure: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Trial:
    """A named experiment; the name, with the seed in it, determines all that the trial does.

    Args:
        name: Unique within the part.
        run: Takes an empty folder for the files of the trial.
    """

    name: str
    run: Callable[[Path], Outcome]


@dataclass(frozen=True)
class Part:
    """A line of the table.

    Args:
        name: Name on the command line and of the file of results.
        figure: What is counted.
        target: Number to reach without a failure. 0 means all trials.
        unit: Unit of the number.
        trials: Takes a folder that all trials of one campaign share, and returns the trials as a context. They may be
            endless; no more are run than the target needs.
    """

    name: str
    figure: str
    target: int
    unit: str
    trials: Callable[[Path], AbstractContextManager[Iterable[Trial]]]


def cases(listed: Callable[[], Iterable[Trial]]) -> Callable[[Path], AbstractContextManager[Iterable[Trial]]]:
    """Return the trials of a part whose trials share nothing."""

    @contextmanager
    def trials(_: Path) -> Iterator[Iterable[Trial]]:
        yield listed()

    return trials
