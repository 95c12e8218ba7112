"""``moderate`` through the command: rows, resuming, faults, the labelling loop and drift."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.commands.moderate import EXIT_DRIFT
from guardreasoner.cli.main import main
from guardreasoner.review.labelling import read_queue
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from guardreasoner.sources.files import Files
from guardreasoner.workflow.guard_file import GUARD_FILE, write_calibration
from tests.support.guards import calibration, known_records
from tests.support.tiny import make_tiny_adapter

Start = Callable[..., str]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def logs(workplace: Path) -> Path:
    """Eight conversations that the tiny guard judges right, without labels."""
    records = known_records()
    rows = [{"id": record.id, "prompt": record.prompt, "response": record.response} for record in records]
    return write(Path("logs.jsonl"), *rows)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def moderate(base: Path, *more: str, out: str = "out.jsonl") -> tuple[str, ...]:
    return ("moderate", *more, "--out", out, "--model", str(base), "--speed", "direct")


def test_every_conversation_has_a_row_in_order(logs: Path, both_speeds: Path, start: Start) -> None:
    shown = start(*moderate(both_speeds, "logs.jsonl", "--top", "2", "--json", "summary.json", "--texts"))
    rows, given = read("out.jsonl"), read("logs.jsonl")
    gold = {record.id: record.labels for record in known_records()}
    assert all(row["tasks"]["request"]["verdict"] == gold[row["id"]]["request"] for row in rows)
    assert [row["flagged"] for row in rows] == [gold[row["id"]]["request"] == "harmful" for row in rows]
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in given]
    assert rows[0]["row"] == "logs.jsonl:1"
    assert set(rows[0]["tasks"]) == {"request", "completion", "response"}
    assert "8 conversations: " in shown
    summary = json.loads(Path("summary.json").read_text())
    assert summary["rows"] == 8
    assert summary["flagged"] == sum(row["flagged"] for row in rows)
    assert not list(Path.cwd().glob(".*"))


def test_all_formats_and_stdin_are_judged_alike(
    logs: Path, both_speeds: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = next(record for record in known_records() if record.response)
    prompt, response = known.prompt, known.response
    conversation = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    reply = {"id": "chatcmpl-1", "choices": [{"message": conversation[1]}]}
    write(Path("plain.jsonl"), {"prompt": prompt, "response": response})
    write(Path("messages.jsonl"), {"messages": conversation})
    write(Path("wrapped.jsonl"), {"request": {"messages": conversation[:1]}, "response": reply})
    write(Path("beside.jsonl"), {"messages": conversation[:1], "response": reply})
    Path("table.csv").write_text(f'question,answer\n"{prompt}","{response}"\n')
    Path("packed.jsonl.gz").write_bytes(gzip.compress(Path("plain.jsonl").read_bytes()))
    start(*moderate(both_speeds, "plain.jsonl", "messages.jsonl", "wrapped.jsonl", "beside.jsonl", "packed.jsonl.gz"))
    rows = read("out.jsonl")
    assert [row["id"] for row in rows[2:4]] == ["chatcmpl-1", "chatcmpl-1"]
    assert {row["content"] for row in rows} == {rows[0]["content"]}
    start(*moderate(both_speeds, "table.csv", "--columns", "prompt=question", "response=answer", out="table.jsonl"))
    assert read("table.jsonl")[0]["content"] == rows[0]["content"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("plain.jsonl").read_bytes())))
    start(*moderate(both_speeds, "-", out="piped.jsonl"))
    assert read("piped.jsonl")[0] | {"id": ""} == rows[0] | {"id": "", "row": "stdin:1"}
    assert not list(Path.cwd().glob(".*"))


@pytest.mark.slow
def test_kills_end_in_the_same_bytes(both_speeds: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.support.moderate_kills", str(both_speeds), str(tmp_path), "3"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("3 killed")


def test_an_unfinished_run_with_other_settings_is_refused_by_name(
    logs: Path, both_speeds: Path, start: Start, refused: Start
) -> None:
    partial = Path(".out.jsonl.partial")
    start(*moderate(both_speeds, "logs.jsonl", "--chunk", "5"))
    whole = Path("out.jsonl").read_bytes()
    partial.mkdir()
    start(*moderate(both_speeds, "logs.jsonl", "--chunk", "5"))  # an empty folder is a new run
    (partial).mkdir()
    (partial / "settings.json").write_text('{"chunk": 7}')
    said = refused(*moderate(both_speeds, "logs.jsonl", "--chunk", "5"))
    assert "out.jsonl: an unfinished run has another chunk: 7, now 5" in said
    (partial / "settings.json").write_text(json.dumps({"model": {"path": str(both_speeds)}}))
    said = refused(*moderate(both_speeds, "logs.jsonl", "--chunk", "5"))
    assert "has another model: content: null, now" in said  # of a setting with parts, the part that differs
    assert Path("out.jsonl").read_bytes() == whole


def test_an_unfinished_run_with_other_weights_or_another_engine_is_refused(
    logs: Path, tiny_base: Path, refused: Start
) -> None:
    engine = Path("engine.yaml")
    plain = "model: {init_args: {generator: {class_path: guardreasoner.PlainGenerator, init_args: %s}}}"
    engine.write_text(plain % "{max_new_tokens: 8, temperature: 0}")
    row = {"id": "a", "row": "a:1", "content": "0", "flagged": False, "unparsed": False, "speed": None, "tasks": {}}
    write(Path("week.jsonl"), row)
    argv = moderate(tiny_base, "logs.jsonl", "--engine", "engine.yaml")
    assert "has no answers" in refused(*argv, "--reference", "week.jsonl")  # after the rows are committed
    engine.write_text(plain % "{max_new_tokens: 9, temperature: 0}")
    assert "has another model: engine settings: max_new_tokens: 8, now 9" in refused(*argv)
    engine.write_text(plain % "{max_new_tokens: 8, temperature: 0}")
    assert 'has another model: quantization: null, now "4bit"' in refused(*argv, "--quantization", "4bit")
    both = moderate(tiny_base, "logs.jsonl", "--second", str(tiny_base), "--engine", "engine.yaml", out="both.jsonl")
    assert "has no answers" in refused(*both, "--reference", "week.jsonl")
    said = refused(*both, "--second_quantization", "4bit")
    assert 'has another second model: quantization: null, now "4bit"' in said


def test_what_is_not_read_is_named(logs: Path, both_speeds: Path, start: Start) -> None:
    write(logs, {"id": "a", "prompt": "How do I mend a chair?", "respnse": "With glue.", "created": 5})
    assert "columns that are not read: respnse, created" in start(*moderate(both_speeds, "logs.jsonl"))
    write(logs, {"request": {"messages": [{"role": "user", "content": "Hello"}]}, "response": None})
    assert "not read" not in start(*moderate(both_speeds, "logs.jsonl", out="chat.jsonl"))


def test_an_output_that_a_pattern_matches_is_refused_and_a_link_is_replaced(
    logs: Path, both_speeds: Path, start: Start, refused: Start
) -> None:
    start(*moderate(both_speeds, "logs.jsonl"))
    assert "--out out.jsonl: is one of the logs" in refused(*moderate(both_speeds, "*.jsonl"))
    Path("elsewhere.jsonl").touch()
    Path("link.jsonl").symlink_to("elsewhere.jsonl")
    start(*moderate(both_speeds, "logs.jsonl", out="link.jsonl"))
    assert Path("link.jsonl").read_bytes() == Path("out.jsonl").read_bytes()
    assert Path("elsewhere.jsonl").read_bytes() == b""


def test_faulty_rows_are_refused_or_put_into_quarantine(
    logs: Path, both_speeds: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    with logs.open("a") as file:
        file.write('{"prompt": 5}\nno json\n{"messages": [], "response": {"choices": []}}\n')
    assert main(list(moderate(both_speeds, "logs.jsonl"))) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "logs.jsonl:9: prompt: found a number (5), expected text"
    assert "3 of 11 rows are faulty, nothing was started" in said[-2]
    assert not Path("out.jsonl").exists()
    shown = start(*moderate(both_speeds, "logs.jsonl", "--quarantine", "bad"))
    assert "3 rows are in quarantine: bad" in shown
    assert len(read("out.jsonl")) == 8
    assert len(Path("bad/logs.jsonl").read_text().splitlines()) == 3


def test_what_is_too_long_is_flagged_and_says_why(logs: Path, both_speeds: Path, start: Start) -> None:
    write(logs, {"id": "long", "prompt": "mend the chair " * 500}, {"id": "short", "prompt": known_records()[0].prompt})
    shown = start(*moderate(both_speeds, "logs.jsonl"))
    long, short = read("out.jsonl")
    assert "tokens" in long["error"]
    assert long["flagged"]
    assert long["unparsed"]
    assert "error" not in short
    assert "1 could not be judged" in shown


def test_from_logs_to_labels_that_train(
    logs: Path, both_speeds: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = start(
        *moderate(
            both_speeds, "logs.jsonl", "--to_review", "queue.jsonl", "--review_size", "6", "--random_share", "0.5"
        )
    )
    assert "6 conversations to label" in shown
    assert "6 random" in shown
    assert "next:" not in shown
    file = RatingsFile(Path("ann.jsonl"))
    session = Session(read_queue(Path("queue.jsonl")), file, "ann")
    gold = {record.id: record.labels for record in known_records()}
    for item in session.review_set.items[:5]:
        session.rate(item, {}, labels=dict(gold[item.record.id]))
    session.skip(session.review_set.items[5])
    file.close()
    summary = ("review", "--label", "queue.jsonl", "--summary", "ann.jsonl", "--records", "labels.jsonl")
    said = start(*summary)
    assert "next:" not in said
    assert "5 records for training" in said
    assert "without a label: 1 conversation" in said
    labelled = list(Files(train="labels.jsonl").records("train"))
    assert {record.id: record.gold() for record in labelled} == {
        item.record.id: {name: label for name, label in gold[item.record.id].items() if label is not None}
        for item in session.review_set.items[:5]
    }
    fit = ("fit", "--config", "configs/rsft.yaml", "--model.backbone.path", str(both_speeds), "--auto_build", "false")
    data = ("--data.source", "{class_path: guardreasoner.Files, init_args: {train: labels.jsonl}}")
    quiet = ("--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "1")
    start(*fit, *data, *quiet, "--output", "retrained", "--allow_contamination", "true")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    main(list(summary))
    at_a_terminal = capsys.readouterr()
    assert (at_a_terminal.out, "next: python -m guardreasoner fit" in at_a_terminal.err) == (said, True)


def test_drift_against_an_earlier_run_decides_the_exit_code(logs: Path, both_speeds: Path, start: Start) -> None:
    start(*moderate(both_speeds, "logs.jsonl", out="before.jsonl"))
    command = [*moderate(both_speeds, "logs.jsonl", "--reference", "before.jsonl", "--drift_threshold", "0.25")]
    assert "PSI 0.000" in start(*command)
    rows = read("before.jsonl")
    for row in rows:
        row["tasks"]["request"] |= {"score": 0.4}
    write(Path("before.jsonl"), *rows)
    assert main(command) == EXIT_DRIFT
    assert Path("out.jsonl").exists()


def test_a_task_that_the_reference_has_alone_counts_as_drift(
    logs: Path, both_speeds: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start(*moderate(both_speeds, "logs.jsonl", out="before.jsonl"))
    write(Path("renamed.jsonl"), *({**row, "response": None} for row in read("logs.jsonl")))
    command = moderate(both_speeds, "renamed.jsonl", "--reference", "before.jsonl", "--drift_threshold", "100")
    assert main([*command]) == EXIT_DRIFT
    assert "drift of response not measured: before.jsonl has scores of it" in capsys.readouterr().out


def test_drift_that_is_not_measured_says_why(logs: Path, both_speeds: Path, start: Start) -> None:
    folder = Path(shutil.copytree(both_speeds, "calibrated"))
    write_calibration(folder / GUARD_FILE, "request", calibration("request", "reasoned", 0.5, 0.25).as_json())
    shown = start(*moderate(folder, "logs.jsonl"))
    why = "drift of request not measured: the calibration is of reasoned scores, the answers are direct"
    assert shown.count("drift") == 1
    assert why in shown
    write_calibration(folder / GUARD_FILE, "request", calibration("request", "direct", 0.5, 0.25).as_json())
    shown = start(*moderate(folder, "logs.jsonl", out="again.jsonl"))
    assert "drift of request not measured: the calibration of direct scores has no histogram" in shown
    write_calibration(folder / GUARD_FILE, "response", calibration("response", "direct", 0.5, 0.25).as_json())
    write(Path("prompts.jsonl"), {"prompt": "How do I open a lock?"})
    shown = start(*moderate(folder, "prompts.jsonl", out="prompts-judged.jsonl"))
    assert "drift of response not measured: it was asked of no conversation" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("nothing.jsonl",), "nothing.jsonl: no such file"),
        (("logs.jsonl", "logs.jsonl"), "logs.jsonl: given twice"),
        (("*.csv",), "no file matches *.csv"),
        (("logs.jsonl", "--columns", "text=prompt"), "--columns: expected prompt=COLUMN"),
        (("logs.jsonl", "--policy", "Be good."), "policy: given, but no task of the guard uses one"),
        (("logs.jsonl", "--drift_threshold", "0.2"), "no calibration of direct answers with a score histogram"),
        (("logs.jsonl", "--reference", "none.jsonl"), "none.jsonl: no such file"),
        (("logs.jsonl", "--second_speed", "direct"), "--second_speed: direct, which is the speed of the first answers"),
        (("logs.jsonl", "--second_base_path", "base"), "--second_base_path: there is no second model"),
        (("logs.jsonl", "--second_quantization", "4bit"), "--second_quantization: there is no second model"),
        (("logs.jsonl", "--chunk", "0"), "expected a whole number from 1"),
        (("logs.jsonl", "--random_share", "2"), "expected a share from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(
    logs: Path, both_speeds: Path, refused: Start, more: tuple[str, ...], message: str
) -> None:
    assert message in refused(*moderate(both_speeds, *more))
    assert not Path("out.jsonl").exists()


def test_a_file_of_the_user_is_not_replaced(logs: Path, both_speeds: Path, refused: Start) -> None:
    kept = logs.read_bytes()
    assert "is one of the logs" in refused(*moderate(both_speeds, "logs.jsonl", out="logs.jsonl"))
    Path("notes.jsonl").write_text("my notes\n")
    assert "was not written by this option" in refused(*moderate(both_speeds, "logs.jsonl", out="notes.jsonl"))
    assert logs.read_bytes() == kept


@pytest.mark.slow
def test_the_second_model_can_be_an_adapter_of_a_base_that_was_moved(
    logs: Path, both_speeds: Path, start: Start, tmp_path: Path
) -> None:
    adapter = make_tiny_adapter(shutil.copytree(both_speeds, tmp_path / "base"), tmp_path / "adapter")
    moved = (tmp_path / "base").rename(tmp_path / "moved")
    second = ("--second", str(adapter), "--second_base_path", str(moved))
    assert "second answers: " in start(*moderate(both_speeds, "logs.jsonl", *second))


def test_a_quarantine_around_a_log_or_an_output_is_refused(
    logs: Path, both_speeds: Path, start: Start, refused: Start
) -> None:
    with logs.open("a") as file:
        file.write('{"prompt": 5}\n')
    start(*moderate(both_speeds, "logs.jsonl", "--quarantine", "bad"))
    corrected = write(Path("bad/logs.jsonl"), {"prompt": "Hi"}, {"prompt": 5}).read_bytes()
    assert "--quarantine bad" in refused(*moderate(both_speeds, "bad/logs.jsonl", "--quarantine", "bad", out="2.jsonl"))
    assert Path("bad/logs.jsonl").read_bytes() == corrected
    assert "--quarantine bad" in refused(*moderate(both_speeds, "logs.jsonl", "--quarantine", "bad", out="bad/o.jsonl"))


@pytest.mark.parametrize("share", ["0", "0.0", "1"])
def test_the_random_share_may_be_nothing_or_all(logs: Path, both_speeds: Path, start: Start, share: str) -> None:
    start(*moderate(both_speeds, "logs.jsonl", "--to_review", "queue.jsonl", "--random_share", share))
    assert json.loads(Path("queue.jsonl").read_text().splitlines()[0])["random_share"] == float(share)


def test_two_answers_are_compared(logs: Path, both_speeds: Path, start: Start) -> None:
    shown = start(*moderate(both_speeds, "logs.jsonl", "--second_speed", "reasoned"))
    assert "second answers: 0 (0.0 %) differ in what they flag" in shown
    assert all(row["disagreement"] < 0.5 and row["second"]["flagged"] == row["flagged"] for row in read("out.jsonl"))
