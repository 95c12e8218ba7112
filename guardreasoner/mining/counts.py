"""What mining found, counted."""

from dataclasses import dataclass, fields


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
        duplicates: hard groups whose record already has a pair from another model.
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
    duplicates: int = 0
    pairs: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))
