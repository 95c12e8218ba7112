"""Counts of mining by source, and the grades of each model's outputs for each record."""

from dataclasses import dataclass, fields

RIGHT, WRONG, UNPARSED, NO_LABEL = 1, 0, -1, -2
"""Grades of an output for one task: equal to the gold label, different from it, no verdict, no gold label."""


@dataclass(slots=True)
class MiningCounts:
    """Counts for one source.

    A group is the set of outputs that vote together: all outputs for a record when models are pooled, otherwise those
    of one model.

    Args:
        groups: number of groups; equals ``all_right + mixed + all_wrong + too_few``.
        all_right: groups without a wrong vote.
        mixed: groups with right and wrong votes, that is, hard groups.
        all_wrong: groups without a right vote; with ``graded: first-mixed``, no task is mixed and at least one is
            always wrong.
        too_few: groups with fewer than two votes.
        outputs: rollouts that were graded.
        unparsed: outputs without a verdict for at least one task that has a gold label.
        dropped: unparsed outputs that did not vote.
        not_mined: rollouts that were not graded because ``Pairing.sources_by_model`` excludes them.
        duplicates: hard groups whose record already has pairs from another model.
        beyond_cap: combinations of a right and a wrong output that were not used because of ``Pairing.cap``.
        pairs: pairs made.
    """

    groups: int = 0
    all_right: int = 0
    mixed: int = 0
    all_wrong: int = 0
    too_few: int = 0
    outputs: int = 0
    unparsed: int = 0
    dropped: int = 0
    not_mined: int = 0
    duplicates: int = 0
    beyond_cap: int = 0
    pairs: int = 0

    @property
    def hard(self) -> int:
        """Number of hard records that have pairs."""
        return self.mixed - self.duplicates

    def __add__(self, other: "MiningCounts") -> "MiningCounts":
        return MiningCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(MiningCounts)))

    def summary(self) -> str:
        """Return the outcomes of the groups in one line."""
        parts = [f"{self.all_right:,} all right", f"{self.mixed:,} mixed", f"{self.all_wrong:,} all wrong"]
        if self.too_few:
            parts.append(f"{self.too_few:,} with fewer than two votes")
        unparsed = f"; {self.unparsed:,} of {self.outputs:,} outputs without a verdict"
        return ", ".join(parts) + unparsed + (f"; {self.not_mined:,} outputs not mined" if self.not_mined else "")

    def advice(self) -> str:
        """Return a hint on what to change when no record is hard."""
        if self.too_few == self.groups:
            return (
                "too few votes: count unparsed outputs as wrong, sample more outputs per record, or train R-SFT longer"
            )
        if self.all_right >= self.all_wrong:
            return "outputs agree: sample more per record, raise the temperature, add models, or use other records"
        if self.unparsed > self.outputs / 2:
            return "most outputs give no verdict: train R-SFT longer, or allow more new tokens"
        return "no output is right: train R-SFT longer, or check that the gold labels match the tasks"


@dataclass(frozen=True, slots=True)
class RecordGrades:
    """Grades of one model's outputs for one record, without any text.

    Args:
        record_id: id of the record.
        source: source of the record.
        model: name of the model that wrote the outputs.
        grades: one row per output, ordered by fingerprint, seed and index; each row holds ``RIGHT``, ``WRONG``,
            ``UNPARSED`` or ``NO_LABEL`` for each task.
    """

    record_id: str
    source: str
    model: str
    grades: tuple[tuple[int, ...], ...]
