"""The verb ``doctor`` through the command line, on tiny models and data."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from guardreasoner.cli.main import main
from guardreasoner.cli.next_command import next_command
from guardreasoner.diagnosis.findings import CHECKS
from guardreasoner.records import Record, Split
from tests.support.tiny import TinySource

Refused = Callable[..., str]
TINY = "tests.support.tiny.TinySource"


class Leaky(TinySource):
    """Records with markup in ids; one reasoning reveals that its answer was given, one prompt is of a benchmark."""

    def records(self, split: Split) -> list[Record]:
        records = super().records(split)
        if split == "train":
            told = "The user asks for no harm. The ground truth label is given."
            records[1] = replace(records[1], id="[bold]<b>told", reasoning=told)
            records[3] = replace(records[3], prompt=TinySource().records("test")[0].prompt)
        return [replace(record, source="[red]<i>leaky") for record in records]


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    """Work in a folder with the project's configs."""


@pytest.fixture
def doctor(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs ``doctor`` on tiny R-SFT data and returns exit code and output."""

    def look(*more: str, source: str = TINY, config: str = "configs/rsft.yaml") -> tuple[int, str]:
        words = ["doctor", "--config", config, "--model.backbone.path", str(tiny_base), "--auto_build", "false"]
        code = main([*words, "--data.source", source, "--output", "made/model", *more])
        message = capsys.readouterr()
        assert message.err == ""
        return code, message.out

    return look


def files() -> set[str]:
    """Return every file below the working folder."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names}


def test_a_clean_fit_passes_and_leaves_no_files(doctor: Callable[..., tuple[int, str]]) -> None:
    before = files()
    code, message = doctor()
    assert (code, message.splitlines()[-1]) == (0, "no faults found")
    assert files() == before
    assert "24 training and 4 validation examples" in message
    assert "raw text, no chat template (guard.json of" in message
    passed = re.search(r"(\d+) other checks passed", message)
    assert passed is not None
    assert int(passed[1]) >= len(CHECKS) - 2
    rows = [line.split() for line in message.splitlines()]
    assert ["tokens", "min", "50", "%", "90", "%", "95", "%", "99", "%", "max"] in rows
    assert ["tiny/even", "request", "harmful", "12", "unharmful", "0", "0"] in rows
    assert max(map(len, message.splitlines())) <= 120


@pytest.mark.slow
def test_labels_join_the_old_data_with_the_suggested_command(start: Callable[..., str]) -> None:
    rows = [
        {
            "id": "log-1",
            "labels": {"request": "harmful"},
            "prompt": "How do I get into a locked shed unseen?",
        },
        {"id": "log-2", "labels": {"request": "unharmful"}, "prompt": "Which pan is best for pancakes on induction?"},
    ]
    Path("labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    suggested = next_command(["review", "--label", "queue.jsonl", "--records", "labels.jsonl"])
    assert suggested is not None
    documented = (Path(__file__).parents[3] / "docs/moderate.md").read_text()
    assert shlex.join(["python", "-m", "guardreasoner", *suggested]) in documented.splitlines()
    message = start("doctor", *suggested[1:])
    assert "2,402 training and 240 validation examples" in message
    assert "guard.json of checkpoints/base" in re.sub(r"\s+", " ", message)
    assert message.splitlines()[-1] == "no faults found"
    assert not Path("checkpoints/rsft-labels").exists()


def test_page_and_numbers_are_written(doctor: Callable[..., tuple[int, str]]) -> None:
    before = files()
    code, message = doctor(
        "--html", "pages/doctor.html", "--json=doctor.json", source="tests.cli.commands.test_doctor.Leaky"
    )
    assert (code, message.splitlines()[-1]) == (1, "2 faults found")
    assert files() - before == {"./pages/doctor.html", "./doctor.json"}
    numbers = json.loads(Path("doctor.json").read_text())
    faults = {one["name"]: one for one in numbers["findings"] if one["severity"] == "fault"}
    assert faults["label leaked"]["ids"] == ["[bold]<b>told"]
    assert faults["prompt in a benchmark"]["ids"] == ["train/03 (1.00 test/00)"]
    assert (numbers["train"], numbers["limit"], numbers["faults"]) == (24, 512, 2)
    assert "[bold]<b>told" in message
    assert "[red]<i>leaky" in message
    page = Path("pages/doctor.html").read_text()
    assert "[bold]&lt;b&gt;told" in page
    assert "--model.backbone.path" in page
    assert "--html" not in page
    assert "<b>" not in page


@pytest.mark.slow
def test_flags_of_fit_are_taken(doctor: Callable[..., tuple[int, str]]) -> None:
    code, message = doctor("--data.max_length", "60")
    assert (code, message.splitlines()[-1]) == (1, "1 fault found")
    assert "too long" in message
    code, message = doctor("--data.max_length=60", "--data.skip_too_long", "true")
    assert code == 1
    assert "nothing to train on" in message
    leaky = "tests.cli.commands.test_doctor.Leaky"
    assert "1 fault found" in doctor("--allow_contamination", source=leaky)[1]
    assert "23 training" in doctor("--data.skip_contaminated", "true", "--data.similarity", "1", source=leaky)[1]


def test_pairs_are_checked(doctor: Callable[..., tuple[int, str]], tiny_rollouts: Path) -> None:
    code, message = doctor("--data.rollouts", f'["{tiny_rollouts}"]', config="configs/hsdpo.yaml")
    assert code == 0, message
    assert {"chosen", "rejected"} <= {line.split()[0] for line in message.splitlines() if line}


@pytest.mark.slow
def test_missing_inputs_are_built_but_not_the_fit(capfd: pytest.CaptureFixture[str]) -> None:
    part = "data: {init_args: {source: {init_args: {parts: [home]}}}}"
    Path("small.yaml").write_text(f"recipe: {{vocabulary: 300, max_length: 1024}}\n{part}\n")
    assert main(["doctor", "--config", "configs/rsft.yaml", "--config", "small.yaml"]) == 0
    message = capfd.readouterr().out
    assert "building checkpoints/base (missing): python -m guardreasoner base-model" in message
    assert {path.name for path in Path("checkpoints").iterdir()} == {"base"}
    assert not Path("logs").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "error: doctor: required: -c/--config"),
        (("--config", "absent.yaml"), "error: --config absent.yaml: no such file"),
        (
            ("--config", "configs/rsft.yaml", "--htlm", "x"),
            "error: doctor: unknown option --htlm\nhint: did you mean --html",
        ),
        (("--config", "configs/rsft.yaml", "--json", "."), "error: --json .: "),
        (("--config", "configs/rsft.yaml", "--auto_build", "false"), "error: checkpoints/base is missing"),
    ],
)
def test_a_user_error_is_one_line(words: tuple[str, ...], error: str, refused: Refused) -> None:
    assert refused("doctor", *words).startswith(error)


def test_unknown_keys_and_configs_without_training_data_are_rejected(tiny_base: Path, refused: Refused) -> None:
    base = ("--auto_build", "false", "--model.backbone.path", str(tiny_base))
    message = refused("doctor", "--config", "configs/rsft.yaml", *base, "--data.max_lenght", "3")
    assert "max_lenght" in message
    assert "did you mean 'max_length'?" in message
    Path("test.yaml").write_text(
        "model: {class_path: guardreasoner.evaluation.guard_module.GuardModule}\n"
        "data: {class_path: guardreasoner.evaluation.benchmark_data.BenchmarkDataModule}\n"
    )
    source = ("--data.source", "tests.support.tiny.TinySource")
    assert "BenchmarkDataModule" in refused("doctor", "--config", "test.yaml", *base, *source)


def test_a_fit_without_targets_is_refused_before_anything_is_built(refused: Refused) -> None:
    message = refused("doctor", "--config", "configs/grpo.yaml")
    assert message.startswith("error: doctor: PromptDataModule has no targets to check\nhint: check configs/rsft.yaml")
    assert not Path("checkpoints").exists()


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from guardreasoner.cli.main import main\n"
        "try:\n main(['doctor', '--help'])\nfinally:\n print(*sys.modules, file=sys.stderr)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 3
    assert not {"torch", "lightning", "transformers", "matplotlib", "jinja2", "rich"} & set(done.stderr.split())
    assert "--html" in done.stdout


@pytest.mark.slow
def test_ids_without_an_embedding_are_a_fault(
    doctor: Callable[..., tuple[int, str]], tiny_base: Path, tmp_path: Path, refused: Refused
) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "grown"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.save_pretrained(folder)
    code, message = doctor("--model.backbone.path", str(folder))
    assert (code, message.splitlines()[-1]) == (1, "1 fault found")
    assert "ids beyond the embedding" in message
    assert "300 <|im_end|>" in message
    fit = ["fit", "--config", "configs/rsft.yaml", "--auto_build", "false", "--data.source", TINY, "--output", "made"]
    assert "no embedding for, first 300 (<|im_end|>)" in refused(*fit, "--model.backbone.path", str(folder))
