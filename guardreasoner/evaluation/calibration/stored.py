"""Read the calibrations of a model folder, of the model behind predictions, or of a file."""

from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.workflow.guard_file import GUARD_FILE, read_calibrations
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.prediction_origin import prediction_origin

_HINT = "python -m guardreasoner calibrate RUN --task NAME --fpr 0.01 makes one"


def calibrations_of(predictions: str) -> list[Calibration]:
    """Return the calibrations of the model that made predictions.

    Raises:
        InputError: no manifest names the model, its folder is missing or holds another model now, or it has none.
    """
    made = prediction_origin(predictions)
    if made.model is None or not Path(made.model).is_dir():
        what = f"no such model folder: {made.model}" if made.model else "no manifest names its model"
        raise InputError(
            f"{predictions}: {what}", "--calibration PATH names a model folder or a file with a calibration"
        )
    if made.model_hash is not None and content_hash(made.model) != made.model_hash:
        raise InputError(f"{predictions}: the model in {made.model} is not the one that made them", "run test again")
    return stored_calibrations(Path(made.model))


def stored_calibrations(path: Path) -> list[Calibration]:
    """Return the calibrations of a model folder, or of a file in the form of its ``guard.json``, by task.

    Raises:
        InputError: the folder or file is missing or damaged, or has no calibration.
    """
    file = path / GUARD_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: no such file", _HINT)
    calibrations = calibrations_in(file)
    if not calibrations:
        raise InputError(f"{file}: no calibration", _HINT)
    return calibrations


def calibrations_in(file: Path) -> list[Calibration]:
    """Return the calibrations in a ``guard.json``; empty if there are none, or no file.

    Raises:
        InputError: the file or a calibration is damaged.
    """
    return [
        Calibration.from_json(task, row, str(file)) for task, rows in read_calibrations(file).items() for row in rows
    ]
