"""Odd replies of a server through a whole synthesis and through the mining engine: none becomes training text."""

import json
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.server import Reply, ServerGenerator
from guardreasoner.records import Record, Split, read_rollouts
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.synthesis.teacher import Prices, TeacherModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.odd_replies import PRIVATE, TRACE, OddServer, cases
from tests.support.tiny import quiet_trainer

CASES = cases()
NAMES = [case.name for case in CASES]


class OddSource:
    """One record per case, named by it."""

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        names = NAMES if split == "train" else []
        return [Record(name, "How do I paint my shed?", labels={"request": "unharmful"}) for name in names]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def engine(server: OddServer, **changes: int) -> ServerGenerator:
    settings = {"attempts": 2, "pause": 0.001, "give_up_after": 1000, **changes}
    return ServerGenerator(base_url=server.base_url, model="odd", **settings)  # type: ignore[arg-type]


def test_every_case_has_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 40


def test_each_reply_is_kept_refused_or_failed_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OddServer() as server, caplog.at_level("INFO", "guardreasoner"):
        module = TeacherModule(engine(server), "{{ record.id }}", str(tmp_path), ask_again=1)
        data = ReasoningDataModule(OddSource(), chunk_size=500)
        quiet_trainer().predict(module, datamodule=data, return_predictions=False)
    texts = {rollout.record_id: rollout.completion for rollout in read_rollouts(tmp_path / "rollouts.jsonl")}
    refused = {row["record_id"]: row["faults"] for _, row in read_jsonl(tmp_path / "refused.jsonl")}
    logged = {row["record_id"]: row for _, row in read_jsonl(tmp_path / "answers.jsonl")}
    assert set(texts) == {case.name for case in CASES if case.teacher == "kept"}
    for name, text in texts.items():
        assert text == TRACE or name in ("crlf", "surrogate"), name
        assert PRIVATE not in text
    reasons = {name: faults[0].partition(":")[0] for name, faults in refused.items()}
    assert reasons == {case.name: case.reason for case in CASES if case.teacher != "kept"}
    assert set(logged) == {case.name for case in CASES if case.teacher != "failed"}
    for case in CASES:
        assert server.asked[case.name] == (1 if case.teacher == "kept" or "400" in case.name else 2) or case.name == (
            "error-object"  # its code says that the same request would fail again
        )
    counts = {outcome: sum(case.teacher == outcome for case in CASES) for outcome in ("kept", "refused", "failed")}
    assert ", ".join(f"{outcome} {count}" for outcome, count in counts.items()) in caplog.text
    for part in ("thinking", "preamble"):
        assert f"{part} removed from {sum(part in case.removed for case in CASES)} kept answers" in caplog.text
    for reason in {case.reason for case in CASES if case.teacher == "refused"}:
        assert caplog.text.count(f"  {reason}: ") == 1
    for message in ("429 Provider returned error", "the reply is a web page, not JSON", "400 too long"):
        assert caplog.text.count(f"  request failed: {message}: 1") == 1
    assert "refusal: 3; the first: " in caplog.text
    assert logged["refusal-field"]["problem"] == "refusal: I can't help with that."


@pytest.mark.parametrize("name", ["error", "error-text", "error-list", "error-choice"])
def test_a_failed_record_names_the_message_of_the_provider(tmp_path: Path, name: str) -> None:
    with OddServer() as server:
        generator = engine(server, give_up_after=1)
        with pytest.raises(InputError, match="Provider returned error") as caught:
            list(generator.generate([Request(name, (), name, (0,))]))
    assert "\n" not in str(caught.value)


def test_a_mined_output_is_what_the_model_wrote_or_fails_with_a_reason() -> None:
    found: dict[str, str] = {}

    def mine(server: OddServer) -> None:
        for completion in engine(server).generate(Request(name, (), name, (0,)) for name in NAMES):
            found[completion.record_id] = completion.text

    with OddServer() as server, pytest.raises(InputError, match=r"outputs failed; the first, of [\w-]+: \S"):
        mine(server)
    assert found == {case.name: case.mined for case in CASES if case.mined is not None}


def test_a_server_that_splits_the_thinking_is_refused_with_a_hint() -> None:
    with OddServer() as server, pytest.raises(InputError, match="splits the thinking") as caught:
        list(engine(server).generate([Request("reasoning", (), "reasoning", (0,))]))
    assert "without a reasoning parser" in (caught.value.hint or "")


def test_problems_in_a_row_end_the_run_after_their_answers_were_yielded() -> None:
    requests = iter([Request("null", (), "null", (0,))] * 5)
    replies: list[Reply] = []
    with OddServer() as server, pytest.raises(InputError, match="3 outputs in a row failed, the last with no text"):
        replies.extend(engine(server, give_up_after=3, concurrency=1).ask(lambda: next(requests, None)))
    assert [isinstance(reply, Completion) for reply in replies] == [True] * 3


def test_an_answer_by_another_model_is_warned_of_or_not_used(caplog: pytest.LogCaptureFixture) -> None:
    requests = [Request("ok", (), "ok", (0,)), Request("ok", (), "ok", (1,))]
    with OddServer() as server:
        asked = {"base_url": server.base_url, "model": "teacher", "attempts": 1}
        assert len(list(ServerGenerator(**asked).generate(requests))) == 2
        assert len(list(ServerGenerator(**asked, reported_models=["odd"]).generate(requests))) == 2
        assert len(caplog.messages) == 1
        assert "asked for model 'teacher', answered by 'odd'" in caplog.text
        strict = ServerGenerator(**asked, reported_models=["teacher"])
        with pytest.raises(InputError, match="answered by another model: odd"):
            list(strict.generate(requests))


@pytest.mark.slow
def test_answers_logged_without_a_problem_field_are_still_read(tmp_path: Path) -> None:
    def run(server: OddServer) -> None:
        module = TeacherModule(engine(server), "{{ record.id }}", str(tmp_path), ask_again=0)
        quiet_trainer().predict(
            module, datamodule=ReasoningDataModule(OddSource(), chunk_size=500), return_predictions=False
        )

    with OddServer() as server:
        run(server)
        log = tmp_path / "answers.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        for row in rows:
            if row["problem"] is None:
                del row["problem"]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        kept = (tmp_path / "rollouts.jsonl").read_bytes()
        server.asked.clear()
        run(server)
    assert (tmp_path / "rollouts.jsonl").read_bytes() == kept
    assert set(server.asked) == {case.name for case in CASES if case.teacher == "failed"}


def test_answers_whose_tokens_are_unknown_are_not_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OddServer() as server, caplog.at_level("INFO", "guardreasoner"):
        module = TeacherModule(engine(server), "{{ record.id }}", str(tmp_path), ask_again=0, prices=Prices(2.0, 10.0))
        data = ReasoningDataModule(OddSource(), chunk_size=500)
        quiet_trainer().predict(module, datamodule=data, return_predictions=False)
    uncounted = sum(row["prompt_tokens"] is None for _, row in read_jsonl(tmp_path / "answers.jsonl"))
    assert uncounted
    assert f"without {uncounted} answers whose tokens the server did not count" in caplog.text
