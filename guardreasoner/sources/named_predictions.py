"""Words of a command line to predictions: ``[NAME=]PATH``, and ``[NAME=]PATH,PATH`` for one run of several seeds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.predictions import Predictions, read_predictions
from guardreasoner.sources.released import BENCHMARKS, Released
from guardreasoner.tasks import Task
from guardreasoner.workflow.manifest import contaminated


@dataclass(frozen=True, slots=True)
class NamedPredictions:
    """Predictions under the name of a row.

    Args:
        name: the one given, else the folder's, else (where two are alike) the path.
        word: as it was given.
        paths: where they lie, one a seed.
        seeds: what lies there.
    """

    name: str
    word: str
    paths: tuple[str, ...]
    seeds: tuple[Predictions, ...]


def read_named_predictions(words: Sequence[str], verb: str, seeds: bool = False) -> list[NamedPredictions]:
    """Read the predictions that words name.

    Args:
        words: ``[NAME=]PATH``.
        verb: the command, for messages.
        seeds: whether a comma parts several paths.

    Raises:
        InputError: nothing is there, a row is not as it must be, two have one name or were asked different tasks.
    """
    parts = [_parted(word, seeds) for word in words]
    read = [tuple(read_predictions(path) for path in paths) for _, paths in parts]
    folders = Counter(of[0].model for of in read)
    named: dict[str, NamedPredictions] = {}
    for word, (given, paths), of in zip(words, parts, read, strict=True):
        alone = len(of) == 1 and folders[of[0].model] == 1
        name = given or (of[0].model if alone else ",".join(paths))
        if name in named:
            raise InputError(f"{verb}: {name!r} is given twice", f"name the rows: {verb} A=PATH B=PATH")
        named[name] = NamedPredictions(name, word, paths, of)
    _require_same_tasks(list(named.values()), verb)
    return list(named.values())


def common_tasks(named: Sequence[NamedPredictions]) -> tuple[Task, ...]:
    """Return what was asked, the same for all."""
    return named[0].seeds[0].tasks


def prediction_warnings(named: Sequence[NamedPredictions]) -> list[str]:
    """Return what a reader of the figures should know: what was allowed to train on benchmarks, rows that repeat."""
    found = [
        f"{one.word} was made with --allow_contamination: {path}"
        for one in named
        for path in one.paths
        if contaminated(path) or contaminated(Path(path).parent)
    ]
    repeated: dict[str, list[str]] = {}
    for one in named:
        for counts in dict.fromkeys(_repeated(read.records) for read in one.seeds):
            repeated.setdefault(counts, []).append(one.name)
    what = "rows that repeat another row's conversation, counted like any other"
    return found + [f"{', '.join(names)}: {what}: {counts}" for counts, names in repeated.items() if counts]


def check_against_benchmarks(named: Sequence[NamedPredictions], folder: Path) -> list[str]:
    """Hold predictions against the released benchmarks: the same conversations and labels, each as often.

    Args:
        named: the predictions.
        folder: holds ``benchmarks/`` as released.

    Returns:
        What could not be held against anything, or stands in another order.

    Raises:
        InputError: rows that the benchmark does not have, or records without a row; a benchmark's file is missing.
    """
    said = []
    for one in named:
        for path, read in zip(one.paths, one.seeds, strict=True):
            groups: dict[str, list[Record]] = {}
            for record in read.records:
                groups.setdefault(record.source, []).append(record)
            for name, records in groups.items():
                if name not in BENCHMARKS:
                    said.append(f"{path}: {name} is none of the released benchmarks, its records are not checked")
                    continue
                released = Released(folder, test=(name,), train=()).records("test")
                wanted, found = [_content(record) for record in released], [_content(record) for record in records]
                absent, other = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
                if absent or other:
                    raise InputError(
                        f"{path}: {name}: {absent.total()} of the benchmark's {len(wanted)} records have no row, and "
                        f"{other.total()} rows are not the benchmark's or repeat one"
                    )
                if wanted != found:
                    said.append(f"{path}: {name}: the rows are the benchmark's in another order")
    return said


def _parted(word: str, seeds: bool) -> tuple[str | None, tuple[str, ...]]:
    name, parted, rest = word.partition("=")
    given, path = (name, rest) if parted and name and not Path(word).exists() else (None, word)
    several = seeds and not Path(path).exists()
    return given, tuple(part for part in path.split(",") if part) if several else (path,)


def _repeated(records: Sequence[Record]) -> str:
    """Return how many rows of each benchmark repeat a conversation, in words; empty where none does."""
    times = Counter((record.source, record.prompt, record.response) for record in records)
    counts: Counter[str] = Counter()
    for (source, _, _), count in times.items():
        counts[source] += count - 1
    return ", ".join(f"{source} {count}" for source, count in counts.items() if count)


def _require_same_tasks(named: Sequence[NamedPredictions], verb: str) -> None:
    first = named[0]
    for one in named:
        for read in one.seeds:
            if read.tasks != common_tasks(named):
                asked = ", ".join(task.name for task in read.tasks)
                raise InputError(
                    f"{verb}: {one.name} was asked other tasks ({asked}) than {first.name}", "score them one by one"
                )


def _content(record: Record) -> tuple[str, str | None, frozenset[tuple[str, str]]]:
    return record.prompt, record.response, frozenset(record.gold().items())
