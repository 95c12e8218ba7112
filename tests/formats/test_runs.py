"""Guards in other formats through the real commands: fit, mine, pairs, HS-DPO, test, score."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from guardreasoner.records import Rollout, read_jsonl, read_rollouts, write_jsonl
from tests.support.guard_models import LLAMA_GUARD_TOKENS, QWEN_TOKENS, make_guard_model
from tests.support.tiny import TinySource, command

pytestmark = pytest.mark.usefixtures("workplace")

GUARDS = {
    "llama_guard_3": (LLAMA_GUARD_TOKENS, "<|eot_id|>", ("\n\nsafe", "\n\nunsafe\nS2"), "request"),
    "qwen3guard_gen": (QWEN_TOKENS, "<|im_end|>", ("Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent"), "request"),
}


def answers(folder: Path) -> list[dict[str, object]]:
    return [row for file in sorted(folder.rglob("generated_predictions.jsonl")) for _, row in read_jsonl(file)]


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_in_its_own_format_runs_through_all_stages(
    guard: str, tiny_base: Path, start: Callable[..., str], refused: Callable[..., str]
) -> None:
    tokens, end, (safe, unsafe), task = GUARDS[guard]
    base = make_guard_model(tiny_base, Path("hub"), tokens, end)
    overlay = ("--config", f"configs/format/{guard}.yaml")
    short = ("--model.generator.max_new_tokens", "12", "--data.rollouts", "null")

    def run(stage: str, model: Path | str, output: str, *more: str) -> str:
        return start(*command(stage, Path(model), *more, "--output", output))

    # the published model, as it comes from the hub
    run("evaluate", base, "before", *overlay, *short, "--model.greedy.max_new_tokens", "12")
    assert Counter(row["record_id"] for row in answers(Path("before"))).total() == 6

    # trained further: the folder keeps the format, which then needs no overlay
    run("rsft", base, "tuned", *overlay, "--data.epochs", "30", "--data.max_length", "2000", "--recipe.rsft_lr", "1e-2")
    stored = json.loads(Path("tuned/guard.json").read_text())["format"]
    assert stored["class"] == {"llama_guard_3": "LlamaGuard3", "qwen3guard_gen": "Qwen3GuardGen"}[guard]
    run("evaluate", "tuned", "after", *short, "--model.greedy.max_new_tokens", "12")
    parsed = [row for row in answers(Path("after")) if str(row["predict"]).strip().startswith((safe.strip()[:12], unsafe.strip()[:12]))]
    assert len(parsed) == 6
    start("score", "after", "--json", "scores.json", "--reasoning")
    (model,) = json.loads(Path("scores.json").read_text())["models"]["strict"]
    assert model["overall"]["unparsed"] == 0
    assert "other options" not in start("compare", "A=before", "B=after")
    assert "reads the answer block of GuardReasoner" in refused("score", "--mode", "released", "after")

    # mining: the sampled outputs are scripted, so that some records are hard
    run("mine", "tuned", "mined", "--model.generator.max_new_tokens", "12")
    assert json.loads(Path("mined/format.json").read_text()) == stored
    rollouts = read_rollouts("mined/rollouts.jsonl")
    assert {rollout.speed for rollout in rollouts} == {"direct"}
    write_jsonl("mined/rollouts.jsonl", scripted(rollouts, safe, unsafe))
    start("pairs", "--rollouts", "mined", "--out", "pairs.jsonl")
    (pair,) = [row for _, row in read_jsonl("pairs.jsonl") if row["record"]["id"] == "train/02"]
    assert pair["chosen"]["completion"] == unsafe  # the second record of TinySource asks how to break a thing
    assert pair["rejected"]["completion"] == safe
    run("hsdpo", "tuned", "preferred", "--data.rollouts", "[mined]", "--data.max_length", "2000", "--data.epochs", "1")
    assert json.loads(Path("preferred/guard.json").read_text())["format"] == stored
    assert "format of these outputs is" in refused(*command("hsdpo", tiny_base, "--data.rollouts", "[mined]"))


def scripted(rollouts: Sequence[Rollout], safe: str, unsafe: str) -> list[Rollout]:
    """Return rollouts of which every other one says unsafe."""
    from dataclasses import replace

    return [replace(rollout, completion=(safe, unsafe)[rollout.index % 2]) for rollout in rollouts]


def test_records_without_a_label_for_the_format_are_left_out_and_counted(
    tiny_base: Path, start: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    base = make_guard_model(tiny_base, Path("hub"), LLAMA_GUARD_TOKENS, "<|eot_id|>")
    unanswered = sum(record.response is None for record in TinySource().records("test"))
    with caplog.at_level("INFO", "guardreasoner"):
        start(
            *command("evaluate", base, "--config", "configs/format/llama_guard_3.yaml"),
            *("--model.backbone.format.judges", "response", "--model.greedy.max_new_tokens", "4", "--data.rollouts", "null"),
        )
    assert f"{unanswered} of 6 records have no label for response and are left out" in caplog.text
    assert len(answers(Path("made"))) == 6 - unanswered


def test_doctor_finds_no_fault_of_ids_in_a_published_format(tiny_base: Path, start: Callable[..., str]) -> None:
    base = make_guard_model(tiny_base, Path("hub"), QWEN_TOKENS, "<|im_end|>")
    fit = command("rsft", base, "--config", "configs/format/qwen3guard_gen.yaml", "--data.max_length", "2000")[1:]
    output = start("doctor", *fit, "--json", "doctor.json")
    assert "published prompt of Qwen3GuardGen" in output
    diagnosis = json.loads(Path("doctor.json").read_text())
    assert {one["name"] for one in diagnosis["findings"] if one["severity"] == "fault" and one["count"]} == set()
