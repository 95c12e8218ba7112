"""``card``: what the manifests and JSON files say, and "unknown" for what they do not."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from huggingface_hub import ModelCard

from guardreasoner.cli.main import main
from guardreasoner.evaluation.calibration import Calibration, Identity
from guardreasoner.records import write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.workflow.guard_file import write_calibration
from guardreasoner.workflow.manifest import Manifest, content_hash, record_made
from tests.support.output_files import predictions
from tests.support.scored_predictions import record_test

SOURCES = [
    {"class_path": "guardreasoner.Aegis"},
    {"class_path": "guardreasoner.BeaverTails", "init_args": {"part": 1}},
    {"class_path": "mine.Odd|Class"},
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_model(folder: str = "m", allow_contamination: bool = False) -> Path:
    """Write a folder like that of a model that ``fit`` made from another one and from several data sets."""
    first, model = Path("first"), Path(folder)
    for path, module, inputs in ((first, "RSFTModule", {}), (model, "HSDPOModule", {"first": ""})):
        path.mkdir()
        (path / "model.safetensors").write_bytes(path.name.encode())
        config = {
            "recipe": {"skip_contaminated": True},
            "output": path.name,
            "seed_everything": 7,
            "model": {
                "class_path": f"guardreasoner.training.{module}",
                "init_args": {
                    "backbone": {"path": "org/base", "lora": {"r": 8}, "quantization": "4bit"},
                    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.0003}},
                },
            },
            "data": {"init_args": {"batch_size": 64, "epochs": 2}},
        }
        hashes = {name: content_hash(name) for name in inputs}
        concat = {"class_path": "guardreasoner.sources.concat.Concat", "init_args": {"sources": SOURCES}, "code": "x"}
        origins = [concat, {"hub": "org/base"}]
        Manifest.describe(path, ["fit"], "f", hashes, allow_contamination, config, origins).write(path)
    return model


def card(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["card", *argv]) == 0
    return capsys.readouterr().out


def test_a_card_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model()
    calibration = Calibration(
        *("request", "direct", Identity(), 0.75, 0.25, 0.01, 0.0125, (0.0, 0.035)),
        **{"negatives": 120, "false_positives": 1, "records": 240, "data": "d"},
    )
    write_calibration(model / "guard.json", "request", calibration.as_json())
    write_calibration(model / "guard.json", "response", replace(calibration, ordered="loose").as_json())
    predictions(Path("run"), "HH HU UU UH HH UU", benchmark="held|out")
    assert main(["score", "m=run", "--resamples", "50", "--json", "scores.json"]) == 0
    attack = {"family": "base64_text", "benchmark": "all", "task": "request", "n": 30, "before": 80.0, "after": 41.5}
    attack |= {"drop": 38.5, "drop_interval": [30.0, 47.0], "flipped": {}}
    Path("attacks.json").write_text(json.dumps({"model": "m", "families": [attack]}))
    text = card(capsys, "m", "--scores", "scores.json", "--robustness", "attacks.json")

    data = ModelCard(text).data
    assert data.base_model == "org/base"
    assert data.datasets == ["nvidia/Aegis-AI-Content-Safety-Dataset-1.0", "PKU-Alignment/BeaverTails"]
    numbers = json.loads(Path("scores.json").read_text())["models"]["m"]["benchmarks"]["held|out"]["request"]
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type) == ("held|out", "f1")
    assert result.metric_value == round(numbers["f1"], 2)
    assert result.metric_args == {"n": 6, "interval_95": [round(end, 2) for end in numbers["f1_interval"]]}

    for line in (
        "| Aegis 1.0 | CC BY 4.0 | https://huggingface.co/datasets/nvidia/Aegis-AI-Content-Safety-Dataset-1.0 |",
        "| BeaverTails | CC BY-NC 4.0 | https://huggingface.co/datasets/PKU-Alignment/BeaverTails |",
        r"| Odd\|Class | unknown | unknown |",
        "| stage | R-SFT | HS-DPO |",
        "| learning rate | 0.0003 | 0.0003 |",
        "| weights trained | LoRA, r 8, alpha 32 | LoRA, r 8, alpha 32 |",
        r"| request | direct | 0.75 | 0.25 | 1 | 1.25 \[0.00, 3.50\] | 120 of 240 |",
        r"| response (loose) | direct | 0.75 | 0.25 | 1 | 1.25 \[0.00, 3.50\] | 120 of 240 |",
        r"| base64\_text | all | request | 30 | 80.00 | 41.50 | 38.50 \[30.00, 47.00\] |",
    ):
        assert line in text.splitlines()
    assert r"| held\|out | request | 6 | " in text
    assert "\nPredictions m (run). Mode strict" in text
    assert "\nPredictions m. F1 of the positive class" in text
    assert "such records were left out" in text


def test_figures_name_their_predictions_and_must_be_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    model, run = make_model(), predictions(Path("logs/run"), "HH HU UU")
    rows = [row for _, row in read_jsonl(run / "held-out" / "generated_predictions.jsonl")]
    attacked = [row | {"record_id": f"{row['record_id']}@leetspeak"} for row in rows]
    write_jsonl(run / "held-out@leetspeak" / "generated_predictions.jsonl", attacked)
    record_test(run, model, "test")
    assert main(["score", str(run), "--resamples", "0", "--json", "scores.json"]) == 0
    assert main(["robustness", str(run), "--json", "attacks.json"]) == 0
    figures = {"--scores": "scores.json", "--robustness": "attacks.json"}
    copytree(model, "copy")
    Path("exported").mkdir()
    Path("exported", "model.safetensors").write_bytes(b"merged")
    record_made("exported", ["export", "m"], {"output": "exported", "model": {"path": "m"}}, ["m"])
    for folder in ("m", "copy", "exported"):
        text = card(capsys, folder, *(word for pair in figures.items() for word in pair))
        assert text.count("Predictions run (logs/run). ") == 2
    copytree(model, "other")
    Path("other", "model.safetensors").write_bytes(b"other")
    for option, file in figures.items():
        assert main(["card", "other", option, file]) == 2
        error = capsys.readouterr().err
        assert f"{file}: figures of another model than other: expected content {content_hash('other')[:16]}" in error
        assert len(error.splitlines()) == 2


def test_what_is_unknown_is_called_unknown(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = card(capsys, str(tiny_base), "--name", "A *new*\n<b>guard</b>")
    assert r"# A \*new\*␊\<b\>guard\</b\>" in text
    for says in (
        *("Unknown: the model has no manifest.", "Unknown: no manifest of a fit was found."),
        *("Unknown: no scores were given", "None: scores have no threshold yet", "Unknown: no results were given"),
    ):
        assert says in text
    assert ModelCard(text).data.eval_results is None
    assert "%" not in text


def test_contamination_that_was_allowed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    make_model(allow_contamination=True)
    assert "was allowed to train on records of its benchmarks" in card(capsys, "m")


def test_a_card_is_written_beside_the_folder_only(capsys: pytest.CaptureFixture[str]) -> None:
    make_model()
    before = content_hash("m")
    assert main(["card", "m", "--out", "card.md"]) == 0
    assert main(["card", "m", "--out", "card.md"]) == 0
    assert Path("card.md").read_text().startswith("---\nbase_model: org/base\n")
    Path("notes.md").write_text("my notes\n")
    capsys.readouterr()
    assert main(["card", "m", "--out", "notes.md"]) == 2
    assert "--out notes.md: the file was not written by this option" in capsys.readouterr().err
    own = "---\nlicense: apache-2.0\ntags:\n- guard\n---\n# Our guard\n- guardreasoner\n"
    Path("README.md").write_text(own)
    assert main(["card", "m", "--out", "README.md"]) == 2
    assert Path("README.md").read_text() == own
    capsys.readouterr()
    for argv, says in (
        (("m", "--out", "m/README.md"), "manifest"),
        (("nowhere",), "no such model folder"),
        (("m", "--scores", "two.json", "--name", "x"), "found a, b"),
        (("m", "--scores", "card.md"), "not valid JSON"),
    ):
        models = {name: {"benchmarks": {}} for name in ("a", "b")}
        Path("two.json").write_text(json.dumps({"mode": "strict", "models": models}))
        capsys.readouterr()
        assert main(["card", *argv]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) <= 2
    assert content_hash("m") == before
    Path("notes.md").write_text("mine")
    assert main(["card", "m", "--out", "notes.md"]) == 2
    assert Path("notes.md").read_text() == "mine"
