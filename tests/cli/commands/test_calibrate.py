"""``calibrate`` from validation predictions to the model folder, and ``score --calibrated`` with what it stored."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from guardreasoner.cli.commands import calibrate
from guardreasoner.cli.main import main
from guardreasoner.evaluation.calibration.stored import stored_calibrations
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.tasks import GUARD_TASKS, write_tasks
from guardreasoner.workflow.integrity import changed_files
from guardreasoner.workflow.manifest import Manifest, content_hash
from guardreasoner.workflow.output_lock import locked_output
from tests.support.labelled_predictions import SEVERITY, labelled_predictions
from tests.support.output_files import predictions
from tests.support.scored_predictions import model_folder, random_scores, record_test, scored_predictions

FLAGS = ("--task", "request", "--fpr", "0.05")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(name: str, split: str | None = "validation", n: int = 400, seed: int = 0) -> Path:
    """Write predictions with direct scores by the model "m"."""
    if not Path("m").exists():
        model_folder(Path("m"))
    gold, scores = random_scores(n, seed)
    folder = scored_predictions(Path(name), gold, {"direct": scores})
    record_test(folder, Path("m"), split)
    return folder


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail with one line and at most one hint; return both."""
    before = content_hash("m") if Path("m").exists() else ""
    capsys.readouterr()
    assert main(list(argv)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 2
    assert not Path("m").exists() or content_hash("m") == before
    return error


def test_a_calibration_is_stored_with_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    before = content_hash("m")
    assert main(["calibrate", "val", *FLAGS]) == 0
    shown = capsys.readouterr().out
    for text in ("wanted 5 %", "expected", "95 % interval", "recall", "review: score from", "written: m/guard.json"):
        assert text in shown
    stored = json.loads(Path("m/guard.json").read_text())
    assert stored["format"] == {"opening": None}
    (row,) = stored["calibration"]["request"]
    assert {"score", "curve", "threshold", "fpr", "expected", "interval", "bands", "data", "records"} <= set(row)
    assert (row["score"], row["curve"]["kind"], row["fpr"], row["records"]) == ("direct", "platt", 0.05, 400)
    assert row["data"] == content_hash("val")
    assert row["command"] == ["calibrate", "val", *FLAGS]
    assert row["expected"] <= 0.05
    # the model is the same one: no warning, and nothing that was made from it is out of date
    assert list(changed_files("m")) == []
    assert content_hash("m") == before == Manifest.read("m").content  # type: ignore[union-attr]
    assert main(["calibrate", "val", "--task", "request", "--fpr", "0.1", "--curve", "isotonic"]) == 0
    assert "replaces the calibration of request by direct scores from 20" in capsys.readouterr().out
    (calibration,) = stored_calibrations(Path("m"))
    assert calibration.false_positive_rate == 0.1


def test_each_kind_of_score_has_its_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    gold, scores = random_scores(400, 1)
    record_test(scored_predictions(Path("slow"), gold, {"reasoned": scores}), Path("m"), "validation")
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert main(["calibrate", "slow", *FLAGS]) == 0
    assert "replaces" not in capsys.readouterr().out
    assert [one.score for one in stored_calibrations(Path("m"))] == ["direct", "reasoned"]
    assert main(["lineage", "m", "--json"]) == 0
    (tree,) = json.loads(capsys.readouterr().out)["trees"]
    assert [one["run"] for one in tree["calibrations"]["request"]] == ["val", "slow"]
    assert [one["path"] for one in tree["inputs"]][-2:] == ["val", "slow"]
    make_run("test", "test", seed=2)
    record_test(scored_predictions(Path("slow-test"), gold, {"reasoned": scores}), Path("m"), "test")
    for run, kind in (("test", "direct"), ("slow-test", "reasoned")):
        assert main(["score", run, "--calibrated", "--json", "scores.json"]) == 0
        (row,) = json.loads(Path("scores.json").read_text())["calibrated"][run].values()
        assert list(row["request"]) == [kind]
    record_test(scored_predictions(Path("votes"), gold, {"votes": scores}), Path("m"), "test")
    assert "no direct or reasoned score for request, which is calibrated" in failure(
        capsys, "score", "votes", "--calibrated"
    )


def test_a_calibration_of_an_earlier_version_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    assert main(["calibrate", "val", *FLAGS]) == 0
    stored = json.loads(Path("m/guard.json").read_text())
    (stored["calibration"]["request"],) = stored["calibration"]["request"]
    Path("m/guard.json").write_text(json.dumps(stored, indent=1) + "\n")
    (calibration,) = stored_calibrations(Path("m"))
    assert calibration.score == "direct"
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert "replaces the calibration" in capsys.readouterr().out
    assert len(stored_calibrations(Path("m"))) == 1


def test_lineage_shows_the_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    assert main(["calibrate", "val", *FLAGS]) == 0
    capsys.readouterr()
    assert main(["lineage", "m"]) == 0
    model, run, *_ = capsys.readouterr().out.splitlines()
    assert "calibrated request (direct scores) 20" in model
    assert "val  unchanged" in run
    assert main(["lineage", "m", "--json"]) == 0
    (tree,) = json.loads(capsys.readouterr().out)["trees"]
    (calibrated,) = tree["calibrations"]["request"]
    assert calibrated["command"] == ["calibrate", "val", *FLAGS]
    assert calibrated["data"] == content_hash("val")
    (Path("val") / "held-out" / "generated_predictions.jsonl").write_text("")
    assert main(["lineage", "m"]) == 1
    assert "val  changed by hand" in capsys.readouterr().out


def test_a_test_is_scored_at_the_calibrated_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val", n=600)
    make_run("test", "test", n=600, seed=1)
    assert main(["calibrate", "val", *FLAGS]) == 0
    capsys.readouterr()
    assert main(["score", "test", "--json", "a.json"]) == 0
    plain = capsys.readouterr().out
    assert main(["score", "test", "--calibrated", "--json", "b.json"]) == 0
    shown = capsys.readouterr().out
    assert "test: at the calibrated threshold" in shown
    assert plain.splitlines()[:10] == shown.splitlines()[:10]
    content = json.loads(Path("b.json").read_text())
    row = content.pop("calibrated")["test"]["held-out"]["request"]["direct"]
    assert content == json.loads(Path("a.json").read_text())
    low, high = row["expected_false_positive_rate_interval"]
    assert low <= row["false_positive_rate"] <= high
    assert low < 5 < high
    assert sum(row["bands"].values()) == pytest.approx(100)
    assert row["bands"]["unparsed"] == 0
    assert row["bands_of_positives"]["pass"] < 10
    # by hand
    gold, scores = random_scores(600, 1)
    (calibration,) = stored_calibrations(Path("m"))
    blocked = [label for label, score in zip(gold, scores, strict=True) if calibration.band(score) == "block"]
    assert row["recall"] == pytest.approx(100 * blocked.count("H") / gold.count("H"))
    assert row["false_positive_rate"] == pytest.approx(100 * blocked.count("U") / gold.count("U"))
    assert row["f1"] == pytest.approx(200 * blocked.count("H") / (gold.count("H") + len(blocked)))


def test_a_threshold_that_was_chosen_on_the_scored_predictions_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    make_run("test", "test", seed=1)
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert main(["calibrate", "val", *FLAGS, "--out", "threshold.json"]) == 0
    for calibration in (("--calibrated",), ("--calibration", "threshold.json")):
        for run, is_noted in (("val", True), ("test", False)):
            capsys.readouterr()
            assert main(["score", run, *calibration, "--resamples", "0"]) == 0
            note = "note: val: the threshold of request from direct scores was chosen on these predictions"
            assert (note in capsys.readouterr().out) == is_noted


@pytest.mark.parametrize("reading", ["strict", "loose"])
def test_figures_of_ordered_labels_name_their_reading(reading: str, capsys: pytest.CaptureFixture[str]) -> None:
    model_folder(Path("m"))
    gold, scores = random_scores(400, 0)
    columns = [
        {"scores": {"direct": {"response": {"safe": 1 - score, "controversial": 0.0, "unsafe": score}}}}
        for score in scores
        if score is not None
    ]
    answers = [("unsafe" if label == "H" else "safe", "unsafe") for label in gold]
    folder = labelled_predictions(Path("val"), SEVERITY, answers, columns=columns)
    record_test(folder, Path("m"), "validation")
    name = f"response ({reading})"
    assert main(["calibrate", "val", "--task", "response", "--fpr", "0.05", "--ordered", reading]) == 0
    assert capsys.readouterr().out.startswith(f"{name}, score direct: ")
    assert main(["score", "val", "--calibrated", "--resamples", "0", "--json", "s.json"]) == 0
    shown = capsys.readouterr().out
    assert name in shown.partition("at the calibrated threshold")[2].splitlines()[3]
    assert f"the threshold of {name} from direct scores" in shown
    assert list(json.loads(Path("s.json").read_text())["calibrated"]["val"]["held-out"]) == [name]


def test_other_records_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val", n=600)
    gold, scores = random_scores(300, 1)
    shifted = scored_predictions(Path("test"), gold, {"direct": [min(1.0, score + 0.4) for score in scores if score]})
    record_test(shifted, Path("m"), "test")
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert main(["score", "test", "--calibrated"]) == 0
    assert "is outside of the expected interval" in " ".join(capsys.readouterr().out.split())


def test_unscored_records_are_unparsed_and_never_pass(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    gold, scores = random_scores(300, 1)
    missing = [None if number % 3 == 0 else score for number, score in enumerate(scores)]
    record_test(scored_predictions(Path("test"), gold, {"direct": missing}), Path("m"), "test")
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert main(["score", "test", "--calibrated", "--json", "s.json"]) == 0
    row = json.loads(Path("s.json").read_text())["calibrated"]["test"]["held-out"]["request"]["direct"]
    assert row["bands"]["unparsed"] == pytest.approx(100 / 3)
    assert row["false_positive_rate"] > 25


@pytest.mark.parametrize("speed", [{}, {"speed": "direct"}])
def test_an_output_without_a_verdict_is_unparsed_whatever_its_scores(
    speed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(folder: Path) -> None:
        """Replace each twentieth output by text without a verdict, with the score of a harmless record."""
        file = folder / "held-out" / "generated_predictions.jsonl"
        rows = [json.loads(line) | speed for line in file.read_text().splitlines()]
        for row in rows[::20]:
            harmless = {"request": {"harmful": 0.001, "unharmful": 0.999}}
            row |= {"predict": "garbage", "scores": {"direct": harmless, "votes": harmless}}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    val, test = make_run("val"), make_run("test", "test", seed=1)
    for folder, split in ((val, "validation"), (test, "test")):
        spoil(folder)
        record_test(folder, Path("m"), split)
    assert main(["calibrate", "val", "--task", "request", "--fpr", "0.1", "--score", "direct"]) == 0
    assert "20 without a score" in capsys.readouterr().out
    assert main(["score", "test", "--calibrated", "--json", "s.json"]) == 0
    content = json.loads(Path("s.json").read_text())
    assert content["calibrated"]["test"]["held-out"]["request"]["direct"]["bands"]["unparsed"] == 5
    assert read_predictions("test").scores["votes"]["0"]["request"]["harmful"] == 0.001  # shares of other outputs


def test_a_killed_calibration_does_not_block_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    before = content_hash("m")
    left = Path("m/.guard.json.c9323d95.partial")
    left.write_text('{"form')
    assert content_hash("m") == before
    assert main(["lineage", "m"]) == 0
    assert "changed by hand" not in capsys.readouterr().out
    assert main(["calibrate", "val", *FLAGS]) == 0
    assert not left.exists()
    assert main(["score", "val", "--calibrated"]) == 0


def test_what_must_not_choose_a_threshold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name, split in (("test", "test"), ("default", None)):
        make_run(name, split)
        assert "predictions on the test split" in failure(capsys, "calibrate", name, *FLAGS)
        assert "predictions on the test split" in failure(capsys, "calibrate", name, *FLAGS, "--split", "validation")
    scored_predictions(Path("other"), *random_pair(400))
    assert "--split validation" in failure(capsys, "calibrate", "other", *FLAGS, "--model", "m")
    assert "--model FOLDER" in failure(capsys, "calibrate", "other", *FLAGS, "--split", "validation")
    assert main(["calibrate", "other", *FLAGS, "--split", "validation", "--model", "m"]) == 0
    assert "was not checked" in capsys.readouterr().out


def test_another_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    make_run("test", "test")
    model_folder(Path("n"))
    assert main(["calibrate", "val", *FLAGS, "--model", "n"]) == 0  # equal files: a copy
    (Path("n") / "model.safetensors").write_bytes(b"other")
    message = failure(capsys, "calibrate", "val", *FLAGS, "--model", "n")
    assert "the model in n is not the one that made these predictions" in message
    assert main(["calibrate", "val", *FLAGS]) == 0
    guard = Path("m/guard.json")
    guard.write_text(guard.read_text().replace('"threshold": 0.', '"threshold": 0.1'))
    assert "calibration of request: damaged" in failure(capsys, "score", "test", "--calibrated")
    (Path("m") / "model.safetensors").write_bytes(b"third")
    assert "the model in m is not the one that made them" in failure(capsys, "score", "test", "--calibrated")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--task", "request", "--fpr", "0.001"), "at least 999 are needed, found 2"),
        (("--task", "request", "--fpr", "0.05", "--miss_rate", "0.001"), "positive records: at least 999 are needed"),
        (("--task", "mood", "--fpr", "0.05"), "unknown task, expected one of request, completion, response"),
        (("--task", "response", "--fpr", "0.05"), "no prediction with a verdict has scores for response"),
        (("--task", "request", "--fpr", "0.05", "--score", "votes"), "no record has a votes score"),
        (("--task", "request", "--fpr", "1.5"), "between 0 and 1"),
        (("--task", "request", "--fpr", "nan"), "between 0 and 1"),
        (("--task", "request"), "--fpr"),
        (("--task", "request", "--fpr", "0.05", "--model", "absent"), "absent: no such model folder"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], problem: str) -> None:
    make_run("val")
    assert problem in failure(capsys, "calibrate", "val", *flags)


def test_a_model_that_another_command_writes_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "_WAIT", 0.3)
    make_run("val")
    before = Path("m/guard.json").read_bytes()
    with locked_output("m"):
        assert "m" in failure(capsys, "calibrate", "val", *FLAGS)
    assert Path("m/guard.json").read_bytes() == before


def test_a_calibration_waits_for_another_one_to_be_written() -> None:
    make_run("val")
    with ExitStack() as held:
        held.enter_context(locked_output("m"))
        release = Timer(1, held.close)
        release.start()
        assert main(["calibrate", "val", *FLAGS]) == 0
        release.join()
    assert list(json.loads(Path("m/guard.json").read_text())["calibration"]) == ["request"]


def test_another_folder_than_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    scored_predictions(Path("other"), *random_pair(400))
    Path("some").mkdir()
    for run, flags in (("val", ()), ("other", ("--split", "validation"))):
        assert "some: not a model folder" in failure(capsys, "calibrate", run, *FLAGS, *flags, "--model", "some")
    assert list(Path("some").iterdir()) == []


@pytest.mark.parametrize("rate", ["1e-300", "5e-324", "1e-10", "0.99999999999999994", "0", "1", "nan"])
def test_a_rate_that_no_records_can_show_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    for option in ("--fpr", "--miss_rate"):
        error = failure(capsys, "calibrate", "val", *FLAGS, option, rate)
        assert f"{option}: expected a share between 0 and 1" in error
        assert len(error) < 300


def test_attacked_records_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    scored_predictions(Path("val"), "UU", {"direct": [1.0, 1.0]}, benchmark="held-out@base64_text")
    file = Path("val/held-out@base64_text/generated_predictions.jsonl")
    file.write_text(
        file.read_text()
        .replace('"record_id": "0"', '"record_id": "0@base64_text"')
        .replace('"record_id": "1"', '"record_id": "1@base64_text"')
    )
    record_test(Path("val"), Path("m"), "validation")
    assert main(["calibrate", "val", *FLAGS]) == 0
    shown = capsys.readouterr().out
    assert "400 validation records" in shown
    assert "note: 2 attacked records are left out" in shown


def test_scores_are_chosen_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    gold, scores = random_scores(400, 0)
    votes = [round(4 * (score or 0)) / 4 for score in scores]
    model_folder(Path("m"))
    record_test(scored_predictions(Path("val"), gold, {"direct": scores, "votes": votes}), Path("m"), "validation")
    assert "--score KIND" in failure(capsys, "calibrate", "val", *FLAGS)
    assert main(["calibrate", "val", "--task", "request", "--fpr", "0.2", "--score", "votes"]) == 0
    assert "score votes" in capsys.readouterr().out
    constant = scored_predictions(Path("constant"), gold, {"direct": [0.5] * 400})
    record_test(constant, Path("m"), "validation")
    assert "the same direct score, 0.5" in failure(capsys, "calibrate", "constant", *FLAGS)


def test_a_calibration_can_be_a_file_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("val")
    make_run("test", "test", seed=1)
    before = Path("m/guard.json").read_bytes()
    for _ in range(2):  # its own file is replaced
        assert main(["calibrate", "val", *FLAGS, "--out", "c.json"]) == 0
    assert Path("m/guard.json").read_bytes() == before
    assert "no calibration" in failure(capsys, "score", "test", "--calibrated")
    assert main(["score", "test", "--calibration", "c.json"]) == 0
    assert "test: at the calibrated threshold" in capsys.readouterr().out
    Path("mine.json").write_text("{}")
    assert "would be replaced" in failure(capsys, "calibrate", "val", *FLAGS, "--out", "mine.json")
    predictions(Path("plain"), "HH UU")
    assert "no direct score for request" in failure(capsys, "score", "plain", "--calibration", "c.json")
    assert "no manifest names its model" in failure(capsys, "score", "plain", "--calibrated")


def random_pair(n: int) -> tuple[str, dict[str, list[float | None]]]:
    """Return gold labels, and direct scores."""
    gold, scores = random_scores(n, 0)
    return gold, {"direct": scores}


def test_a_task_whose_positive_label_does_not_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    model_folder(Path("m"))
    gold, scores = random_scores(400, 0)
    folder = scored_predictions(Path("val"), gold, {"direct": scores})
    write_tasks(folder, (replace(GUARD_TASKS[0], flags="others"), *GUARD_TASKS[1:]))
    record_test(folder, Path("m"), "validation")
    assert "which does not flag" in failure(capsys, "calibrate", "val", *FLAGS)
    assert "calibration" not in json.loads(Path("m/guard.json").read_text())
