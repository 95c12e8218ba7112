"""The verb ``judge``: one conversation or a stream of them, and the exit code."""

import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from guardreasoner.cli.main import main
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import PromptFormat, answer_block
from guardreasoner.tasks import POLICY_TASKS
from guardreasoner.workflow.guard_file import GUARD_FILE
from tests.support.guards import known_records

HARMFUL, UNHARMFUL = (
    next(one for one in known_records() if one.response and one.labels["request"] == label)
    for label in ("harmful", "unharmful")
)


def send(monkeypatch: pytest.MonkeyPatch, data: str | bytes, is_terminal: bool = False) -> None:
    """Put data on stdin."""
    raw = io.BytesIO(data.encode() if isinstance(data, str) else data)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=raw, isatty=lambda: is_terminal))


def test_a_verdict_is_printed(both_speeds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", str(both_speeds))
    assert HARMFUL.response is not None
    assert UNHARMFUL.response is not None
    assert main(["judge", HARMFUL.prompt, "--response", HARMFUL.response, *model]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("flagged by: request, response\n  request     harmful, P(harmful) 0.9")
    assert "\n  completion  compliance, P(refusal) 0.0" in out
    assert "\n\nreasoning:\nThe user wants to" in out
    assert "million parameters shows how a guard works, but cannot be relied on" in err
    assert main(["judge", UNHARMFUL.prompt, "--response", UNHARMFUL.response, *model, "--speed", "direct"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("not flagged\n  request     unharmful, P(harmful) 0.0")
    assert "reasoning:" not in out


def test_messages_and_json(both_speeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chat.json"
    row = {
        "messages": [message.as_json() for message in HARMFUL.messages],
        "response": None,
        "policy": None,
        "model": "m",
    }
    file.write_text(json.dumps(row))
    assert main(["judge", "--messages", str(file), "--model", str(both_speeds), "--speed", "auto", "--json"]) == 1
    shown = capsys.readouterr()
    assert f"note: {file}: fields that are not read: model\n" in shown.err
    result = json.loads(shown.out)
    assert (result["flagged"], result["unparsed"], result["speed"]) == (True, False, "direct")
    assert result["tasks"]["request"]["verdict"] == "harmful"


def test_stdin_holds_one_text(
    both_speeds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(monkeypatch, HARMFUL.prompt + "\n")
    assert HARMFUL.response
    assert main(["judge", "--response", HARMFUL.response, "--model", str(both_speeds), "--speed", "direct"]) == 1
    assert capsys.readouterr().out.startswith("flagged by: request")


def test_each_line_of_stdin_gets_a_line(
    both_speeds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": 7, "prompt": UNHARMFUL.prompt, "response": UNHARMFUL.response},
        {"messages": [message.as_json() for message in HARMFUL.messages]},
    ]
    text = "\n\n".join(map(json.dumps, rows))
    model = ("--jsonl", "--model", str(both_speeds), "--speed", "direct")
    send(monkeypatch, text)
    assert main(["judge", *model]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one.get("id"), one["flagged"]) for one in answers] == [(7, False), (None, True)]

    send(monkeypatch, b"\n".join([b"{", b"[]", b'{"prompt": 4}', b'{"prompt": "\xff"}', json.dumps(rows[0]).encode()]))
    assert main(["judge", *model]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.get("line") for one in answers] == [1, 2, 3, 4, None]
    assert [one["error"].partition(": ")[0] for one in answers[:4]] == [f"stdin:{n}" for n in (1, 2, 3, 4)]
    assert answers[4]["flagged"] is False

    send(monkeypatch, "\n \n")
    assert main(["judge", *model]) == 2
    assert "stdin: found no conversation, expected a line of JSON for each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "stdin", "message"),
    [
        (("hi",), "", "checkpoints/hsdpo: no such model folder"),
        (("hi", "--model", "./none"), "", "./none: no such model folder"),
        (("hi", "--messages", "chat.json"), "", "--messages: given beside a text"),
        (("--messages", "none.json"), "", "none.json: cannot be read"),
        (("--messages", "chat.json"), "", "chat.json: not valid JSON"),
        (("--messages", "row.json"), "", "row.json: found response beside messages"),
        (("hi", "--jsonl"), "", "--jsonl reads conversations from stdin"),
        (("hi", "--policy", "none.txt"), "", "none.txt: cannot be read"),
        (("hi", "--speed", "fast"), "", "invalid choice: 'fast'"),
        ((), " \n", "stdin: found an empty text"),
        ((), b"\xff", "stdin: not valid UTF-8: byte 1"),
        ((), None, "judge: no text"),
    ],
)
def test_mistakes_are_one_line(
    flags: tuple[str, ...],
    stdin: str | bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chat.json").write_text("{")
    Path("row.json").write_text('{"messages": [{"role": "user", "content": "hi"}], "response": "no", "model": "x"}')
    send(monkeypatch, stdin or "", is_terminal=stdin is None)
    assert main(["judge", *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert [line.split(":")[0] for line in err.splitlines()] in (["error"], ["error", "hint"]), err
    if flags == ("hi",):
        assert "python -m guardreasoner fit --config configs/hsdpo.yaml" in err


def test_a_policy_needs_a_model_of_policies(both_speeds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "hi", "--policy", "No greetings.", "--model", str(both_speeds)]) == 2
    assert "policy: given, but both was not trained with policies" in capsys.readouterr().err


class NoQuestions(LocalGenerator):
    """A greedy engine that finds a violation if the policy is "No questions."."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, temperature=0.0)

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            policy, rule = ("violates", "rule 1") if "No questions." in request.text else ("complies", "no rule")
            answer = answer_block({"rule": rule, "policy": policy}, POLICY_TASKS)
            yield [Completion(request.record_id, 0, answer, completion_tokens=1)]


def test_a_line_is_judged_by_its_own_policy(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "policies")
    (folder / GUARD_FILE).write_text(json.dumps({"format": PromptFormat(POLICY_TASKS).as_json()}))
    engine = tmp_path / "engine.yaml"
    engine.write_text("model: {init_args: {generator: {class_path: tests.cli.commands.test_judge.NoQuestions}}}")
    send(monkeypatch, '{"prompt": "Why?"}\n{"prompt": "Why?", "policy": "1. No insults."}\n')
    flags = ("--model", str(folder), "--engine", str(engine), "--policy", "1. No questions.")
    code, shown = main(["judge", "--jsonl", *flags]), capsys.readouterr()
    assert code == 1, shown
    assert [json.loads(line)["flagged"] for line in shown.out.splitlines()] == [True, False]


class Failing(LocalGenerator):
    """A greedy engine that fails at a prompt with the word "fail"."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, temperature=0.0)

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        requests = list(requests)
        if any("fail" in request.text for request in requests):
            raise RuntimeError("a bug")
        return super().generate_groups(requests)


def test_a_guard_that_fails_is_no_verdict(
    both_speeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine.yaml"
    generator = "generator: {class_path: tests.cli.commands.test_judge.Failing}"
    engine.write_text(f"model: {{init_args: {{{generator}}}}}")
    flags = ("--model", str(both_speeds), "--engine", str(engine), "--speed", "reasoned")
    assert main(["judge", "please fail", *flags]) == 2  # 1 is the code of a flagged text
    send(monkeypatch, '{"prompt": "please fail"}\n{"prompt": "Hello", "respnse": "x"}\n{"prompt": "Hello"}\n')
    assert main(["judge", "--jsonl", *flags]) == 2
    failed, unknown, judged = map(json.loads, capsys.readouterr().out.splitlines())
    assert failed == {"line": 1, "error": "the guard failed: RuntimeError"}
    assert unknown["error"].startswith("stdin:2: unknown field 'respnse', expected prompt, ")
    assert "flagged" in judged


def test_overview_help_and_readme_say_which_flag_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    with suppress(SystemExit):
        main(["judge", "--help"])
    readme = (Path(__file__).parents[3] / "README.md").read_text().replace("`", "")
    for text in (overview, capsys.readouterr().out, readme):
        assert "or with --jsonl each line of stdin" in " ".join(text.split())
