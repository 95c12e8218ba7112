"""A study of two arms and results for it, without running anything."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from evidence.__main__ import main
from evidence.results import Result, write_result

STUDY: dict[str, Any] = {
    **{"title": "A study", "about": "What it is.", "seeds": [1, 2, 3], "data": {"toy": {}}},
    "shared": {"rsft": "fit --config configs/rsft.yaml"},
    "test": "test --config configs/evaluate.yaml",
    "arms": {
        "a": {"title": "Arm A", "test": "--model.backbone.path ${recipe.checkpoints}/rsft"},
        "b": {"title": "Arm B", "stages": {"b": "fit --config configs/rsft.yaml --output ${recipe.checkpoints}/b"}},
    },
    **{"compare": "a", "regime": ["b", "a"]},
    "claims": [
        {"text": "A beats B on hard records", "better": "a", "than": "b"},
        {"text": "B beats A", "better": "b", "than": "a", "figure": "all"},
    ],
    "later": {"arm C": "an option"},
}

ARM_C = {"title": "Arm C", "test": "--model.backbone.path ${recipe.checkpoints}/rsft"}
THREE_ARMS = {**STUDY["arms"], "c": ARM_C}


def result(arm: str, seed: int, right: str, hard: str, outputs: int = 4, **changes: Any) -> Result:
    """Return a result with these records."""
    fields: dict[str, Any] = {
        **{"data": "toy", "arm": arm, "seed": seed, "config": "c", "records": "r", "right": right, "hard": hard},
        **{"outputs": outputs, "figures": {"hard": 50.0, "all": 75.0}, "trained": ["rsft"], "machine": "M, 2 cores"},
        "costs": {"rsft": {"wall": 3.0, "cpu": 5.0, "starts": 1.0, "trained": 1000.0}},
        **{"lineage": {"rsft": {"content": "x", "fingerprint": "f", "commit": "abc"}}, "date": "2026-01-01"},
    }
    return Result(**(fields | changes))


def study_file(folder: Path, **changes: Any) -> Path:
    """Write a study and return its file."""
    path = folder / "studies" / "toy.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


def start(monkeypatch: pytest.MonkeyPatch, *argv: object) -> int:
    """Run the command in this process."""
    monkeypatch.setattr(sys, "argv", ["evidence", *map(str, argv)])
    return main()


def store(folder: Path, seeds: Sequence[int] = (1, 2, 3)) -> None:
    """Store results of two arms that always differ on the same records."""
    for seed in seeds:
        write_result(folder / "toy", result("a", seed, "1" * 40, "4" * 40))
        write_result(folder / "toy", result("b", seed, "10" * 20, "1" * 40))
