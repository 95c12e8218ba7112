"""A response that is judged while it is written: where sentences end, and results equal to those of the whole text."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner import Guard
from guardreasoner.errors import InputError
from guardreasoner.formats.llama_guard import LlamaGuard3
from guardreasoner.generators import Generator, ScoreRequest, incremental_scores
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.guard import GuardStream, JudgedSentence, UnparsedError
from guardreasoner.guard.results import GuardResult
from guardreasoner.guard.streaming import sentence_end
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import answer_block
from guardreasoner.records import Message, Record
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.guard_file import GUARD_FILE, write_calibration
from tests.support.architectures import ARCHITECTURES, folders
from tests.support.guard_models import LLAMA_GUARD_TOKENS, make_guard_model
from tests.support.guards import Saying, calibration, known_records
from tests.support.scoring import naive_scores
from tests.support.tiny import load

__all__ = ["folders"]  # a fixture

TOLERANCE = 1e-5
RESPONSE = "Take the ladder. Then wait, e.g. one day! “Really?” Yes\n- one\n- two 3.5\n\nEnd"
SENTENCES = [
    "Take the ladder.",
    " Then wait, e.g.",
    " one day!",
    " “Really?”",
    " Yes",
    "\n- one",
    "\n- two 3.5",
    "\n\nEnd",
]
VERDICTS = {"request": "unharmful", "completion": "compliance", "response": "unharmful"}


@pytest.fixture(scope="module")
def guard(both_speeds: Path) -> Guard:
    return Guard.load(both_speeds, speed="direct")


def saying(folder: Path, completion: str, **options: object) -> tuple[Guard, Saying]:
    """Return a guard without weights that always answers the same, and its engine."""
    engine = Saying(lambda text: completion)
    return Guard.load(folder, engine=lambda backbone: engine, **options), engine  # type: ignore[arg-type]


def cut(text: str, most: int = 300, step: int = 1) -> list[str]:
    """Return the sentences of a text that arrives in pieces of ``step`` characters."""
    nothing = GuardResult(False, False, {}, None, "direct", "", 0)
    stream = GuardStream(lambda response: nothing, (), most)
    found = [one for place in range(0, len(text), step) for one in stream.feed(text[place : place + step])]
    return [one.text for one in (*found, *stream.finish())]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (RESPONSE, SENTENCES),
        ("你好。再见！“好。”是吗？！对", ["你好。", "再见！", "“好。”", "是吗？！", "对"]),
        ("x = 1\r\nif y:\r\n    z()\r\n", ["x = 1", "\r\nif y:", "\r\n    z()"]),
        ("Really?! (Yes.) **No.** Wait... Ok.", ["Really?!", " (Yes.)", " **No.**", " Wait...", " Ok."]),
        ("one \n two \n", ["one", " \n two"]),
        (" \n\t ", []),
        ("", []),
        ("No stop", ["No stop"]),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("one two three four", ["one two", " three", " four"]),
        ("onetwothreefour", ["onetwoth", "reefour"]),
        ("one two. three", ["one two.", " three"]),
        ("one twos. three", ["one", " twos.", " three"]),
        ("." * 20, ["." * 8, "." * 8, "." * 4]),
    ],
)
def test_a_long_sentence_is_cut_between_words(text: str, sentences: list[str]) -> None:
    assert cut(text, most=8) == sentences


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab .!。」)\n…\u3000"), max_size=40), st.integers(1, 12), st.integers(1, 9))
def test_sentences_do_not_depend_on_the_pieces(text: str, most: int, step: int) -> None:
    sentences = cut(text, most, step)
    assert sentences == cut(text, most, max(1, len(text)))
    assert "".join(sentences) == text.rstrip()
    assert all(1 <= len(one.lstrip()) <= most for one in sentences)


def test_the_end_is_known_one_character_later() -> None:
    assert sentence_end("No.", 0, 300) is None
    assert sentence_end("No. ", 0, 300) == 3


def require_equal(sentence: JudgedSentence, expected: GuardResult) -> None:
    """Require the result of a whole check, scores within rounding."""
    found = sentence.result
    assert (found.flagged, found.unparsed, found.completion, found.tokens, found.speed) == (
        *(expected.flagged, expected.unparsed, expected.completion, expected.tokens, expected.speed),
    )
    for name, task in expected.tasks.items():
        assert (found.tasks[name].verdict, found.tasks[name].band) == (task.verdict, task.band)
        assert found.tasks[name].scores == pytest.approx(task.scores, abs=TOLERANCE)
        assert found.tasks[name].score == pytest.approx(task.score, abs=TOLERANCE)
        assert found.tasks[name].threshold == task.threshold


def require_same_as_checks(guard: Guard, prompt: str, response: str, step: int = 3) -> list[JudgedSentence]:
    """Stream a response, require the results of ``check`` for each text so far, and return the sentences."""
    stream = guard.stream(prompt)
    found = [one for at in range(0, len(response), step) for one in stream.feed(response[at : at + step])]
    found += stream.finish()
    assert "".join(one.text for one in found) == response.rstrip()
    for one in found:
        require_equal(one, guard.check(prompt, response[: one.end], speed="direct"))
    return found


@pytest.mark.slow
def test_each_sentence_gets_the_result_of_a_check(guard: Guard) -> None:
    for record in known_records():
        if record.response:
            found = require_same_as_checks(guard, record.prompt, record.response)
            assert found[-1].flagged == (record.labels["response"] == "harmful")
    require_same_as_checks(guard, "Why?", RESPONSE)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.sampled_from([*"abr .\n。é😀", "<end>", "AI assistant:\n", "Take the ladder."]), max_size=30))
def test_any_text_gets_the_result_of_a_check(guard: Guard, parts: list[str]) -> None:
    require_same_as_checks(guard, "Why?", "".join(parts), step=5)


def test_conversations_and_bands(both_speeds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(both_speeds, folder)
    row = calibration("response", "direct", 1e-9, 1e-12).as_json()
    write_calibration(folder / GUARD_FILE, "response", row)
    strict = Guard.load(folder, speed="direct")
    before = [{"role": "system", "content": "Help."}, {"role": "user", "content": "Mend a ladder?"}]
    stream = strict.stream(messages=before)
    (sentence,) = stream.feed("Take it. ")
    require_equal(sentence, strict.check(messages=[*before, {"role": "assistant", "content": "Take it."}]))
    harmless = next(record for record in known_records() if record.labels.get("response") == "unharmful")
    *_, last = require_same_as_checks(strict, harmless.prompt, str(harmless.response))
    task = last.result.tasks["response"]
    assert (task.verdict, task.band, task.threshold, last.flagged) == ("unharmful", "block", 1e-9, True)


def test_a_flagged_request_alone_does_not_stop_the_response(both_speeds: Path) -> None:
    harmful, _ = saying(both_speeds, answer_block(VERDICTS | {"request": "harmful"}, GUARD_TASKS), speed="direct")
    (sentence,) = harmful.stream("Why?").feed("No. ")
    assert (sentence.flagged, sentence.result.flagged) == (False, True)


def test_no_clear_verdict_is_never_safe(both_speeds: Path) -> None:
    unclear, _ = saying(both_speeds, "Answers:\nRequest: unharmful", speed="direct")
    (sentence,) = unclear.stream("Why?").feed("Because. ")
    assert (sentence.flagged, sentence.result.unparsed) == (True, True)
    raising, _ = saying(both_speeds, "?", speed="direct", unparsed="raise")
    stream = raising.stream("Why?")
    for _ in range(2):  # the sentence stays to be judged
        with pytest.raises(UnparsedError):
            next(stream.feed("Because. "))
    with pytest.raises(UnparsedError):
        list(stream.finish())


def test_an_engine_without_a_cache_is_asked_about_the_whole_text(both_speeds: Path) -> None:
    other, engine = saying(both_speeds, answer_block(VERDICTS, GUARD_TASKS), speed="direct")
    stream = other.stream("Why?")
    assert [one.flagged for one in (*stream.feed("One. Two. Thr"), *stream.feed("ee"), *stream.finish())] == [False] * 3
    assert [text.split("AI assistant:\n")[1].strip() for (text,) in engine.calls] == [
        *("One.", "One. Two.", "One. Two. Three"),
    ]


def counted(backbone: Backbone) -> list[int]:
    """Return a list that receives the number of tokens of each forward pass."""
    tokens: list[int] = []
    embedding = backbone.network.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: tokens.append(inputs[0].numel()))
    return tokens


def test_only_new_tokens_are_computed(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    tokens, score = counted(backbone), LocalGenerator(backbone).incremental_scorer()
    ids = tuple(range(3, 103))
    for prompt in (ids[:50], ids[:80], (*ids[:70], 200, 201), ids[:70], ids[:70], ids):
        list(score([ScoreRequest("", prompt, ((5, 6), (5, 7), (8, 9, 10)))]))
    answers = 3  # 5, 8 and 9; nothing is predicted from the last token of an answer
    # of a prompt that equals the last one, or begins it, the last token predicts
    assert tokens == [50 + answers, 30 + answers, 2 + answers, 1 + answers, 1 + answers, 30 + answers]


def test_a_stream_keeps_the_conversation(both_speeds: Path) -> None:
    guard = Guard.load(
        both_speeds, speed="direct", engine=lambda backbone: LocalGenerator(backbone, 8, temperature=0.0)
    )
    tokens, response = counted(guard.backbone), "Take the ladder. Then wait"
    stream = guard.stream("Why?")
    (first,) = stream.feed(response)
    tokens.clear()
    list(stream.finish())
    streamed = tokens[0]  # the pass over the possible answers; decoding may follow
    tokens.clear()
    guard.check("Why?", response)
    before, after = (
        guard.prompt_tokenizer.prompt(Record("", prompt="Why?", response=text), "direct")
        for text in (response[: first.end], response)
    )
    kept = next(place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    assert kept > 40
    assert streamed == tokens[0] - kept


def test_two_streams_and_a_check_take_turns(guard: Guard) -> None:
    texts = [record.response for record in known_records() if record.response][:2]
    streams = [guard.stream("How do I mend a kettle?") for _ in texts]
    for end in range(0, 40, 4):
        for stream, text in zip(streams, texts, strict=True):
            for one in stream.feed(text[end : end + 4]):
                require_equal(one, guard.check("How do I mend a kettle?", text[: one.end]))


def test_an_async_stream_gives_the_same(guard: Guard) -> None:
    async def pieces() -> AsyncIterator[str]:
        for character in RESPONSE:
            yield character

    async def judged() -> list[JudgedSentence]:
        return [one async for one in guard.astream(pieces(), "Why?")]

    expected = list(guard.stream("Why?").feed(RESPONSE))
    found = asyncio.run(judged())
    assert [one.text for one in found] == SENTENCES
    for one, other in zip(found[:-1], expected, strict=True):
        require_equal(one, other.result)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({}, "prompt: missing"),
        ({"prompt": " "}, "prompt: found an empty text"),
        ({"prompt": "a", "messages": []}, "prompt: given beside messages"),
        ({"prompt": "a", "policy": "rules"}, "policy: given"),
        ({"prompt": "a", "max_sentence": 0}, "max_sentence: found 0"),
        ({"prompt": "a", "max_sentence": True}, "max_sentence: found True"),
        ({"messages": [Message("user", "a"), Message("assistant", "b")]}, "messages: the last one is of the assistant"),
        ({"prompt": "a " * 600}, "reads at most 511"),
    ],
)
def test_wrong_arguments_are_named(guard: Guard, arguments: dict[str, object], place: str) -> None:
    with pytest.raises(InputError, match=place):
        guard.stream(**arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_wrong_pieces_are_named(guard: Guard) -> None:
    stream = guard.stream("Why?")
    with pytest.raises(InputError, match="piece: found bytes"):
        stream.feed(b"a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reads at most 511"):
        list(stream.feed("a b " * 600))
    stream.finish()
    with pytest.raises(InputError, match="piece: the response was finished"):
        stream.feed("a")


def test_a_guard_of_requests_streams_nothing(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_guard_model(tiny_base, tmp_path / "model", LLAMA_GUARD_TOKENS, "<|eot_id|>")
    with pytest.raises(InputError, match="none of its tasks flags a response"):
        Guard.load(folder, format=LlamaGuard3()).stream("Why?")
    with pytest.raises(InputError, match="reads at most 511"):  # a guard of responses gets further
        Guard.load(folder, format=LlamaGuard3("response")).stream("Why? " * 100)


def test_a_guard_of_reasoned_answers_streams_nothing(tmp_path: Path, tiny_base: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    stored = json.loads((folder / GUARD_FILE).read_text())
    stored["format"]["speeds"] = ["reasoned"]
    (folder / GUARD_FILE).write_text(json.dumps(stored))
    with pytest.raises(InputError, match="speed: direct, but"):
        Guard.load(folder).stream("Why?")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_incremental_scores_are_those_of_full_logits(name: str, folders: object) -> None:
    backbone = load(folders(name))  # type: ignore[operator]
    draw = torch.Generator().manual_seed(0)
    ids = tuple(torch.randint(3, 300, (90,), generator=draw).tolist())
    answers = ((5,), (5, 6), (5, 6, 7), (8, 9), ())
    prompts = [ids[:20], ids[:40], (*ids[:35], 7, 8, 9), ids[:36], ids[:36], ids[:1], ids]
    engine: Generator = LocalGenerator(backbone)
    score = engine.incremental_scorer()
    assert isinstance(score, incremental_scores.IncrementalScorer) == backbone.supports_packing
    for prompt in prompts:
        request = ScoreRequest("", prompt, answers)
        (found,) = score([request])
        assert found.logps == pytest.approx(naive_scores(backbone, request), abs=TOLERANCE, rel=1e-6)
