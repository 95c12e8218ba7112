"""The mining options in the config of an HS-DPO fit, parsed as the fit parses them, without importing torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain

from guardreasoner.cli.parse_errors import find_input_error
from guardreasoner.errors import InputError
from guardreasoner.mining import VALIDATION_SHARE, Pairing
from guardreasoner.records import Pair, Record
from guardreasoner.sources import Source, cut_share
from guardreasoner.sources.contamination import SIMILARITY, ContaminationIndex
from guardreasoner.sources.splits import is_held_out
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.staleness import existing, path_values


@dataclass(frozen=True)
class FitInputs:
    """The options of ``PreferenceDataModule`` that decide its pairs, with the same names and defaults.

    Args:
        source: data source whose training records are mined.
        rollouts: folders of rollouts.
        pairing: mining options.
        benchmarks: more sources whose test split must not share a prompt with the pairs.
        similarity: similarity from which two prompts count as the same.
        skip_contaminated: whether the fit skips pairs whose prompt occurs in a benchmark.
        validation_share: share of the hard prompts in the validation split.
    """

    source: Source
    rollouts: list[str]
    pairing: Pairing = field(default_factory=Pairing)
    benchmarks: Sequence[Source] = ()
    similarity: float = SIMILARITY
    skip_contaminated: bool = False
    validation_share: float = VALIDATION_SHARE

    def notes(self, record: Record, pairs: Sequence[Pair]) -> Iterator[str]:
        """Yield sentences that say how the fit uses the pairs of a record."""
        if not pairs:
            return
        tested = chain.from_iterable(source.records("test") for source in (self.source, *self.benchmarks))
        match = ContaminationIndex(tested, self.similarity).match(record)
        if match is not None:
            reason = f"similarity {match.similarity:.2f} to benchmark record {match.benchmark}"
            if self.skip_contaminated:
                yield f"the fit skips it: {reason}"
                return
            what = "refuses it without --allow_contamination" if match.similarity == 1 else "warns about it"
            yield f"the fit {what}: {reason}"
        held_out = is_held_out(record.context(), self.validation_share, cut_share(self.source))
        yield "the fit uses it for validation" if held_out else "the fit trains on it"


def inputs_of_fit(argv: Sequence[str]) -> FitInputs:
    """Return the mining options of a fit.

    Args:
        argv: ``--config`` and overrides, as after ``fit``.

    Raises:
        InputError: a file or a value is wrong, or the config is not that of a fit on rollouts.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    data = resolve(["fit", *argv]).config.get("data")
    settings = data.get("init_args") if isinstance(data, dict) else None
    if not isinstance(settings, dict) or "rollouts" not in settings or "source" not in settings:
        raise InputError(
            "pairs: --config: data.rollouts and data.source are missing", "use the config of an HS-DPO fit"
        )
    if settings.get("pairs"):
        raise InputError("pairs: --config: data.pairs are ready pairs, from which nothing is mined")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FitInputs, "data")
    options = {field.name: settings[field.name] for field in fields(FitInputs) if field.name in settings}
    try:
        inputs: FitInputs = parser.instantiate_classes(parser.parse_object({"data": options})).data
    except (ArgumentError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise find_input_error(error) or InputError(f"pairs: --config: {reason[:300]}") from error
    return inputs


def source_files(argv: Sequence[str]) -> list[str]:
    """Return the files and folders that the data source of a fit reads.

    Args:
        argv: ``--config`` and overrides, as for :func:`inputs_of_fit`, which accepts them.
    """
    source = resolve(["fit", *argv]).config["data"]["init_args"]["source"]
    return [found for _, text in path_values({"source": source}) for found in existing(text)]
