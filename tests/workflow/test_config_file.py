"""Configs are found by path or by name, in the working folder first and then in the package."""

from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import with_config_names
from guardreasoner.workflow.config_file import SHIPPED, config_name, find_config, load_yaml


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["hsdpo", "hsdpo.yaml", "configs/hsdpo", "configs/hsdpo.yaml"])
def test_a_shipped_config_has_one_name(given: str) -> None:
    assert config_name(given) == "configs/hsdpo.yaml"
    assert find_config(given) == SHIPPED / "hsdpo.yaml"


def test_the_working_folder_comes_first() -> None:
    Path("configs").mkdir()
    Path("configs/hsdpo.yaml").write_text("output: mine\n")
    assert load_yaml("hsdpo") == {"output": "mine"}
    Path("hsdpo").write_text("output: here\n")
    assert load_yaml("hsdpo") == {"output": "here"}


@pytest.mark.parametrize("given", ["nothing", "/configs/hsdpo.yaml", "configs/../configs/hsdpo.yaml", "configs"])
def test_what_is_no_config(given: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        find_config(given)


def test_a_path_is_not_looked_up_in_the_folder_of_configs() -> None:
    Path("configs").symlink_to(SHIPPED.resolve())  # so that configs/../configs/hsdpo.yaml is a file
    with pytest.raises(InputError, match="no such file"):
        find_config("../configs/hsdpo")


def test_a_command_names_configs_alike() -> None:
    argv = ["fit", "-c", "rsft", "--config=model/qlora", "--output", "rsft"]
    assert with_config_names(argv) == [
        *("fit", "-c", "configs/rsft.yaml", "--config=configs/model/qlora.yaml", "--output", "rsft"),
    ]
