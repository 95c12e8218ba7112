"""Which split a record belongs to: a function of its normalised prompt alone, so that it stays put when data grow."""

from hashlib import sha256

from guardreasoner.errors import InputError
from guardreasoner.records import Split
from guardreasoner.sources.contamination import normalise


def place(prompt: str) -> float:
    """Return a number in [0, 1) that only the normalised prompt decides."""
    digest = sha256(normalise(prompt).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(prompt: str, validation_share: float, test_share: float = 0.0) -> Split:
    """Return the split of every record with this prompt, however it is written and whatever its response.

    Args:
        prompt: the user's text.
        validation_share: part of the distinct prompts that validate.
        test_share: part that is tested on.
    """
    where = place(prompt)
    if where < test_share:
        return "test"
    return "validation" if where < test_share + validation_share else "train"


def require_shares(where: str, validation_share: float, test_share: float = 0.0) -> None:
    """Raise ``InputError`` unless both shares are at least 0 and leave something to train on."""
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise InputError(f"{where}: {name} must be in [0, 1), got {share}")
    if validation_share + test_share >= 1:
        raise InputError(f"{where}: validation_share and test_share leave nothing to train on")
