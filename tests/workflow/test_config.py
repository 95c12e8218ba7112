"""Config files and flags are merged into one config."""

from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.recipe import Recipe

MAIN = """
recipe: {checkpoints: checkpoints, k: 4}
output: ${recipe.checkpoints}/hsdpo
model:
  class_path: guardreasoner.modules.HSDPOModule
  init_args:
    beta: 1e-2
    backbone: {path: "${recipe.checkpoints}/rsft"}
data:
  class_path: guardreasoner.data.PreferenceDataModule
  init_args: {rollouts: [a, b], k: "${recipe.k}"}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a config file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.yaml").write_text(MAIN)
    return tmp_path


def config(*flags: str) -> dict:
    """Return the config of ``fit --config main.yaml`` with more flags."""
    return resolve(["fit", "--config", "main.yaml", *flags]).config


def test_interpolation_works_across_files_and_flags(here: Path) -> None:
    (here / "overlay.yaml").write_text("recipe: {checkpoints: other}")
    assert config()["output"] == "checkpoints/hsdpo"
    merged = config("--config", "overlay.yaml", "--output", "${recipe.checkpoints}/x", "--recipe.k", "8")
    assert merged["output"] == "other/x"
    assert merged["model"]["init_args"]["backbone"]["path"] == "other/rsft"
    assert merged["data"]["init_args"]["k"] == 8


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[${recipe.checkpoints}/a, b]", ["checkpoints/a", "b"]),
        ("[${oc.env:NOT_SET_HERE,${recipe.checkpoints}}/1B, '${recipe.k}']", ["checkpoints/1B", 4]),
        ("{folder: ${recipe.checkpoints}/a}", {"folder": "checkpoints/a"}),
        ("${recipe.checkpoints}/a", "checkpoints/a"),
        ("[${recipe.checkpoints}", "[checkpoints"),  # no YAML: a text
    ],
)
def test_lists_in_flags_may_hold_interpolations(text: str, value: object) -> None:
    config = resolve(["fit", "--config", "main.yaml", "--data.rollouts", text]).config
    assert config["data"]["init_args"]["rollouts"] == value


def test_the_recipe_has_defaults(here: Path) -> None:
    (here / "short.yaml").write_text("output: ${recipe.logs}/x")
    assert resolve(["fit", "--config", "short.yaml"]).config["output"] == f"{Recipe().logs}/x"


def test_interpolation_reads_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "env.yaml").write_text("a: ${oc.env:CHECKED_FOLDER,fallback}")
    assert config("--config", "env.yaml")["a"] == "fallback"
    monkeypatch.setenv("CHECKED_FOLDER", "given")
    assert config("--config", "env.yaml")["a"] == "given"


@pytest.mark.parametrize("flags", [("--model.beta", "0.5"), ("--model.beta=0.5",), ("--model.init_args.beta", "5e-1")])
def test_a_flag_may_leave_out_init_args(flags: tuple[str, ...]) -> None:
    merged = config(*flags)["model"]
    assert merged["init_args"]["beta"] == 0.5
    assert "beta" not in merged


def test_scientific_notation_is_a_number() -> None:
    assert config()["model"]["init_args"]["beta"] == 0.01


def test_lists_are_replaced_or_appended_to() -> None:
    assert config("--data.rollouts", "[c]")["data"]["init_args"]["rollouts"] == ["c"]
    assert config("--data.rollouts+", "c")["data"]["init_args"]["rollouts"] == ["a", "b", "c"]
    assert config("--data.rollouts+=[c, d]")["data"]["init_args"]["rollouts"] == ["a", "b", "c", "d"]


def test_a_flag_reaches_the_last_element_of_a_list() -> None:
    callbacks = config("--trainer.callbacks+", "Stop", "--trainer.callbacks.patience", "3")["trainer"]["callbacks"]
    assert callbacks == [{"class_path": "Stop", "init_args": {"patience": 3}}]


def test_later_files_and_flags_win(here: Path) -> None:
    (here / "later.yaml").write_text("model: {init_args: {beta: 3}}")
    assert config("--model.beta", "2", "--config", "later.yaml")["model"]["init_args"]["beta"] == 3
    assert config("--config", "later.yaml", "--model.beta", "2")["model"]["init_args"]["beta"] == 2


def test_a_section_may_come_from_its_own_file(here: Path) -> None:
    (here / "model.yaml").write_text("class_path: m.Other\ninit_args: {beta: 3}")
    model = config("--model", "model.yaml")["model"]
    assert (model["class_path"], model["init_args"]["beta"]) == ("m.Other", 3)
    assert config("--model", "m.Third")["model"]["class_path"] == "m.Third"


def test_a_flag_without_a_value_is_true() -> None:
    assert config("--dry_run") == {**config(), "dry_run": True} == config("--dry_run=true")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"bad.yaml:4: key 'c' occurs twice"),
        ("a: [1\nb: 2\n", r"bad.yaml:2: "),
        ("- a\n", r"bad.yaml: expected a mapping, found list"),
        ("a: ${nowhere.b}\n", r"a: .*nowhere"),
        ("a: ${unclosed\n", r"a: "),
    ],
)
def test_a_bad_file_is_one_line(here: Path, text: str, message: str) -> None:
    (here / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        config("--config", "bad.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(InputError, match=r"--config absent.yaml: no such file"):
        config("--config", "absent.yaml")
