"""What the event files of a TensorBoard folder hold."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

_MEASURED = ("train/tokens_per_second", "train/memory_gb")
"""Tags that differ from run to run."""


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Return (tag, step, value) of every scalar that does not measure the machine, sorted, repeats included."""
    events = (event for path in sorted(folder.glob("events.*")) for event in EventFileLoader(str(path)).Load())
    return sorted(
        (value.tag, event.step, value.tensor.float_val[0])
        for event in events
        for value in event.summary.value
        if value.tensor.float_val and value.tag not in _MEASURED
    )
