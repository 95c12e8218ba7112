"""Public names are lazy, and the names of the version before still work, each with one warning."""

import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import guardreasoner
from guardreasoner import moved
from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.moved import MOVED, current_argv, current_config, current_path, full_path, public_names, short_path
from guardreasoner.workflow.config import resolve
from tests.support.tiny import command

ROOT = Path(__file__).parents[1]
OLD_HSDPO = {
    "recipe": {"leave_out_held": True},
    "model": {
        "class_path": "guardreasoner.modules.hsdpo.HSDPOModule",
        "init_args": {
            "reference": {"class_path": "guardreasoner.reference.FrozenCopy"},
            "preference": "guardreasoner.objective.ipo",
        },
    },
    "data": {
        "class_path": "guardreasoner.data.preference.PreferenceDataModule",
        "init_args": {
            "source": {
                "class_path": "guardreasoner.sources.together.Together",
                "init_args": {"sources": [{"class_path": "guardreasoner.sources.embedded.Embedded"}]},
            },
            "leave_out_held": "${recipe.leave_out_held}",
            "pairing": {"mines": {"rsft": ["embedded"]}, "reading": "released"},
            "collate": "guardreasoner.tokens.two_row",
        },
    },
}


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which warnings were printed."""
    monkeypatch.setattr(moved, "_warned", set())


def load(path: str) -> object:
    """Import a module, or an object of one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_importing_the_package_is_fast_and_loads_no_torch() -> None:
    program = (
        "import time; start = time.perf_counter(); import guardreasoner, sys; seconds = time.perf_counter() - start\n"
        "import guardreasoner.backbone  # an old name loads nothing until it is used\n"
        "print(seconds, *sorted({'torch', 'lightning', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-W", "ignore", "-c", program]
    runs = [subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.3
    assert [modules for _, *modules in runs] == [[], [], []]


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_importable(name: str) -> None:
    public = getattr(guardreasoner, name)
    assert name in dir(guardreasoner)
    assert full_path(f"guardreasoner.{name}") == f"{public_names()[name]}.{name}"
    assert short_path(f"{public.__module__}.{public.__name__}") in (
        f"guardreasoner.{name}",
        f"{public.__module__}.{public.__name__}",
    )


def test_unknown_public_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="HSDPModule"):
        _ = guardreasoner.HSDPModule


@pytest.mark.parametrize("old", MOVED)
def test_every_old_path_leads_to_something_importable(old: str) -> None:
    new = current_path(f"guardreasoner.{old}")
    assert current_path(new) == new
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert load(new) is not None


@pytest.mark.parametrize("old", [old for old in MOVED if old != "callbacks.ScoreFigures"])
def test_old_paths_are_importable_in_python(old: str) -> None:
    sys.modules.pop(f"guardreasoner.{old}", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found = load(f"guardreasoner.{old}")
    new = load(current_path(f"guardreasoner.{old}"))
    assert found is new or all(getattr(found, name) is value for name, value in vars(new).items() if name[0] != "_")


def test_no_old_path_hides_a_module_of_today() -> None:
    package = ROOT / "guardreasoner"
    files = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    assert not files & MOVED.keys()


def test_old_modules_are_imported_with_a_warning() -> None:
    for name in [name for name in sys.modules if name.startswith("guardreasoner.sources.together")]:
        del sys.modules[name]
    with pytest.warns(FutureWarning, match=r"guardreasoner\.sources\.together is now guardreasoner\.sources\.concat"):
        together = importlib.import_module("guardreasoner.sources.together")
    assert together.Together is guardreasoner.Concat
    with pytest.raises(AttributeError, match="Togther"):
        _ = together.Togther
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guardreasoner.sources.togther")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": {"init_args": {"leave_out_held": 1}}}, {"a": {"init_args": {"skip_contaminated": 1}}}),
        ({"pairing": {"init_args": {"mines": {}}}}, {"pairing": {"init_args": {"sources_by_model": {}}}}),
        ({"columns": {"words": {"request": {}}}}, {"columns": {"label_map": {"request": {}}}}),
        ({"data.pairing.reading": "released"}, {"data.pairing.parser": "released"}),
        ({"keep": {"words": [1], "mines": [2]}}, {"keep": {"words": [1], "mines": [2]}}),
        ({1: ["guardreasoner.reference.FrozenCopy"]}, {1: ["guardreasoner.training.reference.FrozenCopy"]}),
        ("see guardreasoner.reference", "see guardreasoner.reference"),
        ("${recipe.leave_out_held}", "${recipe.skip_contaminated}"),
        ("${data.pairing.mines}/${oc.env:A,b}", "${data.pairing.sources_by_model}/${oc.env:A,b}"),
    ],
)
def test_old_keys_and_paths_in_a_config(old: object, new: object) -> None:
    assert current_config(old) == new
    assert current_config(new) == new


def test_old_flags() -> None:
    assert current_argv(["fit", "--data.pairing.mines+={a: [b]}", "--recipe.leave_out_held", "true", "--", "-c"]) == [
        *("fit", "--data.pairing.sources_by_model+={a: [b]}", "--recipe.skip_contaminated", "true", "--", "-c")
    ]
    assert current_argv(["pairs", "--mines", "a=b", "--reading=released"]) == [
        *("pairs", "--sources_by_model", "a=b", "--parser=released")
    ]
    assert current_argv(["score", "--mines"]) == ["score", "--mines"]


@pytest.mark.usefixtures("workplace")
def test_the_parser_and_the_stage_graph_read_old_names_alike(capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.yaml").write_text(yaml.safe_dump(OLD_HSDPO))
    argv = ["fit", "--config", "configs/hsdpo.yaml", "--config", "old.yaml", "--data.pairing.mines", "{rsft: [x]}"]
    merged = resolve(argv).config
    parsed = GuardCLI(argv[0], argv[1:], parse_only=True).config
    assert merged["model"]["class_path"] == parsed.model.class_path == "guardreasoner.training.hsdpo.HSDPOModule"
    assert parsed.model.init_args.objective is guardreasoner.ipo
    assert parsed.data.init_args.collate.__module__ == "guardreasoner.model.batch"
    assert parsed.data.init_args.source.class_path == "guardreasoner.sources.concat.Concat"
    assert merged["data"]["init_args"]["skip_contaminated"] is parsed.data.init_args.skip_contaminated is True
    pairing = parsed.data.init_args.pairing
    assert merged["data"]["init_args"]["pairing"]["sources_by_model"] == pairing.sources_by_model == {"rsft": ["x"]}
    assert merged["data"]["init_args"]["pairing"]["parser"] == pairing.parser == "released"
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(set(warnings)) == 10
    assert (
        "warning: old.yaml: guardreasoner.modules.hsdpo.HSDPOModule is now guardreasoner.HSDPOModule; "
        "the old name works until the next release"
    ) in warnings


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (("--model", "guardreasoner.modules.hsdpo.HSDPModule"), "guardreasoner.HSDPOModule"),
        (("--data.source", "guardreasoner.sources.together.Togther"), "guardreasoner.Concat"),
        (("--model.objective", "guardreasoner.losses.dpo"), "guardreasoner.dpo"),
        (("--model.objective", "simpo"), "guardreasoner.simpo"),
        (("--config", "mine.yaml"), "guardreasoner.FrozenCopy"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_the_nearest_name_is_given_for_an_unknown_one(
    argv: tuple[str, str], near: str, tiny_base: Path, tiny_rollouts: Path, refused: Callable[..., str]
) -> None:
    Path("mine.yaml").write_text("model: {init_args: {reference: {class_path: guardreasoner.reference.FrozenCopi}}}")
    error, hint = refused(*command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", *argv)).splitlines()
    assert "cannot import " in error
    assert hint == f"hint: did you mean {near}?"


def test_values_that_are_no_class_paths_stay() -> None:
    config = {
        "output": "guardreasoner.simpo",
        "model": {"init_args": {"backbone": {"path": "guardreasoner.config"}}},
        "data": {
            "init_args": {"source": {"init_args": {"columns": {"labels": {"leave_out_held": "guardreasoner.Record"}}}}}
        },
    }
    assert current_config(config) == config
    argv = ["fit", "--output", "guardreasoner.simpo", "--recipe.base=guardreasoner.mine"]
    assert current_argv(argv) == argv


def test_arguments_of_a_users_class_keep_their_names() -> None:
    source = {"class_path": "mine.Source", "init_args": {"leave_out_held": True, "words": {"a": 1}}}
    assert current_config({"source": source}) == {"source": source}


def test_a_value_that_is_parsed_on_its_own_has_old_keys() -> None:
    assert current_config({"mines": {"a": ["x"]}}) == {"sources_by_model": {"a": ["x"]}}
    assert current_config({"class_path": "guardreasoner.HSDPOModule", "init_args": {"preference": "f"}})[
        "init_args"
    ] == {"objective": "f"}
