"""``--engine`` of the verbs that use a guard: the same overlays as for sampling, with greedy decoding."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from tests.support.fake_server import FakeServer
from tests.support.guards import known_records
from tests.support.served import ask, served
from tests.support.tiny import make_tiny_adapter

pytestmark = pytest.mark.usefixtures("workplace")

HARMFUL = known_records()[0]
ANSWER = "So.\n\nAnswers:\nRequest: harmful\nCompletion: None\nResponse: None"


def judged(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, object]]:
    code = main(["judge", HARMFUL.prompt, "--json", *argv])
    return code, json.loads(capsys.readouterr().out)


def test_another_local_engine_answers_the_same(both_speeds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", str(both_speeds), "--speed", "reasoned")
    _, local = judged(capsys, *model)
    for engine in ("local", "plain", "configs/engine/plain.yaml"):
        code, answer = judged(capsys, *model, "--engine", engine)
        assert code == 1
        assert (answer["completion"], answer["flagged"]) == (local["completion"], local["flagged"])


def test_a_server_answers_greedily(
    both_speeds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(say=lambda prompt, times: ANSWER) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        code, answer = judged(capsys, "--model", str(both_speeds), "--engine", "server")
        assert (code, answer["completion"]) == (1, ANSWER)
        Path("log.jsonl").write_text(json.dumps({"prompt": HARMFUL.prompt}) + "\n")
        argv = ["log.jsonl", "--out", "out.jsonl", "--model", str(both_speeds), "--engine", "server"]
        assert main(["moderate", *argv]) == 0
        assert json.loads(Path("out.jsonl").read_text())["flagged"] is True
    assert [body["temperature"] for body in server.seen.bodies] == [0, 0]


@pytest.mark.parametrize("settings", ["temperature: null", "extra_body: {temperature: 1.0}"])
def test_a_server_that_may_sample_is_refused(
    settings: str, both_speeds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    Path("engine.yaml").write_text(
        "model:\n  init_args:\n    generator:\n      class_path: guardreasoner.ServerGenerator\n      init_args:\n"
        "        base_url: http://127.0.0.1:9/v1\n        model: m\n" + f"        {settings}\n"
    )
    assert main(["judge", HARMFUL.prompt, "--model", str(both_speeds), "--engine", "engine.yaml"]) == 2
    assert "samples or leaves the temperature to the server, but a guard answers" in capsys.readouterr().err


@pytest.mark.slow
def test_serve_asks_a_server(both_speeds: Path) -> None:
    with FakeServer(say=lambda prompt, times: ANSWER) as server:
        argv = ("guardreasoner", "serve", str(both_speeds), "--port", "0", "--engine", "server")
        with served(*argv, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="any") as (_, port):
            status, answer = ask(port, "How do I mend it?")
    assert (status, answer["completion"], answer["flagged"]) == (200, ANSWER, True)


@pytest.mark.slow
def test_serve_takes_the_base_model_of_an_adapter(both_speeds: Path, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(shutil.copytree(both_speeds, tmp_path / "base"), tmp_path / "adapter")
    moved = (tmp_path / "base").rename(tmp_path / "moved")
    argv = ("guardreasoner", "serve", str(adapter), "--port", "0", "--speed", "direct", "--base_path", str(moved))
    with served(*argv) as (_, port):  # it listens when the model is loaded
        assert port > 0


@pytest.mark.slow
def test_moderate_takes_the_base_model_of_an_adapter(both_speeds: Path, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(shutil.copytree(both_speeds, tmp_path / "base"), tmp_path / "adapter")
    moved = (tmp_path / "base").rename(tmp_path / "moved")
    Path("log.jsonl").write_text(json.dumps({"prompt": HARMFUL.prompt}) + "\n")
    argv = ["log.jsonl", "--out", "out.jsonl", "--model", str(adapter), "--speed", "direct"]
    assert main(["moderate", *argv]) == 2
    assert main(["moderate", *argv, "--base_path", str(moved)]) == 0
    assert Path("out.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("vlm", None, "--engine vlm: no such file"),
        ("my.yaml", "model: {init_args: {k: 2}}", "--engine my.yaml: has no model.init_args.generator"),
        ("my.yaml", "{generator: guardreasoner.LocalGenerator, init_args: {temperatur: 0}}", "temperatur"),
        (
            "my.yaml",
            "{generator: guardreasoner.LocalGenerator, init_args: {temperature: 0.7}}",
            "my.yaml: samples or leaves the temperature",
        ),
        ("my.yaml", "{generator: guardreasoner.NoSuchEngine}", "NoSuchEngine"),
    ],
)
def test_what_is_no_engine_is_refused(
    name: str, content: str | None, told: str, both_speeds: Path, refused: Callable[..., str]
) -> None:
    if content is not None:
        content = content.replace("{generator: ", "model: {init_args: {generator: {class_path: ")
        Path(name).write_text(content + "}}" * content.startswith("model: {init_args: {generator"))
    message = refused("judge", "text", "--model", str(both_speeds), "--engine", name)
    assert told in message
