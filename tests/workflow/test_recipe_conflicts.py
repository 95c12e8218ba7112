"""A recipe value and a direct value of the same key are reported, unless one is a default."""

from pathlib import Path

import pytest

from guardreasoner.workflow.recipe_conflicts import recipe_conflicts

FIT = ["fit", "--config", "rsft"]


@pytest.mark.parametrize(
    "more",
    [
        ["--data.batch_size", "4"],
        ["--recipe.rsft_batch_size", "4"],
        ["--recipe.rsft_batch_size", "4", "--data.batch_size", "4"],
        ["--recipe.checkpoints", "elsewhere", "--output", "mine"],
    ],
)
def test_no_conflict(more: list[str]) -> None:
    assert recipe_conflicts([*FIT, *more]) == []


def test_two_flags_contradict_each_other() -> None:
    (conflict,) = recipe_conflicts([*FIT, "--recipe.rsft_batch_size", "4", "--data.batch_size", "8"])
    assert conflict.by_flags
    assert str(conflict) == "data.init_args.batch_size is 8, so recipe.rsft_batch_size 4 has no effect on it"


def test_a_flag_over_an_overlay_is_only_reported(tmp_path: Path) -> None:
    overlay = tmp_path / "model.yaml"
    overlay.write_text("recipe: {rsft_lr: 1.0e-4}\n")
    (conflict,) = recipe_conflicts([*FIT, "--config", str(overlay), "--model.optimizer.lr", "1e-3"])
    assert (conflict.name, conflict.value, conflict.by_flags) == ("rsft_lr", 1e-3, False)
