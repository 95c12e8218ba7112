"""What the manifest of a prediction folder says about the test that wrote it: the split and the model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.moved import current_path
from guardreasoner.workflow.lineage import ran_in
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import backbone_paths, full

_DATA_MODULE = "BenchmarkDataModule"
_BASELINE = "BaselineModule"
_DEFAULT_SPLIT = "test"


@dataclass(frozen=True, slots=True)
class PredictionOrigin:
    """Split and model of predictions.

    Args:
        split: split of the records; None if no manifest says it.
        model: folder of the model, or its hub id; None if no manifest names one.
        model_hash: content hash of the model's folder when the predictions were made; None if it is not recorded.
        is_baseline: whether a baseline made the predictions, with the prompts of a model whose weights it did not use.
    """

    split: str | None = None
    model: str | None = None
    model_hash: str | None = None
    is_baseline: bool = False

    def as_json(self, paths: Sequence[str]) -> dict[str, Any]:
        """Return what the figures of predictions keep of their origin: the paths, and the hash of the model."""
        return {"files": list(paths), "model_hash": self.model_hash}


def prediction_origin(path: str | Path) -> PredictionOrigin:
    """Return what the manifest of predictions says; all fields are None if there is no manifest of a test.

    Args:
        path: a prediction folder, one of its benchmarks, or a file in it.
    """
    folder = full(path)
    for owner in (folder, *folder.parents[:2]):
        manifest = Manifest.read(owner)
        if manifest is not None and manifest.command[:1] == ["test"] and manifest.config:
            return _origin(owner, manifest, manifest.config)
    return PredictionOrigin()


def _origin(folder: Path, manifest: Manifest, config: dict[str, Any]) -> PredictionOrigin:
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    arguments = data.get("init_args")
    named = str(arguments["split"]) if isinstance(arguments, dict) and "split" in arguments else None
    is_ours = _class_name(data) == _DATA_MODULE
    split = named or (_DEFAULT_SPLIT if is_ours else None)
    if _class_name(config.get("model")) == _BASELINE:
        return PredictionOrigin(split, is_baseline=True)
    if config.get("ckpt_path"):
        return PredictionOrigin(split)  # the weights were those of a checkpoint
    model = next(backbone_paths(config.get("model")), None)
    if model is None:
        return PredictionOrigin(split)
    bases = [Path.cwd(), *([base] if (base := ran_in(folder, manifest)) else [])]
    found = next((base / model for base in bases if (base / model).is_dir()), None)
    shown = model if found is None else os.path.relpath(found) if not os.path.isabs(model) else model
    return PredictionOrigin(split, shown, manifest.inputs.get(model))


def _class_name(config: Any) -> str:
    """Return the name of the class that a part of a config names, without its module; empty if it names none."""
    named = config.get("class_path", "") if isinstance(config, dict) else ""
    return current_path(str(named)).rpartition(".")[2]
