"""What mining found, counted: sums by source, and the grades of each model's outputs for each record."""

from dataclasses import dataclass, fields

RIGHT, WRONG, UNPARSED, NO_LABEL = 1, 0, -1, -2
"""An output's grade for a task: it meets the gold label, it does not, it gives no verdict, there is no gold label."""


@dataclass(slots=True)
class Counts:
    """What mining found in one source; a group is a record's outputs, of all models when pooled, otherwise of one.

    Args:
        groups: how many groups there were; the next four add up to it.
        all_right: groups without a wrong vote.
        mixed: hard groups.
        all_wrong: groups without a right vote; graded one by one, none mixed and a task always wrong.
        too_few: groups with fewer than two votes.
        outputs: rollouts that were graded.
        unparsed: outputs without a verdict for some task with a gold label.
        dropped: unparsed outputs that were no vote.
        not_mined: rollouts that were not even graded: ``Pairing.sources_by_model`` leaves them out.
        duplicates: hard groups whose record already has its pairs from another model.
        beyond_cap: combinations of a right and a wrong output that were asked for ("all") and left out.
        pairs: what is left.
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
        """Hard records: those with pairs."""
        return self.mixed - self.duplicates

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))

    def line(self) -> str:
        """Return what the groups came to, in one line."""
        parts = [f"{self.all_right:,} all right", f"{self.mixed:,} mixed", f"{self.all_wrong:,} all wrong"]
        if self.too_few:
            parts.append(f"{self.too_few:,} with fewer than two votes")
        without = f"; {self.unparsed:,} of {self.outputs:,} outputs without a verdict"
        return ", ".join(parts) + without + (f"; {self.not_mined:,} outputs not mined" if self.not_mined else "")

    def advice(self) -> str:
        """Return what to change where no record is hard."""
        if self.too_few == self.groups:
            return (
                "too few votes to compare: count unparsed outputs as wrong, more outputs a record, or longer training"
            )
        if self.all_right >= self.all_wrong:
            return "outputs agree: sample more a record, at a higher temperature, from several models, or other records"
        if self.unparsed > self.outputs / 2:
            return "most outputs give no verdict: train R-SFT longer, or allow more new tokens"
        return "no output is right: train R-SFT longer, or check that the gold labels and the tasks belong together"


@dataclass(frozen=True, slots=True)
class RecordGrades:
    """How one model's outputs for one record were graded; it holds no text.

    Args:
        record_id: the record.
        source: the record's.
        model: whose outputs.
        grades: an output a row, ordered by fingerprint, seed and index: ``RIGHT``, ``WRONG``, ``UNPARSED`` or
            ``NO_LABEL`` for each task.
    """

    record_id: str
    source: str
    model: str
    grades: tuple[tuple[int, ...], ...]
