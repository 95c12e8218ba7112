"""The results of a study on one data set, which is a section of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from evidence.differences import Accuracies, Difference
from evidence.results import Result, read_results
from evidence.study import Figure, Study
from guardreasoner.errors import InputError


@dataclass(frozen=True)
class Section:
    """The results of a study on one data set.

    Args:
        study: The study.
        data: Name of the data set.
        results: Results by arm, in the order of the study and of the seeds.
        accuracies: Their resampled accuracies; None if there are no results.
    """

    study: Study
    data: str
    results: Mapping[str, Sequence[Result]]
    accuracies: Accuracies | None

    @property
    def compared(self) -> str:
        """The arm that all others are compared with."""
        return self.study.compared(self.data)

    def difference(self, better: str, than: str, figure: Figure) -> Difference | None:
        """Return a difference, or a figure of one arm if ``than`` is empty; None if there is no shared seed.

        A vote gives one answer to a record, so it is compared with the greedy outputs of the other arm.
        """
        if figure == "hard" and any(self.study.arms[arm].answers == "votes" for arm in (better, than) if arm):
            figure = "hard, greedy"
        return self.accuracies.difference(better, than, figure) if self.accuracies else None

    def against_all(self, figure: Figure) -> dict[str, Difference]:
        """Return the compared arm minus each other arm."""
        others = [arm for arm in self.study.arms_of(self.data) if arm != self.compared]
        found = {arm: self.difference(self.compared, arm, figure) for arm in others}
        return {arm: difference for arm, difference in found.items() if difference is not None}

    def cost(self, arm: str, name: str) -> float:
        """Return a cost of all training behind the model of an arm with results, mean over seeds."""
        return mean(one.cost(name) for one in self.results[arm])

    def cost_ratio(self, arm: str, other: str, name: str) -> float | None:
        """Return a cost of an arm relative to another's over the seeds that both have; None if the other's is 0."""
        own, others = ({one.seed: one.cost(name) for one in self.results[each]} for each in (arm, other))
        shared = own.keys() & others.keys()
        total = sum(others[seed] for seed in shared)
        return sum(own[seed] for seed in shared) / total if total else None

    def missing(self) -> dict[str, int]:
        """Return the number of seeds without a result, by arm, of the arms that lack one."""
        planned = len(self.study.seeds_of(self.data))
        seeds = {arm: planned - len(self.results.get(arm, ())) for arm in self.study.arms_of(self.data)}
        return {arm: count for arm, count in seeds.items() if count}


def read_sections(study: Study, folder: Path) -> Iterator[Section]:
    """Yield a section for each data set of a study.

    Args:
        study: The study.
        folder: Folder of its results.

    Raises:
        InputError: A stored result is damaged, or results cannot be compared.
    """
    stored = list(read_results(folder))
    for data in study.data:
        arms, seeds = study.arms_of(data), study.seeds_of(data)
        own = [one for one in stored if one.data == data and one.arm in arms and one.seed in seeds]
        by_arm = {arm: [one for one in own if one.arm == arm] for arm in arms}
        by_arm = {arm: found for arm, found in by_arm.items() if found}
        _require_shared_models(study, own)
        yield Section(study, data, by_arm, Accuracies(own) if own else None)


def _require_shared_models(study: Study, results: Sequence[Result]) -> None:
    """Raise ``InputError`` if two arms of a seed come from different models or outputs of a shared stage."""
    first: dict[tuple[int, str], Result] = {}
    for result in results:
        for stage in sorted(result.lineage.keys() & study.shared.keys()):
            other = first.setdefault((result.seed, stage), result)
            if other.lineage[stage]["content"] != result.lineage[stage]["content"]:
                names = f"{other.arm}-{other.seed}.json and {result.arm}-{result.seed}.json"
                raise InputError(f"{result.data}: {names}: they come from different {stage}", "run the study again")
