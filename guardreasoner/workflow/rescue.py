"""Write a trained model somewhere else if its output folder cannot be written."""

from collections.abc import Callable, Iterable
from pathlib import Path

from guardreasoner.errors import MachineFault
from guardreasoner.workflow.replacing import replacing_folder


def write_or_rescue(
    output: str | Path, write: Callable[[Path], None], others: Iterable[Path], checkpoint: Path | None = None
) -> None:
    """Write a folder; if that fails, write it to the first other place that works.

    Args:
        output: the folder to write.
        write: writes the content to the folder that it is given.
        others: folders in which to write it otherwise, in order.
        checkpoint: last checkpoint of the fit, which is what remains if no place works.

    Raises:
        MachineFault: the folder could not be written; the message says where its content is now.
    """
    output = Path(output)
    try:
        with replacing_folder(output) as folder:
            write(folder)
    except OSError as error:
        place = _rescue(output.name, write, others)
        remains = f"training can go on from {checkpoint}" if checkpoint else "the trained model is lost"
        where = f"the trained model is in {place}" if place else f"no other folder could be written either; {remains}"
        raise MachineFault(
            f"{output}: cannot be written: {error.strerror}; {where}",
            f"move it: mv {place} {output}" if place else None,
        ) from error


def _rescue(name: str, write: Callable[[Path], None], others: Iterable[Path]) -> Path | None:
    """Write the content to a new folder in the first place that works; return its path."""
    for other in others:
        number, place = 1, Path(other, f"{name}.rescued").absolute()
        try:
            while place.exists():
                number, place = number + 1, Path(other, f"{name}.rescued-{number + 1}").absolute()
            with replacing_folder(place) as folder:
                write(folder)
            return place
        except OSError:
            continue
    return None
