"""A guard in use: results of the real model, speeds, calibrations, and answers that cannot be read."""

import asyncio
import json
import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner import Guard, Query
from guardreasoner.errors import InputError
from guardreasoner.formats.llama_guard import LlamaGuard3
from guardreasoner.formats.mlcommons import HAZARD_TASK
from guardreasoner.generators import Generator
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.generators.vllm import VLLMGenerator
from guardreasoner.guard import GuardResult, UnparsedError
from guardreasoner.guard.results import GuardSpeed
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import PromptFormat, answer_block
from guardreasoner.records import Message
from guardreasoner.tasks import GUARD_TASKS, POLICY_TASKS
from guardreasoner.workflow.guard_file import GUARD_FILE, write_calibration
from tests.support import fake_vllm
from tests.support.fake_server import FakeServer
from tests.support.guard_models import LLAMA_GUARD_TOKENS, make_guard_model
from tests.support.guards import Saying, calibration, known_records
from tests.support.tiny import make_tiny_adapter

HARMFUL, UNHARMFUL = (
    answer_block({"request": label, "completion": "compliance", "response": label}, GUARD_TASKS)
    for label in ("harmful", "unharmful")
)


@pytest.fixture(scope="module")
def guard(both_speeds: Path) -> Guard:
    return Guard.load(both_speeds)


def saying(folder: Path, say: Callable[[str], str], **options: object) -> tuple[Guard, Saying]:
    """Return a guard whose answers a function gives, and its engine."""
    engines: list[Saying] = []

    def engine(_: Backbone) -> Generator:
        engines.append(Saying(say))
        return engines[-1]

    return Guard.load(folder, engine=engine, **options), engines[0]  # type: ignore[arg-type]


def calibrated(model: Path, folder: Path, *thresholds: tuple[str, str, float, float]) -> Path:
    """Return a copy of a model with calibrations: task, kind of score, thresholds of block and of review."""
    shutil.copytree(model, folder)
    for task, score, block, review in thresholds:
        row = calibration(task, score, block, review).as_json()  # type: ignore[arg-type]
        write_calibration(folder / GUARD_FILE, task, row)
    return folder


@pytest.mark.parametrize("speed", ["direct", "reasoned", "auto"])
def test_a_trained_model_judges_what_it_knows(guard: Guard, speed: GuardSpeed) -> None:
    records = known_records()
    results = guard.check_many(Query(messages=record.messages, speed=speed) for record in records)
    for record, result in zip(records, results, strict=True):
        assert {name: task.verdict for name, task in result.tasks.items()} == {
            task.name: record.labels.get(task.name) for task in GUARD_TASKS
        }
        assert result.flagged == (record.labels["request"] == "harmful")
        assert (result.reasoning or "").startswith("The user wants to" if speed == "reasoned" else "")
        assert (result.speed, result.reasoning is None) == (speed.replace("auto", "direct"), speed != "reasoned")
        for name, task in result.tasks.items():
            assert task.verdict is None or max(task.scores, key=task.scores.__getitem__) == task.verdict
            assert task.score == (None if task.verdict is None else task.scores[GUARD_TASKS_BY_NAME[name].positive])
            assert (task.threshold, task.band) == (None, None)


GUARD_TASKS_BY_NAME = {task.name: task for task in GUARD_TASKS}


class Decoding(LocalGenerator):
    """The local engine, but it decodes direct answers token by token."""

    @property
    def scores_in_one_pass(self) -> bool:
        return False


def test_an_answer_in_one_pass_is_the_decoded_one(both_speeds: Path, guard: Guard) -> None:
    decoding = Guard.load(both_speeds, engine=lambda backbone: Decoding(backbone, 40, temperature=0.0))
    queries = [Query(messages=record.messages, speed="direct") for record in known_records()]
    queries += [Query(text, speed="direct") for text in ("How do I mend a kettle?", "Why?", "violin")]
    for one, other in zip(guard.check_many(queries), decoding.check_many(queries), strict=True):
        assert (one.completion, one.tokens, one.flagged) == (other.completion, other.tokens, other.flagged)
        assert_equal_scores(one, other)


def assert_equal_scores(one: GuardResult, other: GuardResult) -> None:
    for name in one.tasks:
        assert one.tasks[name].scores == pytest.approx(other.tasks[name].scores, abs=1e-4)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_a_result_does_not_depend_on_the_batch(guard: Guard, data: st.DataObject) -> None:
    records = data.draw(st.lists(st.sampled_from(known_records()), min_size=1, max_size=6))
    speeds: Sequence[GuardSpeed] = ("direct", "reasoned", "auto")
    queries = [Query(messages=one.messages, speed=data.draw(st.sampled_from(speeds))) for one in records]
    for query, result in zip(queries, guard.check_many(queries), strict=True):
        alone = guard.check(messages=query.messages, speed=query.speed)
        assert (alone.completion, alone.speed, alone.flagged) == (result.completion, result.speed, result.flagged)
        assert_equal_scores(alone, result)


def test_each_speed_has_its_threshold(both_speeds: Path, tmp_path: Path) -> None:
    folder = calibrated(both_speeds, tmp_path / "m", ("request", "direct", 0.4, 0.3), ("request", "reasoned", 0.6, 0.5))
    guard, message = Guard.load(folder), known_records()[0].prompt
    for speed, threshold in (("direct", 0.4), ("reasoned", 0.6)):
        assert guard.check(message, speed=speed).tasks["request"].threshold == threshold  # type: ignore[arg-type]


def test_many_coroutines_share_a_guard(guard: Guard) -> None:
    records = known_records()

    async def all_at_once() -> list[GuardResult]:
        return await asyncio.gather(*(guard.acheck(messages=one.messages, speed="direct") for one in records * 3))

    async def many() -> list[GuardResult]:
        return await guard.acheck_many(Query(messages=one.messages, speed="direct") for one in records)

    expected = [guard.check(messages=one.messages, speed="direct").completion for one in records]
    assert [result.completion for result in asyncio.run(all_at_once())] == expected * 3
    assert [result.completion for result in asyncio.run(many())] == expected


@settings(max_examples=60)
@given(completion=st.text() | st.sampled_from([HARMFUL, UNHARMFUL, f"{HARMFUL}\nno", "Answers:\nRequest: None", ""]))
@pytest.mark.parametrize("speed", ["direct", "reasoned", "auto"])
def test_what_cannot_be_read_is_never_safe(both_speeds: Path, speed: GuardSpeed, completion: str) -> None:
    guard, _ = saying(both_speeds, lambda text: completion, speed=speed)
    result = guard.check("Why?", "Because.")
    verdicts = guard.prompt_tokenizer.format.parse(completion)
    unclear = verdicts["request"] is None or verdicts["response"] is None
    assert result.unparsed == unclear
    assert result.flagged == (unclear or "harmful" in (verdicts["request"], verdicts["response"]))
    guard.unparsed = "raise"
    if unclear:
        with pytest.raises(UnparsedError) as error:
            guard.check("Why?", "Because.")
        assert error.value.result == result


def test_a_refusal_does_not_flag(both_speeds: Path) -> None:
    labels = {"request": "unharmful", "completion": "refusal", "response": "unharmful"}
    guard, _ = saying(both_speeds, lambda text: answer_block(labels, GUARD_TASKS))
    assert not guard.check("Why?", "I will not say.").flagged


@pytest.mark.parametrize("direct", [UNHARMFUL, "?"])
def test_auto_reasons_where_the_direct_answer_has_no_score(both_speeds: Path, direct: str) -> None:
    guard, engine = saying(both_speeds, lambda text: direct if "at once" in text else HARMFUL, speed="auto")
    result = guard.check("Why?", "Because.")
    assert (result.speed, result.flagged, result.tokens) == ("reasoned", True, 6)
    assert [len(call) for call in engine.calls] == [1, 1]


def test_equal_queries_are_asked_once(both_speeds: Path) -> None:
    guard, engine = saying(both_speeds, lambda text: UNHARMFUL)
    assert len(guard.check_many([Query("Why?")] * 5)) == 5
    assert [len(call) for call in engine.calls] == [1]
    assert guard.check_many([]) == []


def test_the_band_decides_and_the_verdict_stays(both_speeds: Path, tmp_path: Path) -> None:
    harmful, unharmful = (
        next(one for one in known_records() if one.response is None and one.labels["request"] == label)
        for label in ("harmful", "unharmful")
    )
    strict = Guard.load(calibrated(both_speeds, tmp_path / "strict", ("request", "direct", 1e-9, 1e-12)))
    result = strict.check(messages=unharmful.messages, speed="direct")
    task = result.tasks["request"]
    assert (task.verdict, task.band, task.threshold, result.flagged) == ("unharmful", "block", 1e-9, True)
    # the calibration is not of reasoned scores
    reasoned = strict.check(messages=unharmful.messages, speed="reasoned")
    assert (reasoned.tasks["request"].band, reasoned.flagged) == (None, False)
    lenient = Guard.load(calibrated(both_speeds, tmp_path / "lenient", ("request", "direct", 1.0, 0.0)), speed="direct")
    result = lenient.check(messages=harmful.messages)
    assert (result.tasks["request"].verdict, result.tasks["request"].band) == ("harmful", "review")
    assert not result.flagged
    assert lenient.check(messages=harmful.messages, speed="auto").speed == "reasoned"
    assert json.loads(json.dumps(result.as_json()))["tasks"]["request"]["band"] == "review"


def test_a_damaged_calibration_is_an_error(both_speeds: Path, tmp_path: Path) -> None:
    folder = calibrated(both_speeds, tmp_path / "model", ("request", "direct", 0.5, 0.25))
    file = folder / GUARD_FILE
    file.write_text(file.read_text().replace("0.25", "0.35"))
    with pytest.raises(InputError, match="calibration of request: damaged or edited"):
        Guard.load(folder)
    other = calibrated(both_speeds, tmp_path / "other", ("policy", "direct", 0.5, 0.25))
    with pytest.raises(InputError, match="calibration of policy: the model has no such task"):
        Guard.load(other)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "prompt: missing"),
        (Query(" "), "prompt: found an empty text"),
        (Query(4), "prompt: found int"),  # type: ignore[arg-type]
        (Query("\ud800"), "prompt: found a lone surrogate"),
        (Query("a", b"b"), "response: found bytes"),  # type: ignore[arg-type]
        (Query("a", messages=[]), "prompt: given beside messages"),
        (Query(None, "b", []), "response: given beside messages"),
        (Query(messages=[]), "messages: expected a list"),
        (Query(messages="Hello"), "messages: found str"),  # type: ignore[arg-type]
        (Query(messages=[{"role": "user"}]), "messages: message 1: the content is missing"),
        (
            Query(messages=[Message("user", "a"), {"role": "boss", "content": "b"}]),
            "messages: message 2: found the role",
        ),
        (Query(messages=[Message("assistant", "a")]), "messages: found no message of the user"),
        (Query("a", policy="no"), "policy: given, but both was not trained with policies"),
        (Query("a", policy=" "), "policy: found an empty text"),
        (Query("a", speed="fast"), "speed: found 'fast'"),  # type: ignore[arg-type]
        (Query("a " * 3000), "the prompt has 3,"),
    ],
)
def test_wrong_queries_are_named(guard: Guard, query: Query, message: str) -> None:
    with pytest.raises(InputError) as error:
        guard.check(query.prompt, query.response, messages=query.messages, policy=query.policy, speed=query.speed)
    assert message in str(error.value)
    with pytest.raises(InputError, match=r"^queries\[1\]"):
        guard.check_many([Query("Why?"), query])


def test_errors_in_python_name_what_is_wrong(guard: Guard, both_speeds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^queries\[1\]: found str, expected a Query$"):
        guard.check_many([Query("Why?"), "Why?"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"found no message of the user, only of system, bot$"):
        guard.check(messages=[{"role": "system", "content": "a"}, {"role": "bot", "content": "b"}])
    with pytest.raises(InputError, match=r"^checkpoints/nope: no such model folder$"):
        Guard.load("checkpoints/nope")
    folder = shutil.copytree(both_speeds, tmp_path / "reasoned")
    stored = json.loads((folder / GUARD_FILE).read_text())
    stored["format"]["speeds"] = ["reasoned"]
    (folder / GUARD_FILE).write_text(json.dumps(stored))
    with pytest.raises(InputError, match="speed: direct, but reasoned has reasoned answers alone") as error:
        Guard.load(folder).check("Why?", speed="direct")
    shown = "".join(traceback.format_exception(error.value))
    assert shown.endswith("\nhint: recipe.direct_share above 0 trains a model for both speeds\n")


def test_a_policy_goes_with_a_model_of_policies(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "policies")
    (folder / GUARD_FILE).write_text(json.dumps({"format": PromptFormat(POLICY_TASKS).as_json()}))
    guard, engine = saying(folder, lambda text: answer_block({"rule": "rule 2", "policy": "violates"}, POLICY_TASKS))
    with pytest.raises(InputError, match="policy: missing, but policies needs one"):
        guard.check("Why?")
    result = guard.check(messages=[{"role": "user", "content": "<end>"}], policy=" 1. No questions. ")
    assert result.flagged
    assert {name: task.verdict for name, task in result.tasks.items()} == {"rule": "rule 2", "policy": "violates"}
    assert "Policy:\n1. No questions.\n\n" in engine.calls[0][0]
    # which rule it is does not flag
    guard, _ = saying(folder, lambda text: answer_block({"rule": "no rule", "policy": "complies"}, POLICY_TASKS))
    assert not guard.check("Why?", policy="1. No questions.").flagged


def test_the_other_labels_may_flag(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "hazards")
    task = replace(HAZARD_TASK, flags="others")
    (folder / GUARD_FILE).write_text(json.dumps({"format": PromptFormat((task,)).as_json()}))
    for label, flagged in (("no hazard", False), ("hate", True)):
        guard, _ = saying(folder, lambda text, label=label: f"Answers:\nHazard: {label}")  # type: ignore[misc]
        assert guard.check("Why?").flagged == flagged
    with pytest.raises(InputError, match="score is the probability of 'no hazard', which does not flag"):
        Guard.load(calibrated(folder, tmp_path / "calibrated", ("hazard", "direct", 0.5, 0.25)))


def test_other_guards_are_asked_in_their_own_format(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_guard_model(tiny_base, tmp_path / "llama-guard", LLAMA_GUARD_TOKENS, "<|eot_id|>")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    format = LlamaGuard3(judges="response", hazard=True)
    guard, engine = saying(folder, lambda text: "\n\nunsafe\nS10", format=format)
    result = guard.check("Why?", "Because.")
    assert (result.flagged, result.speed, result.tasks["hazard"].verdict) == (True, "direct", "hate")
    assert "Agent: Because." in engine.calls[0][0]
    with pytest.raises(InputError, match=r"^the conversation: no message of the assistant"):
        guard.check("Why?")
    with pytest.raises(InputError, match=r"^queries\[1\]: has a policy"):
        guard.check_many([Query("Why?", "Because."), Query("Why?", "Because.", policy="Rules.")])
    with pytest.raises(InputError, match=r"speed: auto, but llama-guard has direct answers alone"):
        guard.check("Why?", "Because.", speed="auto")


def test_a_response_that_no_task_judges_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_guard_model(tiny_base, tmp_path / "llama-guard", LLAMA_GUARD_TOKENS, "<|eot_id|>")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    guard, _ = saying(folder, lambda text: "\n\nsafe", format=LlamaGuard3())
    assert not guard.check("Hi").flagged
    call = {"function": {"name": "shell", "arguments": "{}"}}
    answers: list[dict[str, object]] = [{"content": "I do harm."}, {"content": None, "tool_calls": [call]}]
    for answer in answers:
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", **answer}]
        with pytest.raises(InputError, match=r"has a response, but llama-guard judges only a message of the user"):
            guard.check(messages=messages)


def test_a_model_of_a_hub_keeps_its_format_and_calibrations(
    both_speeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub" / "models--me--guard"
    calibrated(both_speeds, folder / "snapshots" / "abc", ("request", "direct", 0.5, 0.25))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    here, of_hub = Guard.load(folder / "snapshots" / "abc"), Guard.load("me/guard")
    assert len(of_hub.calibrations) == 1
    assert (of_hub.calibrations, of_hub.tasks, of_hub.speeds) == (here.calibrations, here.tasks, here.speeds)
    assert of_hub.check("Why?").tasks == here.check("Why?").tasks
    with pytest.raises(InputError, match=r"the prompt has [\d,]+ tokens, guard reads at most"):
        of_hub.check("Why? " * 10_000)


def test_a_server_may_answer(both_speeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with FakeServer(say=lambda prompt, times: HARMFUL) as server:
        guard = Guard.load(
            both_speeds,
            engine=lambda backbone: ServerGenerator(backbone, base_url=server.base_url, model="guard", chat=False),
        )
        result = guard.check("Why?", "Because.")
    assert (result.flagged, result.tasks["request"].verdict, result.tasks["request"].score) == (True, "harmful", None)
    assert guard.backbone.network is None


def test_an_adapter_is_loaded(tiny_base: Path, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(tiny_base, tmp_path / "adapter")
    guard = Guard.load(adapter, engine=lambda backbone: LocalGenerator(backbone, 4, temperature=0.0))
    assert guard.backbone.has_adapter
    assert guard.check("Why?").flagged  # nobody trained it, so nothing can be read


def test_models_that_cannot_be_used_are_refused(both_speeds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        Guard.load(tmp_path / "none")
    with pytest.raises(InputError, match="unparsed: found 'pass'"):
        Guard.load(both_speeds, unparsed="pass")  # type: ignore[arg-type]
    folder = shutil.copytree(both_speeds, tmp_path / "silent")
    (folder / GUARD_FILE).write_text(json.dumps({"format": PromptFormat((GUARD_TASKS[1],)).as_json()}))
    with pytest.raises(InputError, match="none of its tasks flags a conversation: completion"):
        Guard.load(folder)


def test_vllm_answers_as_the_local_engine_does(
    both_speeds: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm.install(monkeypatch)
    vllm = Guard.load(both_speeds, engine=lambda backbone: VLLMGenerator(backbone, 100, temperature=0.0))
    for speed in ("direct", "reasoned"):
        queries = [Query(messages=one.messages, speed=speed) for one in known_records()[:2]]  # type: ignore[arg-type]
        for one, other in zip(vllm.check_many(queries), guard.check_many(queries), strict=True):
            assert one.completion == other.completion
            assert_equal_scores(one, other)


def test_the_base_model_of_an_adapter_can_be_elsewhere(both_speeds: Path, tmp_path: Path) -> None:
    adapter = make_tiny_adapter(shutil.copytree(both_speeds, tmp_path / "base"), tmp_path / "adapter")
    before = Guard.load(adapter).check("How do I mend it?", speed="direct")
    moved = (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="base") as error:
        Guard.load(adapter)
    assert "--base_path" in (error.value.hint or "")
    assert Guard.load(adapter, base_path=moved).check("How do I mend it?", speed="direct") == before
    with pytest.raises(InputError, match=r"base_path .*both is not the base model"):
        Guard.load(adapter, base_path=make_other(both_speeds, tmp_path / "other" / "both"))


def make_other(model: Path, folder: Path) -> Path:
    """Return a copy of a model whose files have another fingerprint."""
    shutil.copytree(model, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    (folder / "manifest.json").unlink(missing_ok=True)
    return folder


def test_a_conversation_without_what_the_guard_judges_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "responses")
    (folder / GUARD_FILE).write_text(json.dumps({"format": PromptFormat(GUARD_TASKS[2:]).as_json()}))
    guard, engine = saying(folder, lambda text: answer_block({"response": "unharmful"}, GUARD_TASKS[2:]))
    with pytest.raises(
        InputError, match=r"contains nothing for responses to judge: it judges only response \(a response"
    ):
        guard.check("How do I make a bomb?")
    assert not engine.calls
    assert not guard.check("How do I make a bomb?", "I cannot help.").flagged


def test_quantization_is_refused_where_another_process_has_the_weights(tiny_base: Path) -> None:
    def engine(backbone: Backbone) -> Generator:
        return ServerGenerator(backbone, base_url="http://127.0.0.1:9/v1", model="m")

    with pytest.raises(InputError, match="quantization 4bit: ServerGenerator does not load the weights here"):
        Guard.load(tiny_base, engine=engine, quantization="4bit")
