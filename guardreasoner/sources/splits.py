"""Assign records to splits, and draw samples of them, by hashes, so that added data move no record."""

from collections.abc import Sequence
from hashlib import sha256

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.arguments import is_fraction
from guardreasoner.sources.contamination import normalize


def unit_interval_hash(prompt: str) -> float:
    """Hash the normalized prompt to a number in [0, 1)."""
    digest = sha256(normalize(prompt).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(prompt: str, validation_share: float, test_share: float = 0.0) -> Split:
    """Return the split of all records with this prompt, whatever its case, spacing or response.

    Args:
        prompt: the user's text or, of a conversation of more turns, all before the response (``Record.context``).
        validation_share: share of the distinct prompts in the validation split.
        test_share: share of the distinct prompts in the test split.
    """
    position = unit_interval_hash(prompt)
    if position < test_share:
        return "test"
    return "validation" if position < test_share + validation_share else "train"


def is_held_out(prompt: str, share: float, cut: float = 0.0) -> bool:
    """Return whether a fit holds a training prompt out: those of the lowest hash that the training split still has.

    Args:
        prompt: as for :func:`split_of`.
        share: share of the training prompts that are held out.
        cut: share of all prompts that :func:`split_of` has cut out of the training split already. Without it, prompts
            would be held out that are no training prompts, and none or too few of those that are.
    """
    return cut <= unit_interval_hash(prompt) < cut + share * (1 - cut)


def sample_of(records: Sequence[Record], count: int | None) -> list[Record]:
    """Return the ``count`` records with the smallest SHA-256 of their id, in their order; all if ``count`` is None."""
    if count is None:
        return list(records)

    def digest(record: Record) -> str:
        return sha256(record.id.encode(errors="surrogatepass")).hexdigest()

    ids = {record.id for record in sorted(records, key=digest)[:count]}
    return [record for record in records if record.id in ids]


def require_shares(where: str, validation_share: float, test_share: float = 0.0) -> None:
    """Raise ``InputError`` unless both shares are at least 0 and their sum is below 1."""
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not is_fraction(share, with_one=False):
            raise InputError(f"{where}: {name} must be in [0, 1), got {share!r}")
    if validation_share + test_share >= 1:
        raise InputError(f"{where}: validation_share and test_share must sum to less than 1")
