"""Guards in other formats through the real commands: fit, mine, pairs, HS-DPO, test, score."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner import LlamaGuard3, NemotronContentSafetyReasoning
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import read_rollouts, write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.guard_models import LLAMA_GUARD_TOKENS, QWEN_TOKENS, make_guard_model
from tests.support.tiny import TinySource, command, write_rollouts

pytestmark = pytest.mark.usefixtures("workplace")

LLAMA_GUARD = ("--config", "configs/format/llama_guard_3.yaml")
QWEN3GUARD = ("--config", "configs/format/qwen3guard_gen.yaml")
ANSWERS = ("Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent")
HARMFUL = "train/02"
FEW = ("--data.max_length", "2000", "--data.source.train", "8", "--data.epochs", "1")


def rows(folder: str) -> list[dict[str, Any]]:
    """Return the prediction rows of a folder."""
    files = sorted(Path(folder).rglob("generated_predictions.jsonl"))
    return [row for file in files for _, row in read_jsonl(file)]


@pytest.mark.slow
def test_a_tuned_llama_guard_answers_in_its_format(
    tiny_base: Path, start: Callable[..., str], refused: Callable[..., str]
) -> None:
    base = make_guard_model(tiny_base, Path("hub"), LLAMA_GUARD_TOKENS, "<|eot_id|>")
    learning = (*FEW, "--data.epochs", "15", "--recipe.rsft_batch_size", "2", "--recipe.rsft_lr", "2e-2")
    start(*command("rsft", base, *LLAMA_GUARD, *learning, "--output", "tuned"))

    # the folder keeps the format, so that no later command needs the overlay
    greedy = ("--model.greedy.max_new_tokens", "12", "--data.rollouts", "null")
    start(*command("evaluate", Path("tuned"), *greedy, "--output", "after"))
    assert json.loads(Path("after/format.json").read_text())["class"] == "LlamaGuard3"
    assert {row["speed"] for row in rows("after")} == {"direct"}
    parsed = [row for row in rows("after") if LlamaGuard3().parse(row["predict"])["request"]]
    assert parsed
    for row in parsed:
        assert sum(row["scores"]["direct"]["request"].values()) == pytest.approx(1)
    start("score", "after", "--json", "scores.json", "--reasoning")
    (model,) = json.loads(Path("scores.json").read_text())["models"].values()
    assert (model["records"], model["unparsed"]) == (6, 6 - len(parsed))
    assert "reads the answer block of GuardReasoner" in refused("score", "--mode", "released", "after")


@pytest.mark.slow
def test_a_guard_is_preferred_on_its_own_outputs(
    tiny_base: Path, start: Callable[..., str], refused: Callable[..., str]
) -> None:
    base = make_guard_model(tiny_base, Path("hub"), QWEN_TOKENS, "<|im_end|>")
    start(*command("rsft", base, *QWEN3GUARD, *FEW, "--output", "tuned"))
    sampling = ("--model.generator.max_new_tokens", "4", "--data.source.train", "8")
    start(*command("mine", Path("tuned"), *sampling, "--output", "mined"))
    stored = json.loads(Path("tuned/guard.json").read_text())["format"]
    assert json.loads(Path("mined/format.json").read_text()) == stored

    # outputs of which every other one says that a request is harmful
    rollouts = read_rollouts("mined/rollouts.jsonl")
    assert {rollout.speed for rollout in rollouts} == {"direct"}
    write_jsonl("mined/rollouts.jsonl", [replace(one, completion=ANSWERS[one.index % 2]) for one in rollouts])
    start("pairs", "--rollouts", "mined", "--out", "pairs.jsonl")
    (pair,) = [row for _, row in read_jsonl("pairs.jsonl") if row["record"]["id"] == HARMFUL]
    assert (pair["rejected"]["completion"], pair["chosen"]["completion"]) == ANSWERS
    preferring = ("--data.rollouts", "[mined]", *FEW)
    start(*command("hsdpo", Path("tuned"), *preferring, "--output", "preferred"))
    assert json.loads(Path("preferred/guard.json").read_text())["format"] == stored

    greedy = ("--model.greedy.max_new_tokens", "12", "--data.rollouts", "null")
    start(*command("evaluate", Path("preferred"), *greedy, "--output", "tested"))
    assert json.loads(Path("tested/format.json").read_text()) == stored
    assert all("Safety: " in row["prompt"] for row in rows("tested"))
    start("score", "tested")
    assert "the format of these outputs is Qwen3GuardGen" in refused(*command("hsdpo", tiny_base, *preferring))


def test_a_published_model_is_tested_as_it_is(
    tiny_base: Path, start: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    base = make_guard_model(tiny_base, Path("hub"), LLAMA_GUARD_TOKENS, "<|eot_id|>")
    unanswered = sum(record.response is None for record in TinySource().records("test"))
    judging = (*LLAMA_GUARD, "--model.backbone.format.judges", "response")
    with caplog.at_level("INFO", "guardreasoner"):
        start(
            *command("evaluate", base, *judging, "--output", "before"),
            *("--model.greedy.max_new_tokens", "4", "--data.rollouts", "null"),
        )
    assert f"{unanswered} of 6 records have no label for response and are left out" in caplog.text
    assert len(rows("before")) == 6 - unanswered


def test_doctor_finds_no_fault_of_ids_in_a_published_format(tiny_base: Path, start: Callable[..., str]) -> None:
    base = make_guard_model(tiny_base, Path("hub"), QWEN_TOKENS, "<|im_end|>")
    fit = command("rsft", base, *QWEN3GUARD, *FEW)[1:]
    output = start("doctor", *fit, "--json", "doctor.json")
    assert "published prompt of Qwen3GuardGen" in output
    diagnosis = json.loads(Path("doctor.json").read_text())
    assert {one["name"] for one in diagnosis["findings"] if one["severity"] == "fault" and one["count"]} == set()


def test_reasoning_in_the_form_of_guardreasoner_is_learned_in_that_of_the_model(tiny_base: Path) -> None:
    format = NemotronContentSafetyReasoning()
    base = make_guard_model(tiny_base, Path("hub"), ("<bos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>")
    data = ReasoningDataModule(TinySource(), rollouts=[str(write_rollouts(Path("a"), TinySource().records("train")))])
    data.prepare_inspection(Backbone(str(base), format=format).prompt_tokenizer)
    items = list(data.items("train"))
    assert len(items) > 8
    for item in items:
        verdicts = {name: label for name, label in format.parse(item.completions[0]).items() if label is not None}
        assert verdicts == item.record.gold()
        assert re.fullmatch(rf"<think>\n\d So it is a {item.record.id}\.\n</think>\n.*", item.completions[0], re.DOTALL)
