"""From rollout files to weighted pairs in optimizer steps."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import two_row
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.records import Pair, Record, Rollout, read_records, read_rollouts, write_jsonl
from guardreasoner.sources.concat import Concat
from guardreasoner.sources.files import Files
from guardreasoner.sources.label_noise import LabelNoise
from guardreasoner.sources.pair_files import PairColumns
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reference import Precomputed
from guardreasoner.training.token_weights import TokenWeights
from tests.support.preference_data import prepared
from tests.support.tiny import K, TinySource, answer, command, write_rollouts, wrong_outputs

TRAIN = TinySource().records("train")
HARD = {record.id: wrong_outputs(place) for place, record in enumerate(TRAIN) if 0 < wrong_outputs(place) < K}


def one_output_each(folder: Path, model: str, right: Callable[[int], bool], records: Sequence[Record] = TRAIN) -> Path:
    """Write what a model said that answered every record once."""
    outputs = [Rollout(r.id, model, model, 0, 0, f"{model} {answer(r, right(n))}") for n, r in enumerate(records)]
    write_jsonl(folder / model / "records.jsonl", records)
    write_jsonl(folder / model / "rollouts.jsonl", outputs)
    return folder / model


def test_hard_records_become_weighted_pairs(
    tiny_base: Path, tiny_rollouts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, [tiny_rollouts])
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    assert [pair.record.id for pair in data.pairs] == list(HARD)
    # excess errors are −2, 0 and 2 for 1, 2 and 3 wrong outputs of 4: min–max onto [−0.5, 0.5] around 1
    assert [pair.weight for pair in data.pairs] == pytest.approx([0.5 * wrong for wrong in HARD.values()])
    by_id = {record.id: record for record in TRAIN}
    for pair, example in zip(data.pairs, data.train, strict=True):
        assert (example.id, example.weights) == (pair.record.id, (pair.weight,) * 2)
        assert list(example.prompt) == prompt_tokenizer.prompt(by_id[example.id])
        chosen, rejected = (prompt_tokenizer.decode(ids) for ids in example.completions)
        assert (chosen, rejected) == (pair.chosen.completion, pair.rejected.completion)
        assert f"So it is a {example.id}." in chosen
        assert "I judge by its look." in rejected
    assert f"HS-DPO: {len(HARD)} hard of 24 records" in caplog.messages
    assert f"HS-DPO: {len(HARD)} pairs to train on, 0 held out" in caplog.messages


def test_a_pair_is_trained_with_the_prompt_of_its_outputs(tiny_base: Path, tiny_rollouts: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "records.jsonl", read_records(tiny_rollouts / "records.jsonl"))
    outputs = read_rollouts(tiny_rollouts / "rollouts.jsonl")
    write_jsonl(tmp_path / "rollouts.jsonl", [replace(output, speed="direct") for output in outputs])
    data = prepared(tiny_base, [tmp_path])
    prompt_tokenizer, by_id = Backbone(str(tiny_base)).prompt_tokenizer, {record.id: record for record in TRAIN}
    assert list(data.train)
    for example in data.train:
        assert list(example.prompt) == prompt_tokenizer.prompt(by_id[example.id], "direct")


def test_an_output_that_the_limit_on_tokens_ended_has_no_end_token(
    tiny_base: Path, tiny_rollouts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_jsonl(tmp_path / "records.jsonl", read_records(tiny_rollouts / "records.jsonl"))
    outputs = read_rollouts(tiny_rollouts / "rollouts.jsonl")
    cut = [
        replace(one, completion="I judge", truncated=True) if "by its look" in one.completion else one
        for one in outputs
    ]
    write_jsonl(tmp_path / "rollouts.jsonl", cut)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, [tmp_path], token_weights=TokenWeights(answer=4))
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    for pair, example in zip(data.pairs, data.train, strict=True):
        ids = [list(ids) for ids in example.completions]
        whole = [prompt_tokenizer.completion(one.completion) for one in (pair.chosen, pair.rejected)]
        assert ids == [whole[0], whole[1][:-1]]
        assert list(map(len, example.token_weights)) == list(map(len, ids))
    message = f"train: {len(HARD)} outputs of pairs ended at the limit on tokens, so they have no end token"
    assert message in caplog.messages


def test_an_empty_output_keeps_its_end_token_alone(tiny_base: Path) -> None:
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    assert prompt_tokenizer.completions(["", "a"], [True, True]) == [
        [prompt_tokenizer.end],
        prompt_tokenizer.completion("a")[:-1],
    ]


def test_the_pairing_decides_the_weights(tiny_base: Path, tiny_rollouts: Path) -> None:
    data = prepared(tiny_base, [tiny_rollouts], pairing=Pairing(gamma=0.2))
    assert [pair.weight for pair in data.pairs] == pytest.approx([{1: 0.8, 2: 1.0, 3: 1.2}[w] for w in HARD.values()])


def test_several_pairs_of_a_record_are_examples_of_their_own(
    tiny_base: Path, tiny_rollouts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairing = Pairing(chosen="all", rejected="all", cap=3, gamma=0.2)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, [tiny_rollouts], pairing=pairing, validation_share=0.3)
    # 1 or 3 wrong outputs of 4 make three pairs, 2 make four, of which three are kept
    assert f"HS-DPO: {len(HARD)} hard of 24 records, {3 * len(HARD)} pairs" in caplog.messages
    examples = list(data.examples())
    assert sorted(e.id for e in examples) == sorted(f"{name}#{n}" for name in HARD for n in (1, 2, 3))
    assert {e.id: e.weights[0] for e in examples} == pytest.approx(
        {f"{name}#{n}": {1: 0.8, 2: 1.0, 3: 1.2}[wrong] for name, wrong in HARD.items() for n in (1, 2, 3)}
    )
    held_out = {e.id.partition("#")[0] for e in data.validation}
    assert held_out
    assert not held_out & {e.id.partition("#")[0] for e in data.train}
    # pairs of one record have completions of equal lengths here, and stored reference values of their own
    backbone = Backbone(str(tiny_base))
    backbone.load()
    reference = Precomputed(str(tmp_path / "stored"))
    reference.prepare(backbone, examples)
    first = [e for e in examples if e.id.startswith(f"{examples[0].id[:-2]}#")]
    assert len({tuple(map(len, e.completions)) for e in first}) < len(first)
    batch = two_row(first, backbone.prompt_tokenizer.padding)
    expected = sequence_logps(backbone.completion_logps(batch), batch.sequence, batch.sequences).detach().double()
    torch.testing.assert_close(reference.sequence_logps(batch), expected, rtol=1e-5, atol=1e-5)


def test_findings_are_there_when_the_ids_are_read_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl("train.jsonl", TRAIN)
    rollouts = [write_rollouts(Path("mined"), list(Files(train="train.jsonl").records("train")))]
    assert PreferenceDataModule(Files(train="train.jsonl"), ["mined"]).findings is None
    data = prepared(tiny_base, rollouts, source=Files(train="train.jsonl"), cache="kept")
    assert data.findings is not None
    assert (data.findings.total().hard, data.findings.records) == (len(HARD), 24)
    (kept,) = Path("kept").glob("[!.]*")
    again = prepared(tiny_base, rollouts, source=Files(train="train.jsonl"), cache="kept")
    assert again.findings == data.findings
    (kept / "findings.json").write_text("{}")
    assert prepared(tiny_base, rollouts, source=Files(train="train.jsonl"), cache="kept").findings == data.findings
    assert [folder.name for folder in Path("kept").glob("[!.]*")] == [kept.name]
    other = Pairing(sources_by_model={"tiny": ["tiny/even"]})
    fewer = prepared(tiny_base, rollouts, source=Files(train="train.jsonl"), cache="kept", pairing=other)
    assert fewer.findings is not None
    assert fewer.findings.total().not_mined == 48
    assert {example.id for example in fewer.train} < {example.id for example in data.train}


def test_a_pair_once_held_out_stays_so_when_the_data_grow(tmp_path: Path, tiny_base: Path) -> None:
    more = TinySource(60)
    small = prepared(tiny_base, [write_rollouts(tmp_path / "small", TRAIN)], validation_share=0.4)
    large = prepared(
        tiny_base, [write_rollouts(tmp_path / "large", more.records("train"))], source=more, validation_share=0.4
    )
    assert small.train
    assert small.validation
    assert {e.id for e in small.train} | {e.id for e in small.validation} == set(HARD)
    assert {e.id for e in large.validation} & set(HARD) == {e.id for e in small.validation}
    assert {e.id for e in large.train} & set(HARD) == {e.id for e in small.train}
    assert 0.2 < len(large.validation) / len(large.pairs) < 0.6
    assert list(large.examples()) == [*large.train, *large.validation]


def test_outputs_of_several_models_are_pooled(tmp_path: Path, tiny_base: Path) -> None:
    always = one_output_each(tmp_path, "always", lambda _: True)
    third = one_output_each(tmp_path, "third", lambda n: n % 3 == 0)
    data = prepared(tiny_base, [always, third])
    assert [pair.record.id for pair in data.pairs] == [r.id for n, r in enumerate(TRAIN) if n % 3]
    assert {(pair.chosen.model, pair.rejected.model) for pair in data.pairs} == {("always", "third")}
    assert {pair.weight for pair in data.pairs} == {1.0}  # all are equally hard
    with pytest.raises(InputError, match="k = 1"):
        prepared(tiny_base, [always, third], pairing=Pairing(pool=False))


def test_a_folder_may_hold_some_of_the_records(tmp_path: Path, tiny_base: Path) -> None:
    halves = [write_rollouts(tmp_path / name, part) for name, part in (("first", TRAIN[:10]), ("second", TRAIN[10:20]))]
    pairs = prepared(tiny_base, halves).pairs
    assert [pair.record.id for pair in pairs] == [name for name in HARD if name < "train/20"]


def test_pairs_are_held_out_of_a_source_that_has_cut_its_own_splits_out(tmp_path: Path, tiny_base: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", TinySource(80).records("train"))
    source = Files(train=str(tmp_path / "train.jsonl"), validation_share=0.3, test_share=0.2)
    rollouts = [write_rollouts(tmp_path / "mined", list(source.records("train")))]
    plain = prepared(tiny_base, rollouts, source=source, validation_share=0.3)
    noisy = prepared(tiny_base, rollouts, source=Concat([LabelNoise(source, 0.0)]), validation_share=0.3)
    for data in (plain, noisy):
        assert 0.1 < len(data.validation) / len(data.pairs) < 0.5
        assert len(data.train) + len(data.validation) == len(data.pairs)


def test_outputs_on_held_out_records_are_no_pairs(tmp_path: Path, tiny_base: Path) -> None:
    source = TinySource()
    everything = [*TRAIN, *source.records("validation"), *source.records("test")]
    data = prepared(tiny_base, [write_rollouts(tmp_path, everything)])
    assert [pair.record.id for pair in data.pairs] == list(HARD)


def test_steps_hold_every_pair_once_an_epoch(tiny_base: Path, tiny_rollouts: Path) -> None:
    data = prepared(tiny_base, [tiny_rollouts], batch_size=6, micro_batch_size=4, epochs=2, validation_share=0.3)
    steps = list(data.train_dataloader())
    assert len(steps) == 2 * -(-len(data.train) // 6)
    for epoch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
        ids = [name for step in epoch for batch in step.batches for name in batch.ids]
        assert sorted(ids) == sorted(example.id for example in data.train)
    held_out = [name for step in data.val_dataloader() for batch in step.batches for name in batch.ids]
    assert sorted(held_out) == sorted(example.id for example in data.validation)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_its_range_is_refused(share: float, tiny_rollouts: Path) -> None:
    with pytest.raises(InputError, match=r"data\.validation_share must be"):
        PreferenceDataModule(TinySource(), [str(tiny_rollouts)], validation_share=share)


def write_pairs(path: Path, prompts: Sequence[str]) -> None:
    """Write a pair for each prompt, weighted by its place."""
    outputs = [
        {"prompt": prompt, "chosen": f"{n}.\nRequest: harmful", "rejected": f"{n}!\nRequest: unharmful", "w": 1 + n}
        for n, prompt in enumerate(prompts)
    ]
    write_jsonl(path, outputs)


@pytest.mark.slow
def test_ready_pairs_are_trained_on(workplace: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(Path("pairs.jsonl"), [f"May I borrow ladder {n}?" for n in range(6)])
    ready = ("--data.pairs", "pairs.jsonl", "--data.rollouts", "[]", "--data.pair_columns.weight", "w")
    options = ("--data.validation_share", "0", "--model.reference", "guardreasoner.FrozenCopy")
    assert main(list(command("hsdpo", tiny_base, *ready, *options))) == 0
    assert "HS-DPO: 6 pairs from pairs.jsonl" in capsys.readouterr().out
    assert (Path("made") / "model.safetensors").is_file()
    assert "pairs.jsonl" in json.loads(Path("made/manifest.json").read_text())["inputs"]
    assert main(["pairs", "--config", "configs/hsdpo.yaml", *ready, "--out", "x.jsonl"]) == 2
    assert "data.pairs are ready pairs, from which nothing is mined" in capsys.readouterr().err


def test_ready_pairs_have_weights_and_are_kept_apart_from_benchmarks(tiny_base: Path, tmp_path: Path) -> None:
    tested = TinySource().records("test")[0].prompt
    write_pairs(tmp_path / "pairs.jsonl", ["May I borrow a ladder?", "May I?", tested.upper()])
    ready = {"pairs": str(tmp_path / "pairs.jsonl"), "pair_columns": PairColumns(weight="w")}
    with pytest.raises(InputError, match=r"pairs\.jsonl:3"):
        prepared(tiny_base, [], **ready)
    data = prepared(tiny_base, [], **ready, skip_contaminated=True)
    assert [example.weights for example in data.train] == [(1.0, 1.0), (2.0, 2.0)]
    assert data.findings is None


def test_ready_pairs_without_reasoning_have_the_prompt_that_asks_for_none(tiny_base: Path, tmp_path: Path) -> None:
    outputs = [("Request: harmful", "Request: unharmful"), ("So.\nRequest: harmful", "Request: unharmful")]
    rows = [{"prompt": "May I?", "chosen": chosen, "rejected": rejected} for chosen, rejected in outputs]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    data = prepared(tiny_base, [], pairs=str(tmp_path / "pairs.jsonl"))
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    record = Record("", "May I?")
    asked = [tokenizer.prompt(record, "direct"), tokenizer.prompt(record, "reasoned")]
    assert [list(example.prompt) for example in data.train] == asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither data.rollouts nor data.pairs is set"),
        ({"rollouts": ["a"], "pairs": "b.jsonl"}, "both data.rollouts and data.pairs are set"),
    ],
)
def test_either_rollouts_or_pairs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PreferenceDataModule(TinySource(), **arguments)


def test_every_conversation_is_compared_although_records_share_an_id(tiny_base: Path, tmp_path: Path) -> None:
    def pair(pair_id: str, prompt: str) -> Pair:
        texts = ("a.\nRequest: harmful", "b.\nRequest: unharmful")
        chosen, rejected = (Rollout("7", "m", "f", number, 0, text) for number, text in enumerate(texts))
        record = Record("7", prompt, labels={"request": "harmful"})
        return Pair(pair_id, record, chosen, rejected, "all", "random/random", 0, 1.0, (True, False))

    tested = TinySource().records("test")[0].prompt
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    write_jsonl(files[0], [pair("7", "May I borrow a ladder?")])
    write_jsonl(files[1], [pair("7#1", tested), pair("7#2", tested)])
    for given in (files, files[::-1]):
        with pytest.raises(InputError, match="also occurs in a benchmark"):
            prepared(tiny_base, [], pairs=given)
        data = prepared(tiny_base, [], pairs=given, skip_contaminated=True)
        assert [example.id for example in data.train] == ["7"]
