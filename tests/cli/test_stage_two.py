"""Stage two from another tool's run, through the commands of docs/stage-two.md."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file

from guardreasoner.cli.main import main
from guardreasoner.records import read_rollouts
from tests.support.foreign_runs import HUB_NAME, LINEAR, axolotl, llama_factory, trl
from tests.support.tiny import command

TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"
SMALL = ("--recipe.max_new_tokens", "90", "--recipe.generation_batch_size", "32")


@pytest.fixture(scope="module")
def run(both_speeds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base without ``guard.json`` that answers in our format, and the folder of a LoRA run on it."""
    place = tmp_path_factory.mktemp("foreign")
    base = Path(shutil.copytree(both_speeds, place / "base"))
    (base / "guard.json").unlink()
    (base / "manifest.json").unlink(missing_ok=True)
    tokenizer = base / "tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"chat_template": TEMPLATE}))
    return base, llama_factory(base, place / "run", place / "unpickled", r=2, lora_alpha=1)


@pytest.fixture(autouse=True)
def _here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the project's configs, without access to a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def overlay(base: Path, format: str = "{opening: Judge.}") -> tuple[str, str]:
    """Write the overlay of the page; return its flag."""
    recipe = "recipe: {checkpoints: checkpoints/other, logs: logs/other}"
    model = f"model: {{init_args: {{backbone: {{base_path: {base}, format: {format}}}}}}}"
    Path("other.yaml").write_text(f"auto_build: false\n{recipe}\n{model}\n")
    return "--config", "other.yaml"


def stage(name: str, run: Path, *more: str) -> list[str]:
    return [*command(name, run, *more)]


def doctor(run: Path, *more: str) -> list[str]:
    data = ("--data.source", "tests.support.tiny.TinySource", "--data.source.train", "8")
    return ["doctor", "--config", "configs/rsft.yaml", *more, "--model.backbone.path", str(run), *data]


@pytest.mark.slow
def test_a_run_of_llama_factory_is_checked_mined_and_trained(
    run: tuple[Path, Path], start: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    base, folder = run
    message = start(*doctor(folder, *overlay(base)))
    assert "format not checked" in message
    message = start(*doctor(folder, *overlay(base), "--answers", "8", "--json", "doctor.json"))
    found = {one["name"]: one for one in json.loads(Path("doctor.json").read_text())["findings"]}
    assert found["answers not in the format"]["count"] <= 2, message
    assert found["another format fits better"]["severity"] == "ok"
    assert "format not checked" not in found

    asked = (*overlay(base), "--data.source.train", "24", *SMALL)
    start(*stage("mine", folder, *asked, "--output", "logs/other/rollouts/rsft"))
    assert len(list(read_rollouts("logs/other/rollouts/rsft/rollouts.jsonl"))) == 4 * 24
    start("pairs", "--rollouts", "logs/other/rollouts/rsft", "--out", "pairs.jsonl")
    assert Path("pairs.jsonl").read_text().count("\n") > 0
    rollouts = ("--data.rollouts", '["logs/other/rollouts/rsft"]')
    start(*stage("hsdpo", folder, *asked, *rollouts, "--output", "checkpoints/other/hsdpo"))
    made = json.loads(Path("checkpoints/other/hsdpo/adapter_config.json").read_text())
    assert made["base_model_name_or_path"] == str(base)
    assert json.loads(Path("checkpoints/other/hsdpo/guard.json").read_text())["format"]["opening"] == "Judge."
    tested = ("--data.rollouts", "null", *SMALL, "--output", "logs/other/predictions")
    start(*stage("evaluate", Path("checkpoints/other/hsdpo"), *tested))  # neither base nor format
    assert "request" in start("score", "logs/other/predictions").lower()
    assert not (folder.parent / "unpickled").exists()


@pytest.mark.slow
@pytest.mark.parametrize("write", [trl, axolotl])
def test_another_tools_run_is_trained_beside_a_frozen_second_adapter(
    write: Callable[..., Path], run: tuple[Path, Path], start: Callable[..., str], tmp_path: Path
) -> None:
    base = run[0]
    folder = write(base, tmp_path / "run", tmp_path / "unpickled", target_modules=LINEAR, r=2, lora_alpha=1)
    given = ("--model.backbone.base_path", str(base), "--model.backbone.format", "{opening: Judge.}")
    start(*doctor(folder, "--auto_build", "false", *given, "--answers", "8", "--json", "doctor.json"))
    found = {one["name"]: one for one in json.loads(Path("doctor.json").read_text())["findings"]}
    assert found["answers not in the format"]["count"] <= 2
    assert found["another format fits better"]["severity"] == "ok"

    start(*stage("mine", folder, *given, *SMALL, "--output", "rollouts"))
    assert len(list(read_rollouts("rollouts/rollouts.jsonl"))) == 4 * 24
    frozen = ("--model.reference", "guardreasoner.FrozenAdapter", "--data.rollouts", '["rollouts"]')
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    logger |= {"init_args": {"save_dir": "csv", "name": None, "version": 0}}  # type: ignore[dict-item]
    start(*stage("hsdpo", folder, *given, *frozen, "--trainer.logger", json.dumps(logger)))
    with Path("csv/version_0/metrics.csv").open() as file:
        margins = [float(row["train/margin"]) for row in csv.DictReader(file) if row["train/margin"]]
    assert margins[0] == 0  # the reference is this run, not the base model
    assert margins[-1] != 0
    assert not list(Path("made").glob("*/adapter_config.json"))  # the reference is not saved
    start_weights, end_weights = (load_file(place / "adapter_model.safetensors") for place in (folder, Path("made")))
    assert start_weights.keys() == end_weights.keys()
    assert not any(torch.equal(weight, end_weights[name]) for name, weight in start_weights.items())

    start(*stage("evaluate", Path("made"), "--data.rollouts", "null", *SMALL, "--output", "predictions"))
    assert "request" in start("score", "predictions").lower()
    assert not (tmp_path / "unpickled").exists()


def test_doctor_sees_the_wrong_format(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base, folder = run
    wrong = overlay(base, "{opening: Judge., chat_template: true}")
    code = main(doctor(folder, *wrong, "--answers", "8", "--json", "doctor.json"))
    message = capsys.readouterr()
    found = {one["name"]: one for one in json.loads(Path("doctor.json").read_text())["findings"]}
    assert found["another format fits better"]["severity"] == "warning", message
    assert "with chat_template: false" in found["another format fits better"]["message"]
    assert code == int(found["answers not in the format"]["severity"] == "fault")


def test_doctor_sees_a_model_that_is_no_guard(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    assert main(doctor(folder, *overlay(tiny_base), "--answers", "4")) == 1
    message = capsys.readouterr().out
    assert "answers not in the format" in message
    assert "4 of 4" in message


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ((), f"its base model is missing: {HUB_NAME}: no such folder here, and the hub cannot be reached"),
        (("--model.backbone.base_path", "absent"), "its base model is missing: absent: no such folder here"),
    ],
)
def test_a_missing_base_is_one_line(
    flags: tuple[str, ...], error: str, run: tuple[Path, Path], tiny_rollouts: Path, refused: Callable[..., str]
) -> None:
    words = stage("hsdpo", run[1], "--data.rollouts", f'["{tiny_rollouts}"]', "--data.max_length", "1000", *flags)
    message = refused(*words)
    assert error in message
    assert not Path("made").exists()


def test_an_adapter_of_an_unknown_format_is_not_exported(run: tuple[Path, Path], refused: Callable[..., str]) -> None:
    assert "an adapter without guard.json" in refused("export", str(run[1]), "--out", "exported")
    assert not Path("exported").exists()


class Hub(BaseHTTPRequestHandler):
    """A hub that refuses every file: models of ``gated`` need a licence, others do not exist."""

    def do_HEAD(self) -> None:
        """Answer as the hub does."""
        gated = self.path.startswith(("/gated/", "/api/models/gated/"))
        status = (403 if "Authorization" in self.headers else 401) if gated else 404
        self.send_response(status)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "token", "error"),
    [
        ("gated/model", "", "gated/model: a gated model, whose licence must be accepted first; no token was sent"),
        ("gated/model", "hf_x", "gated/model: a gated model, .*; the account of your token has no access yet"),
        ("nobody/model", "", "nobody/model: no such folder here, and no such model on the hub, or a private one"),
    ],
)
def test_what_the_hub_refuses_is_one_line(name: str, token: str, error: str, hub: str, tmp_path: Path) -> None:
    import re

    script = (
        "from guardreasoner.errors import InputError\n"
        "from guardreasoner.model.loading import load_network\n"
        f"try:\n load_network({name!r}, 'auto')\nexcept InputError as error:\n print(error.lines())"
    )
    environment = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_TOKEN": token} if token else {}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, env=environment, timeout=200
    )
    first, hint = done.stdout.splitlines()
    assert re.fullmatch(f"error: {error}", first), done
    assert f"hf download {name} --local-dir FOLDER" in hint
    assert ("huggingface.co/gated/model" in hint) == (name == "gated/model")
