"""``init`` copies the shipped configs and never replaces a changed one unasked."""

from collections.abc import Callable
from pathlib import Path

from guardreasoner.workflow.config_file import SHIPPED


def test_init_copies_the_configs(start: Callable[..., str], refused: Callable[..., str], tmp_path: Path) -> None:
    assert "0 already there" in start("init", str(tmp_path / "work"))
    copied = tmp_path / "work" / "configs"
    for file in SHIPPED.rglob("*.yaml"):
        assert (copied / file.relative_to(SHIPPED)).read_bytes() == file.read_bytes()
    (copied / "rsft.yaml").write_text("output: mine\n")
    assert "rsft.yaml: differs" in refused("init", str(tmp_path / "work"))
    assert (copied / "rsft.yaml").read_text() == "output: mine\n"
    assert "1 configs written" in start("init", str(tmp_path / "work"), "--overwrite")


def test_init_into_a_file(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    assert "work" in refused("init", str(tmp_path / "work"))
