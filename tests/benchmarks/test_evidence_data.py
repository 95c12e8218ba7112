"""The data sets of the shipped study: what the page says about label noise, and the figures of policies."""

import logging
from pathlib import Path

import pytest
from evidence.__main__ import STUDIES
from evidence.figures import read_figures
from evidence.study import Study

from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.embedded import Embedded
from guardreasoner.sources.embedded.policies import EmbeddedPolicies
from guardreasoner.sources.label_noise import LabelNoise
from guardreasoner.tasks import POLICY_TASKS, write_tasks
from guardreasoner.workflow.config import resolve

ROOT = Path(__file__).parents[2]


def test_the_page_says_how_many_labels_are_changed(caplog: pytest.LogCaptureFixture) -> None:
    noise = Study.load(STUDIES / "arms.yaml").data["label-noise"]
    overlay = ROOT / noise.overlays[0]
    options = resolve(["fit", "--config", "configs/rsft.yaml", "--config", str(overlay)]).config["data"]["init_args"]
    source = options["source"]["init_args"]
    corpus = Embedded(**source["source"]["init_args"])
    noisy = LabelNoise(corpus, share=source["share"], seed=source["seed"])
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert len(list(noisy.records("train"))) == 2400
    (line,) = caplog.messages
    counted = line.removeprefix("label noise: ").partition(";")[0].replace(" training labels changed", "")
    assert counted in noise.about


def answered(record: Record, reads: bool) -> dict[str, object]:
    """Return the prediction of a guard that is right, or of one that finds every first rule broken."""
    labels = record.labels if reads else {"rule": "rule 1", "policy": "violates"}
    texts = {"prompt": render(record, POLICY_TASKS), "label": answer_block(record.labels, POLICY_TASKS)}
    row = {name: value for name, value in record.as_json().items() if name in ("messages", "policy", "labels")}
    return {**texts, **row, "record_id": record.id, "predict": answer_block(labels, POLICY_TASKS)}


@pytest.mark.parametrize(("reads", "steered"), [(True, 100.0), (False, 0.0)])
def test_steerability_is_a_figure_of_each_source_of_policies(reads: bool, steered: float, tmp_path: Path) -> None:
    records = EmbeddedPolicies(test=36).records("test")
    for source in dict.fromkeys(record.source for record in records):
        folder = tmp_path / source.replace("/", "-")
        rows = [answered(record, reads) for record in records if record.source == source]
        write_jsonl(folder / "generated_predictions.jsonl", rows)
        own = {name: rows[0][name] for name in ("record_id", "labels", "predict")}
        sampled = [{**own, "index": index, "seed": 0} for index in range(4)]
        write_jsonl(folder / "hard_samples.jsonl", sampled)
    write_tasks(tmp_path, POLICY_TASKS)
    figures = read_figures(tmp_path, "greedy")["figures"]
    for source in ("seen", "new-combinations", "new-rules"):
        assert figures[f"steerability, policy, policies-{source}"] == steered
