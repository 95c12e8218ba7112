"""Settings of GRPO on the command line that cannot work are one line each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tiny import command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model.k", "0"), "k: expected a whole number of at least 2, got 0"),
        (("--model.beta", "-1"), "beta: expected a number of at least 0, got -1"),
        (
            ("--model.generator", "guardreasoner.VLLMGenerator"),
            "model.generator: expected an engine that gives token ids",
        ),
        (("--model.beta", "0.1", "--model.reference", "guardreasoner.Precomputed"), "model.reference"),
        (("--data", "guardreasoner.PreferenceDataModule"), "data: GRPOModule needs PromptDataModule"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    flags: tuple[str, ...],
    message: str,
    tiny_base: Path,
    tiny_rollouts: Path,
    workplace: Path,
    refused: Callable[..., str],
) -> None:
    error = refused(*command("grpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]"), *flags)
    assert message in error.splitlines()[0], error
    assert "Traceback" not in error
    assert not Path("made").exists()


@pytest.mark.parametrize("verb", ["doctor", "plan"])
def test_verbs_that_do_not_know_grpo_say_so(
    verb: str, tiny_base: Path, tiny_rollouts: Path, workplace: Path, refused: Callable[..., str]
) -> None:
    flags = ("--model.backbone.path", str(tiny_base), "--data.source", "tests.support.tiny.TinySource")
    error = refused(verb, "--config", "configs/grpo.yaml", *flags, "--data.rollouts", f"[{tiny_rollouts}]")
    assert f"{verb}: " in error.splitlines()[0], error
    assert "Traceback" not in error
