"""Read predictions named on a command line: ``[NAME=]PATH``, or ``[NAME=]PATH,PATH`` for one run with several seeds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout
from guardreasoner.sources.predictions import Predictions, read_predictions
from guardreasoner.sources.released import BENCHMARKS, Released
from guardreasoner.tasks import Task
from guardreasoner.workflow.manifest import contaminated


@dataclass(frozen=True, slots=True)
class NamedPredictions:
    """Predictions with the name of their row in a table.

    Args:
        name: the given name; by default the name of the folder, or the path if several folders have that name.
        argument: the command-line argument.
        paths: path of each seed.
        seeds: predictions of each seed.
    """

    name: str
    argument: str
    paths: tuple[str, ...]
    seeds: tuple[Predictions, ...]


def read_named_predictions(arguments: Sequence[str], verb: str, seeds: bool = False) -> list[NamedPredictions]:
    """Read the predictions that command-line arguments name.

    Args:
        arguments: arguments of the form ``[NAME=]PATH``.
        verb: name of the command, for messages.
        seeds: whether commas separate the paths of several seeds.

    Raises:
        InputError: no predictions are found, a row is invalid, a name is given twice, or tasks differ.
    """
    parsed = [_parse_argument(argument, seeds) for argument in arguments]
    predictions = [tuple(read_predictions(path) for path in paths) for _, paths in parsed]
    folder_counts = Counter(runs[0].model for runs in predictions)
    named: dict[str, NamedPredictions] = {}
    for argument, (given, paths), runs in zip(arguments, parsed, predictions, strict=True):
        unique_folder = len(runs) == 1 and folder_counts[runs[0].model] == 1
        name = given or (runs[0].model if unique_folder else ",".join(paths))
        if name in named:
            raise InputError(f"{verb}: {name!r} is given twice", f"name the rows: {verb} A=PATH B=PATH")
        named[name] = NamedPredictions(name, argument, paths, runs)
    _require_same_tasks(list(named.values()), verb)
    return list(named.values())


def match_by_content(named: Sequence[NamedPredictions]) -> list[NamedPredictions]:
    """Give the rows of different runs the same ids if only the names of their files or folders differ.

    The ids of rows without ids contain the name of their benchmark's folder or file. Runs of one such benchmark each
    that share conversations but no id, such as ``base.jsonl`` and ``dpo.jsonl``, get the ids and the benchmark of the
    first run. Equal rows are matched in their order.
    """
    runs = [run for row in named for run in row.seeds]
    sources = [{record.source for record in run.records} for run in runs]
    names = set[str]().union(*sources)
    if len(names) < 2 or any(run.has_ids for run in runs) or any(len(source) > 1 for source in sources):
        return list(named)
    ids = {key: record.id for key, record in _numbered_contents(runs[0])}
    if not all(any(key in ids for key, _ in _numbered_contents(run)) for run in runs):
        return list(named)
    (first,) = sources[0]
    return [replace(row, seeds=tuple(_renamed(run, ids, first) for run in row.seeds)) for row in named]


def common_tasks(named: Sequence[NamedPredictions]) -> tuple[Task, ...]:
    """Return the tasks, which are the same for all predictions."""
    return named[0].seeds[0].tasks


def prediction_warnings(named: Sequence[NamedPredictions]) -> list[str]:
    """Return notes on what affects the scores: contamination that was allowed, removed text, or rows that repeat."""
    notes = [
        f"{row.argument} was made with --allow_contamination: {path}"
        for row in named
        for path in row.paths
        if contaminated(path) or contaminated(Path(path).parent)
    ]
    for row in named:
        for path, run in zip(row.paths, row.seeds, strict=True):
            notes += run.notes
            if run.more_rollouts:
                notes.append(f"{path} holds several outputs of each record; the scores are those of the first")
    names_by_counts: dict[str, list[str]] = {}
    for row in named:
        for counts in dict.fromkeys(_repeat_counts(run.records) for run in row.seeds):
            names_by_counts.setdefault(counts, []).append(row.name)
    note = "rows that repeat another row's conversation, counted like any other"
    return notes + [f"{', '.join(names)}: {note}: {counts}" for counts, names in names_by_counts.items() if counts]


def check_against_benchmarks(named: Sequence[NamedPredictions], folder: Path) -> list[str]:
    """Require that predictions cover the released benchmarks: the same conversations and labels, equally often.

    Args:
        named: the predictions.
        folder: folder that contains the released ``benchmarks/``.

    Returns:
        Notes on benchmarks that were not checked or whose rows are in another order.

    Raises:
        InputError: the predictions lack records of the benchmark or have other rows, or a benchmark file is missing.
    """
    notes = []
    for row in named:
        for path, run in zip(row.paths, row.seeds, strict=True):
            by_benchmark: dict[str, list[Record]] = {}
            for record in run.records:
                by_benchmark.setdefault(record.source, []).append(record)
            for name, records in by_benchmark.items():
                if name not in BENCHMARKS:
                    notes.append(f"{path}: {name} is none of the released benchmarks, its records are not checked")
                    continue
                released = Released(folder, test=(name,), train=()).records("test")
                expected, found = [_content(record) for record in released], [_content(record) for record in records]
                missing, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
                if missing or extra:
                    raise InputError(
                        f"{path}: {name}: {missing.total()} of the benchmark's {len(expected)} records have no row, "
                        f"and {extra.total()} rows are not in the benchmark or repeat one"
                    )
                if expected != found:
                    notes.append(f"{path}: {name}: the rows are in another order than in the benchmark")
    return notes


def _parse_argument(argument: str, seeds: bool) -> tuple[str | None, tuple[str, ...]]:
    # A path may contain "=" or ",": an existing path is never split.
    name, separator, rest = argument.partition("=")
    given, path = (name, rest) if separator and name and not Path(argument).exists() else (None, argument)
    several = seeds and not Path(path).exists()
    paths = tuple(path.split(",")) if several else (path,)
    if not all(paths):
        raise InputError(f"{argument!r}: found an empty path, expected [NAME=]PATH{'[,PATH]' if seeds else ''}")
    return given, paths


def _numbered_contents(run: Predictions) -> Iterator[tuple[object, Record]]:
    """Yield each record with its content and the number of earlier records of the same content."""
    seen: Counter[object] = Counter()
    for record in run.records:
        content = _content(record)
        yield (content, seen[content]), record
        seen[content] += 1


def _renamed(run: Predictions, ids: Mapping[object, str], source: str) -> Predictions:
    new = {record.id: ids.get(key, record.id) for key, record in _numbered_contents(run)}

    def rollouts(old: Sequence[Rollout]) -> list[Rollout]:
        return [replace(rollout, record_id=new.get(rollout.record_id, rollout.record_id)) for rollout in old]

    return replace(
        run,
        records=[replace(record, id=new[record.id], source=source) for record in run.records],
        rollouts=rollouts(run.rollouts),
        more_rollouts=rollouts(run.more_rollouts),
        scores={kind: {new.get(name, name): row for name, row in rows.items()} for kind, rows in run.scores.items()},
    )


def _repeat_counts(records: Sequence[Record]) -> str:
    """Return the number of rows per benchmark that repeat a conversation, as text; empty if there are none."""
    occurrences = Counter((record.source, record.content_key()) for record in records)
    counts: Counter[str] = Counter()
    for (source, _), count in occurrences.items():
        counts[source] += count - 1
    return ", ".join(f"{source} {count}" for source, count in counts.items() if count)


def _require_same_tasks(named: Sequence[NamedPredictions], verb: str) -> None:
    first = named[0]
    for row in named:
        for run in row.seeds:
            if run.tasks != common_tasks(named):
                tasks = ", ".join(task.name for task in run.tasks)
                raise InputError(
                    f"{verb}: {row.name} has other tasks ({tasks}) than {first.name}", "score them separately"
                )


def _content(record: Record) -> tuple[str, frozenset[tuple[str, str]]]:
    return record.content_key(), frozenset(record.gold().items())
