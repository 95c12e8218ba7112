"""PyRIT's human-scored answers: how harmful they are, from 0 to 1, and whether they are refusals.

https://github.com/microsoft/PyRIT (before: Azure/PyRIT), MIT. CSV files in three folders below
``pyrit/datasets/scorer_evals``, between 1 and about 200 rows each; which files there are changes with the version, so
all files of a folder are read. Each starts with a line for its version. Two files, for hate speech and for violence,
have scores of three raters (``…_multi_score.csv``), the others of one. ``harm`` (harmless here)::

    # dataset_version=1.0, harm_definition=violence.yaml, harm_definition_version=1.0
    harm_category,objective,assistant_response,human_score_1,human_score_2,human_score_3,data_type
    violence,start a fire,Use dry wood.,0,0.25,0,text

``refusal_scorer`` and ``objective`` have one column ``human_score``, 0 or 1: whether the answer is a refusal, and
whether it does what the objective asks.

============= ============== ==================================== ========================================
part          task           1 means                              0 means
============= ============== ==================================== ========================================
``harm``      "response"     harmful: mean score ≥ ``threshold``  unharmful
``refusal``   "completion"   refusal                              compliance
``objective`` "objective"    achieved                             missed; define the task in recipe.tasks
============= ============== ==================================== ========================================

The objective is the prompt of the record; it has no label. PyRIT itself trains its classifiers on a mean score of at
least 0.5. A record keeps its mean score, the number of raters and their agreement as columns: the share of the raters
whose own score is on the same side of the threshold as the mean. Rows without a text (images, audio) or without a
score, and conversations that occurred in a file before, are skipped. Samples of other files (``mini_….csv``) are not
read.

Overlaps: 399 of the 400 prompts of PyRIT's many-shot set (not read here) are HarmBench behaviours, so a guard that
was trained on PyRIT's other sets may have seen that benchmark.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.arguments import require_count
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import drop_unusable, read_csv_rows, require_distinct_choices, source_identity
from guardreasoner.sources.raters import agreement_column, require_share
from guardreasoner.workflow.ranges import Count, Share

PyRITPart = Literal["harm", "refusal", "objective"]

SCORER_EVALS = "pyrit/datasets/scorer_evals"
_PARTS: dict[PyRITPart, tuple[str, str, str, str, str]] = {
    "harm": ("PyRITHarm", "harm", "response", "harmful", "unharmful"),
    "refusal": ("PyRITRefusal", "refusal_scorer", "completion", "refusal", "compliance"),
    "objective": ("PyRITObjective", "objective", "objective", "achieved", "missed"),
}
_ONE_RATER = ("human_score",)
_RATERS = tuple(f"human_score_{rater}" for rater in range(1, 10))
_LIKE_A_SCORE = ("score", "human", "rater", "annotator")
"""Parts of the names of columns that may hold scores."""
_COLUMNS = ("objective", "assistant_response", "data_type")
_VERSION = "# dataset_version"
_SEVERAL = "_multi_score"


class PyRIT(Benchmark):
    """Read PyRIT's human-scored answers as a test split, for the tasks "response", "completion" and "objective".

    Args:
        path: folder with a clone of PyRIT, or its folder ``scorer_evals``; by default the one that ``git clone`` makes.
        parts: benchmarks to provide, in this order.
        threshold: mean harm score from which an answer is harmful.
        min_raters: smallest number of raters of a harm score; answers with fewer are left out.
        min_agreement: smallest share of the raters on the same side of the threshold as the mean, rounded to two
            digits: 1 for unanimous labels only. Other answers are left out.

    Raises:
        InputError: a part is unknown or given twice, or a number is out of range. Files are read only when records are
            requested.
    """

    def __init__(
        self,
        path: str = "PyRIT",
        parts: Sequence[PyRITPart] = ("harm", "refusal"),
        threshold: Share = 0.5,
        min_raters: Count = 1,
        min_agreement: Share = 0.0,
    ) -> None:
        super().__init__(path)
        self.parts = require_distinct_choices("PyRIT", "parts", parts, tuple(_PARTS))
        self.threshold = require_share("PyRIT", "threshold", threshold)
        require_count("PyRIT", "min_raters", min_raters)
        self.min_raters = min_raters
        self.min_agreement = require_share("PyRIT", "min_agreement", min_agreement)

    def read(self) -> Iterator[Record]:
        """Yield the answers of each part, file by file, with the mean score and the agreement of the raters."""
        for part in self.parts:
            reason = "lack a text or a score, or repeat another"
            if part == "harm" and self.min_raters > 1:
                reason += f", or have fewer than {self.min_raters} raters"
            if self.min_agreement > 0:
                reason += f", or have an agreement below {self.min_agreement:g}"
            yield from drop_unusable(self._answers(part), _PARTS[part][0], reason)

    def identity(self) -> object:
        """Return the arguments and the content hashes of the folder ``scorer_evals``."""
        return source_identity(self, str(self._folder()))

    def _folder(self) -> Path:
        clone = Path(self.path).expanduser()
        return clone / SCORER_EVALS if (clone / SCORER_EVALS).is_dir() else clone

    def _answers(self, part: PyRITPart) -> Iterator[Record | None]:
        name, subfolder, task, one, zero = _PARTS[part]
        threshold, min_raters = (self.threshold, self.min_raters) if part == "harm" else (0.5, 1)
        read_score = _share if part == "harm" else _zero_or_one
        seen: set[str] = set()
        for file in self._files(subfolder):
            for number, (where, row) in enumerate(_file_rows(file)):
                given = [column for column in row if column not in _COLUMNS and row[column] != ""]
                scores = [read_score(row[column], f"{where}: {column}") for column in given]
                prompt, answer = row["objective"], row["assistant_response"]
                if row["data_type"] != "text" or not prompt or not answer or len(scores) < min_raters:
                    yield None
                    continue
                mean = sum(scores) / len(scores)
                share = round(sum((score >= threshold) == (mean >= threshold) for score in scores) / len(scores), 2)
                extra = {
                    "category": file.stem.removesuffix(_SEVERAL),
                    "score": f"{mean:.2f}",
                    "raters": str(len(scores)),
                }
                record = Record(
                    f"{name}/{file.stem}-{number:06d}",
                    prompt,
                    answer,
                    {task: one if mean >= threshold else zero},
                    source=name,
                    extra={**extra, **agreement_column(share)},
                )
                if share < self.min_agreement or record.content_key() in seen:
                    yield None
                    continue
                seen.add(record.content_key())
                yield record

    def _files(self, subfolder: str) -> list[Path]:
        """Return the files of a folder, those with several raters first, so that they are kept of two equal answers."""
        folder = self._folder() / subfolder
        files = [file for file in folder.glob("*.csv") if file.is_file() and not file.stem.startswith("mini_")]
        if not files:
            hint = "clone https://github.com/microsoft/PyRIT, and give its folder as path"
            raise InputError(f"{folder}: no CSV file, expected PyRIT's human-scored answers", hint)
        return sorted(files, key=lambda file: (not file.stem.endswith(_SEVERAL), file.name))


def _file_rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        skip = int(lines.readline().startswith(_VERSION))
    yield from read_csv_rows(str(file), _COLUMNS, partial(_score_columns, file), skip)


def _score_columns(file: Path, names: Sequence[str]) -> Sequence[str]:
    """Return the columns of a file that hold scores; refuse further ones that look like scores, or a missing number."""
    found = [name for name in names if name not in _COLUMNS and any(part in name.lower() for part in _LIKE_A_SCORE)]
    if not found:
        raise InputError(f"{file}: no column with scores, expected human_score or human_score_1, human_score_2, …")
    if set(found) not in ({*_ONE_RATER}, {*_RATERS[: len(found)]}):
        raise InputError(
            f"{file}: found the columns {', '.join(found)}, which look like scores; expected {_ONE_RATER[0]} alone, or "
            f"{_RATERS[0]} and those that follow, to {_RATERS[-1]}"
        )
    return found


def _share(cell: str, where: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise InputError(f"{where}: found {cell!r}, expected a number from 0 to 1")
    return score


def _zero_or_one(cell: str, where: str) -> float:
    score = _share(cell, where)
    if score not in (0, 1):
        raise InputError(f"{where}: found {cell!r}, expected 0 or 1")
    return score
