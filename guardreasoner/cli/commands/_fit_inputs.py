"""What the config of an HS-DPO fit says of rollouts and pairing, read as the fit reads it and without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain

from guardreasoner.cli.parse_errors import find_input_error
from guardreasoner.errors import InputError
from guardreasoner.mining import VALIDATION_SHARE, Pairing
from guardreasoner.records import Pair, Record
from guardreasoner.sources import Source
from guardreasoner.sources.contamination import SIMILARITY, ContaminationIndex
from guardreasoner.sources.splits import split_of
from guardreasoner.workflow.config import resolve


@dataclass(frozen=True)
class FitInputs:
    """What a fit mines, and what it does with the pairs; names and defaults are those of its data module.

    Args:
        source: its training records are mined.
        rollouts: folders.
        pairing: the options.
        benchmarks: more sources whose test split the fit must not train on.
        similarity: from which similarity on two prompts count as shared.
        skip_contaminated: whether pairs that a benchmark holds are left out.
        validation_share: part of the hard prompts that is held out.
    """

    source: Source
    rollouts: list[str]
    pairing: Pairing = field(default_factory=Pairing)
    benchmarks: Sequence[Source] = ()
    similarity: float = SIMILARITY
    skip_contaminated: bool = False
    validation_share: float = VALIDATION_SHARE

    def notes(self, record: Record, pairs: Sequence[Pair]) -> Iterator[str]:
        """Yield what becomes of a record's pairs in the fit, in words."""
        if not pairs:
            return
        tested = chain.from_iterable(source.records("test") for source in (self.source, *self.benchmarks))
        match = ContaminationIndex(tested, self.similarity).match(record)
        if match is not None and self.skip_contaminated:
            yield f"the fit leaves it out: a benchmark holds its prompt, {match.similarity:.2f} like {match.benchmark}"
            return
        if match is not None:
            what = "refuses it unless --allow_contamination" if match.similarity == 1 else "keeps it with a warning"
            yield f"the fit {what}: a benchmark holds its prompt, {match.similarity:.2f} like {match.benchmark}"
        held_out = split_of(record.prompt, self.validation_share) == "validation"
        yield "the fit holds it out, to watch margins" if held_out else "the fit trains on it"


def inputs_of_fit(words: Sequence[str]) -> FitInputs:
    """Return what a fit with these arguments would mine.

    Args:
        words: ``--config`` and overrides, as after ``fit``.

    Raises:
        InputError: a file or a value is wrong, or the config is of no fit on rollouts.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    data = resolve(["fit", *words]).config.get("data")
    settings = data.get("init_args") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or "rollouts" not in settings or "source" not in settings:
        raise InputError("pairs: --config: no data.rollouts and data.source there", "give that of HS-DPO's fit")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FitInputs, "data")
    ours = {one.name: settings[one.name] for one in fields(FitInputs) if one.name in settings}
    try:
        made: FitInputs = parser.instantiate_classes(parser.parse_object({"data": ours})).data
    except (ArgumentError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise find_input_error(error) or InputError(f"pairs: --config: {reason[:300]}") from error
    return made
