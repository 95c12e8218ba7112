"""A teacher's run over records: which traces are kept, asked again and refused, and how a run is resumed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.prompts import PromptFormat, parse
from guardreasoner.records import Record, Split, read_records, read_rollouts
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.synthesis import EstimatesCost, WritesOutput
from guardreasoner.synthesis.teacher import CostEstimator, Prices, TeacherModule
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.fake_server import FakeServer, trace
from tests.support.tiny import TinySource, quiet_trainer

TEMPLATE = "{{ record.id }}\n{% for task in known %}\n{{ task.key }}: {{ labels[task.name] }}\n{% endfor %}"
RECORDS = TinySource().records("train")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "teacher"


def teacher(base_url: str, folder: Path, **changes: Any) -> TeacherModule:
    settings = {"concurrency": 4, "timeout": 60.0, "pause": 0.01, "attempts": 3, **changes.pop("server", {})}
    generator = ServerGenerator(base_url=base_url, model=settings.pop("model", "fake-teacher"), **settings)
    return TeacherModule(generator, changes.pop("template", TEMPLATE), str(folder), **{"ask_all": True, **changes})


def run(module: TeacherModule | Any, chunk: int = 5) -> None:
    trainer = quiet_trainer()
    trainer.predict(module, datamodule=ReasoningDataModule(TinySource(), chunk_size=chunk), return_predictions=False)


def record_id(prompt: str) -> str:
    return prompt.splitlines()[0]


def record_number(prompt: str) -> int:
    return int(record_id(prompt).rpartition("/")[2])


def test_the_output_is_a_folder_of_correct_rollouts(folder: Path) -> None:
    with FakeServer(fill=4) as server:
        run(teacher(server.base_url, folder))
    records, rollouts = read_records(folder / "records.jsonl"), read_rollouts(folder / "rollouts.jsonl")
    assert {record.id for record in records} == {record.id for record in RECORDS}
    by_id = {record.id: record for record in RECORDS}
    assert all(by_id[record.id] == record for record in records)
    assert [rollout.record_id for rollout in rollouts] == [record.id for record in records]
    for rollout in rollouts:
        verdicts = parse(rollout.completion, GUARD_TASKS)
        assert {task: verdicts[task] for task in by_id[rollout.record_id].gold()} == by_id[rollout.record_id].gold()
    assert {(r.model, r.index, r.seed) for r in rollouts} == {("fake-teacher", 0, 0)}
    assert len({r.fingerprint for r in rollouts}) == 1
    assert (folder / "refused.jsonl").read_text() == ""
    assert server.seen.most == 4


def test_the_output_can_be_used_for_training(folder: Path) -> None:
    with FakeServer(lambda prompt, times: "400" if record_number(prompt) == 3 else None) as server:
        run(teacher(server.base_url, folder))
    data = ReasoningDataModule(TinySource(), rollouts=[str(folder)])
    reasoned = list(data.records_with_reasoning("train", PromptFormat()))
    assert len(reasoned) == len(RECORDS) - 1
    assert (reasoned[0].reasoning or "").startswith("# Task 1\n## Reasoning Step 1")


def test_a_record_is_asked_again_with_another_seed_after_a_refused_trace(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def say(prompt: str, times: int) -> str:
        if record_number(prompt) % 4 == 0 and times < 2:
            return trace(prompt).replace("It is so", "It is so, as labeled")
        if record_number(prompt) == 5:
            return trace(prompt).replace("Request: unharmful", "Request: harmful")
        return trace(prompt)

    with FakeServer(say=say) as server, caplog.at_level("INFO", "guardreasoner"):
        run(teacher(server.base_url, folder, ask_again=2))
    asked = {record_id(prompt): count for prompt, count in server.seen.asked.items()}
    assert asked == {r.id: 3 if n % 4 == 0 or n == 5 else 1 for n, r in enumerate(RECORDS)}
    assert len({body["seed"] for body in server.seen.bodies}) == len(server.seen.bodies)
    [refused] = [row for _, row in read_jsonl(folder / "refused.jsonl")]
    assert refused == {"record_id": "train/05", "attempts": 3, "faults": ["wrong verdict on request"]}
    seeds = {rollout.record_id: rollout.seed for rollout in read_rollouts(folder / "rollouts.jsonl")}
    assert seeds["train/04"] == 2
    assert seeds["train/06"] == 0
    assert "kept 23, refused 1, failed 0" in caplog.text
    assert "wrong verdict on request: 1" in caplog.text
    assert "tokens in this run" in caplog.text


def test_a_finished_run_sends_no_requests_again(folder: Path) -> None:
    with FakeServer(say=lambda prompt, _: "no" if record_number(prompt) < 3 else trace(prompt)) as server:
        run(teacher(server.base_url, folder))
        before, files = sum(server.seen.asked.values()), {f.name: f.read_bytes() for f in folder.iterdir()}
        run(teacher(server.base_url, folder))
    assert sum(server.seen.asked.values()) == before == 24 + 2 * 3
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == files


def test_an_interrupted_run_asks_only_for_missing_answers(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer() as server:
        run(teacher(server.base_url, folder))
        file = folder / "answers.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:10]) + lines[10][:30])
        (folder / "rollouts.jsonl").unlink()
        server.seen.asked.clear()
        run(teacher(server.base_url, folder))
    paid = {json.loads(line)["record_id"] for line in lines[:10]}
    assert {record_id(prompt) for prompt in server.seen.asked} == {r.id for r in RECORDS} - paid
    assert "truncated last line of 30 bytes" in caplog.text
    assert len(read_rollouts(folder / "rollouts.jsonl")) == 24


class Renumbered(TinySource):
    """Records that have the ids of others, as rows have below an inserted one."""

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        records = super().records(split)
        ids = [record.id for record in records]
        return [replace(record, id=name) for record, name in zip(records, [*ids[1:], ids[0]], strict=True)]


def test_records_with_other_ids_are_not_asked_again(folder: Path) -> None:
    template = TEMPLATE.replace("record.id", "prompt")
    with FakeServer(say=lambda prompt, _: f"{record_id(prompt)}\n{trace(prompt)}") as server:
        run(teacher(server.base_url, folder, template=template, steps=None))
        before = sum(server.seen.asked.values())
        module = teacher(server.base_url, folder, template=template, steps=None)
        quiet_trainer().predict(module, datamodule=ReasoningDataModule(Renumbered()), return_predictions=False)
    assert sum(server.seen.asked.values()) == before == len(RECORDS)
    prompts = {record.id: record.prompt for record in Renumbered().records("train")}
    rollouts = read_rollouts(folder / "rollouts.jsonl")
    assert {one.record_id: one.completion.splitlines()[0] for one in rollouts} == prompts


def test_a_larger_ask_again_continues_after_earlier_attempts(folder: Path) -> None:
    with FakeServer(say=lambda prompt, times: "no" if times < 3 else trace(prompt)) as server:
        with pytest.raises(InputError, match="no trace was kept of 24 records; most often: no verdict on request"):
            run(teacher(server.base_url, folder, ask_again=1))
        assert not (folder / "rollouts.jsonl").exists()
        run(teacher(server.base_url, folder, ask_again=3))
    assert set(server.seen.asked.values()) == {4}
    assert {rollout.seed for rollout in read_rollouts(folder / "rollouts.jsonl")} == {3}


def test_changed_checks_are_applied_to_logged_answers(folder: Path) -> None:
    with FakeServer(say=lambda prompt, _: trace(prompt).replace("Reasoning Step", "Step")) as server:
        with pytest.raises(InputError, match="steps not numbered"):
            run(teacher(server.base_url, folder, ask_again=0))
        run(teacher(server.base_url, folder, ask_again=0, steps=r"^## Step (\d+)"))
    assert set(server.seen.asked.values()) == {1}


@pytest.mark.parametrize(
    "change",
    [{"template": "x\n" + TEMPLATE}, {"seed": 7}, {"server": {"model": "other"}}, {"server": {"temperature": 0.1}}],
)
def test_other_settings_ask_anew_and_keep_the_old_answers(folder: Path, change: dict[str, Any]) -> None:
    with FakeServer() as server:
        run(teacher(server.base_url, folder))
        old = (folder / "answers.jsonl").read_text()
        run(teacher(server.base_url, folder, **change))
    assert sum(server.seen.asked.values()) == 48
    assert (folder / "answers.jsonl").read_text().startswith(old)
    assert len(read_rollouts(folder / "rollouts.jsonl")) == 24


def test_a_failed_request_is_counted_and_retried_by_the_next_run(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down = {"server": True}
    with FakeServer(lambda prompt, _: "500" if down["server"] and record_number(prompt) == 7 else None) as server:
        with caplog.at_level("INFO", "guardreasoner"):
            run(teacher(server.base_url, folder))
        assert "kept 23, refused 0, failed 1" in caplog.text
        [row] = [row for _, row in read_jsonl(folder / "refused.jsonl")]
        assert row["faults"] == ["request failed: 500 scripted 500"]
        down["server"] = False
        run(teacher(server.base_url, folder))
    assert len(read_rollouts(folder / "rollouts.jsonl")) == 24
    assert sum(server.seen.asked.values()) == 23 + 3 + 1


def test_a_lone_surrogate_is_replaced(folder: Path) -> None:
    with FakeServer(say=lambda prompt, _: trace(prompt).replace("It is so", "It is so \ud83d")) as server:
        run(teacher(server.base_url, folder))
    assert "so ?" in read_rollouts(folder / "rollouts.jsonl")[0].completion


def test_an_estimate_needs_no_key_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prices = Prices(input=2.0, output=10.0)
    module = teacher("http://127.0.0.1:9/v1", folder, prices=prices, server={"requests_per_minute": 12})
    monkeypatch.delenv("OPENAI_API_KEY")
    assert isinstance(module, WritesOutput)
    assert isinstance(module, EstimatesCost)
    estimator = module.estimator()
    assert isinstance(estimator, CostEstimator)
    assert isinstance(estimator, WritesOutput)
    with caplog.at_level("INFO", "guardreasoner"):
        run(estimator)
    characters = sum(len(module.requests.prompt(record)) for record in RECORDS)
    cost = (characters / 4 * 2 + 24 * 600 * 10) / 1e6
    assert "24 records to ask fake-teacher, 0 already answered" in caplog.text
    assert f"about {characters / 4:,.0f} prompt tokens and 14,400 output tokens" in caplog.text
    assert "assuming 4 characters per token and 600 tokens per answer" in caplog.text
    assert f"cost about {cost:.2f}; up to {3 * cost:.2f}" in caplog.text
    assert "at least 2.0 minutes at 12 requests per minute" in caplog.text
    assert not folder.exists()


def test_an_estimate_uses_measured_token_counts(folder: Path) -> None:
    with FakeServer() as server:
        run(teacher(server.base_url, folder))
    file = folder / "answers.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:6]))
    estimator = teacher("http://127.0.0.1:9/v1", folder).estimator()
    assert isinstance(estimator, CostEstimator)
    run(estimator)
    lines = estimator.lines()
    assert lines[0] == "18 records to ask fake-teacher, 6 already answered"
    assert "900 output tokens, as measured on 6 answers" in lines[1]  # 50 each


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ask_again": -1}, "ask_again"), ({"template": "{{"}, "template"), ({"steps": "("}, "steps")],
)
def test_invalid_arguments_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        teacher("http://127.0.0.1:9/v1", folder, **change)
    with pytest.raises(InputError, match="output"):
        TeacherModule(ServerGenerator(base_url="http://127.0.0.1:9/v1", model="m"), TEMPLATE, None)
    with pytest.raises(InputError, match="prices"):
        Prices(-1.0)
