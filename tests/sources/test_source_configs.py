"""Public data sets by class path in a config: read as the test command reads them, and as benchmarks of a training."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import yaml

from guardreasoner.cli.main import main
from guardreasoner.moved import full_path
from tests.support import published_sets
from tests.support.hub_folders import stay_offline

SETS: Mapping[str, tuple[Callable[[Path], Path], Mapping[str, Any], int]] = {
    "AdvBench": (published_sets.write_advbench, {}, 2),
    "StrongREJECT": (published_sets.write_strongreject, {}, 2),
    "DoNotAnswer": (published_sets.write_do_not_answer, {}, 2),
    "JailbreakBench": (published_sets.write_jailbreakbench, {"min_agreement": 1.0}, 6),
    "JailbreakArtifacts": (published_sets.write_jailbreak_artifacts, {"attacks": ["PAIR", "DSN"]}, 12),
    "XSTestCompletions": (published_sets.write_xstest_completions, {"partial_refusal": "compliance"}, 20),
    "PyRIT": (published_sets.write_pyrit, {"threshold": 0.25, "min_raters": 3}, 5),
    "Aegis2": (published_sets.write_aegis2, {"response_labels_by": ["human"]}, 4),
    "Qwen3GuardTest": (published_sets.write_qwen3guard, {"parts": ["thinking"]}, 2),
}
"""How a set is written, arguments of its class, and the number of its test records."""


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


def configured(name: str, arguments: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the source that the test command builds for a class path and arguments."""
    source = json.dumps({"class_path": f"guardreasoner.{name}", "init_args": arguments})
    with pytest.raises(SystemExit) as stopped:
        main(["test", "--config", "configs/evaluate.yaml", "--data.source", source, "--print_config"])
    printed = capsys.readouterr()
    assert stopped.value.code in (0, None), printed.err
    parsed = yaml.safe_load(printed.out)["data"]["init_args"]["source"]
    found: Any = locate(full_path(parsed["class_path"]))
    return found(**parsed["init_args"])


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_by_its_class_path(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, arguments, count = SETS[name]
    source = configured(name, {"path": str(write(tmp_path / name)), **arguments}, capsys)
    records = list(source.records("test"))
    assert len(records) == len({record.id for record in records}) == count
    assert all(record.gold() for record in records)
    assert json.loads(json.dumps(source.identity()))["class"] == name
    if name != "Aegis2":
        assert list(source.records("train")) == list(source.records("validation")) == []


def test_polyguard_is_read_by_its_class_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {
        "path": str(published_sets.write_polyguard_mix(tmp_path / "mix")),
        "test_path": str(published_sets.write_polyguard_prompts(tmp_path / "prompts")),
    }
    source = configured("PolyGuard", {**paths, "languages": ["en"]}, capsys)
    assert [record.id for split in ("train", "test") for record in source.records(split)] == [
        "PolyGuardMix/0000000",
        "PolyGuardPrompts/0000000",
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "fault"),
    [
        ("PyRIT", {"path": "x", "threshold": 2}, "source.init_args.threshold: expected a number from 0 to 1, got 2.0"),
        ("JailbreakBench", {"parts": ["safe"]}, "expected one of harmful, benign, judge_comparison"),
    ],
)
def test_a_wrong_argument_is_one_line(
    name: str, arguments: Mapping[str, Any], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = json.dumps({"class_path": f"guardreasoner.{name}", "init_args": arguments})
    assert main(["test", "--config", "configs/evaluate.yaml", "--data.source", source]) == 2
    error, *hints = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert fault in error
    assert len(hints) <= 1


OVERLAY = """
data:
  init_args:
    source:
      class_path: guardreasoner.Files
      init_args:
        train: train.jsonl
        columns: {prompt: prompt, labels: {request: label}}
    benchmarks:
      - class_path: guardreasoner.StrongREJECT
        init_args: {path: strongreject}
"""


def test_training_data_with_a_prompt_of_a_benchmark_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published_sets.write_strongreject(workplace / "strongreject")
    texts = ("Which flour is white?", "  HOW do I\tbake bread?", "How long does bread keep?")
    rows = [{"id": f"mine-{number}", "prompt": text, "label": "unharmful"} for number, text in enumerate(texts)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("own.yaml").write_text(OVERLAY)
    assert main(["base-model", "--config", "configs/base.yaml", "--config", "own.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[:2] == [
        "record mine-1: same prompt as StrongREJECT/000000",
        "error: training data: 1 record with a prompt that also occurs in a benchmark of this run: mine-1",
    ]
