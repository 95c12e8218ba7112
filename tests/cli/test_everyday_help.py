"""The opening of a verb's help."""

import pytest

from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.everyday_help import opening
from guardreasoner.cli.main import main


@pytest.mark.parametrize("verb", LIGHTNING)
def test_it_fits_a_terminal(verb: str) -> None:
    lines = opening(verb).splitlines()
    assert lines[0] == f"python -m guardreasoner {verb}: {LIGHTNING[verb]}"
    assert max(map(len, lines[1:])) <= 110


def test_help_opens_with_it_and_goes_on_with_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(opening("fit"))
    assert "--trainer.gradient_clip_val" in shown[len(opening("fit")) :]
    for flag in ("--output", "--seed_everything", "--overwrite", "--trainer.max_time", "--recipe.base"):
        assert flag in shown[len(opening("fit")) :]
