"""Each example runs, or is read as the tool that it is for reads it."""

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.guard import Guard
from guardreasoner.workflow.config import with_config_names
from guardreasoner.workflow.guard_file import GUARD_FILE
from tests.support.guards import known_records

EXAMPLES = Path(__file__).parents[2] / "examples"


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def trained_for(speeds: list[str], both_speeds: Path, folder: Path) -> Path:
    """Return a copy of a model of both speeds that says it was trained for these alone."""
    shutil.copytree(both_speeds, folder)
    stored = json.loads((folder / GUARD_FILE).read_text())
    stored["format"]["speeds"] = speeds
    (folder / GUARD_FILE).write_text(json.dumps(stored))
    return folder


def test_every_example_is_tested() -> None:
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.*") if "__pycache__" not in path.parts}
    tested = {"guarded_chatbot.py", "litellm_config.yaml", "nemo/config.yml", "nemo/config.py"}
    tested |= {f"slurm/{stage}.sbatch" for stage in ("rsft", "mine", "hsdpo")}
    assert found == tested | {"nightly_moderation.sh", "text_label.csv"}


def test_the_rows_with_a_text_and_a_label_are_records(monkeypatch: pytest.MonkeyPatch) -> None:
    from guardreasoner.cli.lightning_cli import GuardCLI

    monkeypatch.chdir(EXAMPLES.parent)
    overlay = ("--config", "configs/data/text_label.yaml")
    source = GuardCLI("fit", ["--config", "configs/rsft.yaml", *overlay, "--auto_build", "false"]).datamodule.source
    records = [record for split in ("train", "validation", "test") for record in source.records(split)]
    assert len(records) == 40
    assert {record.labels["request"] for record in records} == {"harmful", "unharmful"}


def test_the_chatbot_is_guarded_on_both_sides(both_speeds: Path) -> None:
    from starlette.testclient import TestClient

    answered = [record for record in known_records() if record.response]
    harmful, harmless = (
        next(r for r in answered if r.labels["request"] == label) for label in ("harmful", "unharmful")
    )
    app = module("guarded_chatbot.py").make_app(
        Guard.load(both_speeds, speed="direct"), lambda message: str(harmless.response)
    )
    client = TestClient(app)
    said: dict[str, Any] = client.post("/chat", json={"message": harmful.prompt}).json()
    assert said["blocked"] in ("request", "response")
    assert client.post("/chat", json={}).status_code == 422


def test_the_chatbot_streams_only_what_was_judged(both_speeds: Path, caplog: pytest.LogCaptureFixture) -> None:
    from starlette.testclient import TestClient

    answered = [record for record in known_records() if record.response]
    harmful, harmless = (
        next(r for r in answered if r.labels["request"] == label) for label in ("harmful", "unharmful")
    )
    example, guard = module("guarded_chatbot.py"), Guard.load(both_speeds, speed="direct")

    def streamed(message: str, response: str) -> str:
        async def pieces(_: str) -> AsyncIterator[str]:
            for character in response:
                yield character

        client = TestClient(example.make_app(guard, answer_in_pieces=pieces))
        return client.post("/stream", json={"message": message}).text

    response = str(harmless.response)
    first = next(guard.stream(harmless.prompt).feed(f"{response} "))
    assert streamed(harmless.prompt, response) == (f" {example.SORRY}" if first.flagged else response)
    assert streamed(harmful.prompt, response) == example.SORRY
    too_long = streamed(harmless.prompt, "word " * 600)
    assert too_long.endswith(example.SORRY)
    assert len(too_long) < 3000
    assert streamed(harmless.prompt, "\ud800. ") == f" {example.SORRY}"  # an error, which is logged
    assert "/stream: " in caplog.text
    assert "lone surrogate" in caplog.text


def test_the_chatbot_says_that_it_cannot_stream(
    both_speeds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from starlette.testclient import TestClient

    guard = Guard.load(trained_for(["reasoned"], both_speeds, tmp_path / "model"))
    client = TestClient(module("guarded_chatbot.py").make_app(guard))
    assert "/stream is absent: error: speed: direct, but model has reasoned answers alone" in caplog.text
    assert "direct_share" in caplog.text
    assert client.post("/stream", json={"message": "Hello"}).status_code == 404
    assert client.post("/chat", json={"message": "Hello"}).status_code == 200


def test_the_config_of_litellm_names_the_route_of_the_service() -> None:
    config = yaml.safe_load((EXAMPLES / "litellm_config.yaml").read_text())
    (guardrail,) = config["guardrails"]
    parameters = guardrail["litellm_params"]
    assert parameters["guardrail"] == "generic_guardrail_api"
    assert parameters["mode"] == ["pre_call", "post_call"]
    assert parameters["unreachable_fallback"] == "fail_closed"
    assert parameters["api_base"].startswith("http://127.0.0.1:")


def test_the_config_of_nemo_names_parsers_that_it_registers() -> None:
    config = yaml.safe_load((EXAMPLES / "nemo/config.yml").read_text())
    parsers: dict[str, Any] = {}

    class Rails:
        def register_output_parser(self, parser: Any, name: str) -> None:
            parsers[name] = parser

    module("nemo/config.py").init(Rails())
    assert {prompt["output_parser"] for prompt in config["prompts"]} == parsers.keys()
    flows = [*config["rails"]["input"]["flows"], *config["rails"]["output"]["flows"]]
    tasks = {prompt["task"].replace("_", " ") for prompt in config["prompts"]}
    assert set(flows) == tasks
    assert {f"$model={model['type']}" for model in config["models"]} >= {flow.split()[-1] for flow in flows}
    assert parsers["guardreasoner_prompt"]("no verdict")[0] is False


@pytest.mark.slow
@pytest.mark.parametrize("speeds", [["reasoned", "direct"], ["reasoned"]])
def test_the_nightly_job_judges_a_log(speeds: list[str], both_speeds: Path, tmp_path: Path) -> None:
    model = trained_for(speeds, both_speeds, tmp_path / "model")
    rows = [{"prompt": record.prompt, "response": record.response} for record in known_records()]
    log = tmp_path / "monday.jsonl.gz"
    log.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent), "MODEL": str(model)}
    script = [str(EXAMPLES / "nightly_moderation.sh"), str(log)]
    ended = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len((tmp_path / "moderated/monday.jsonl").read_text().splitlines()) == len(rows)
    assert (tmp_path / "moderated/monday.queue.jsonl").is_file()


@pytest.mark.parametrize("job", ["rsft", "mine", "hsdpo"])
def test_a_slurm_script_starts_a_command_that_parses(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``srun`` writes its words instead of running them; two nodes with eight processes each are what SLURM names."""
    (tmp_path / "srun").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    (tmp_path / "srun").chmod(0o755)
    slurm = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_NTASKS": "16", "SLURM_JOB_NAME": f"guard-{job}"}
    slurm |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    done = subprocess.run(
        ["bash", str(EXAMPLES / "slurm" / f"{job}.sbatch"), "--trainer.accelerator", "cpu"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    words = done.stdout.splitlines()
    verb, *argv = words[words.index("guardreasoner") + 1 :]
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    config = GuardCLI(verb, with_config_names([verb, *argv])[1:], parse_only=True).config
    assert (int(config.trainer.devices), config.trainer.num_nodes) == (8, 2)
    assert config.auto_build is False
