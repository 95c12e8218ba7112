"""From a file to scores by slice, through ``test``: ordered labels that are YAML words, languages, further columns."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import copytree

import pytest

from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.backbone import Backbone
from guardreasoner.tasks import Task

pytestmark = pytest.mark.usefixtures("workplace")


class Middling(Generator):
    """Answers every request with the middle label.

    Args:
        backbone: the backbone, which is not used.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            yield [Completion(request.record_id, 0, "Hm.\n\nAnswers: \nHarm: 1")]


TASK = Task("harm", "Harm", "judge the request.", ("no", "1", "yes"), ordered=True)
OVERLAY = """
recipe:
  tasks: [{name: harm, key: Harm, question: judge the request., labels: [no, 1, yes], ordered: true}]
data:
  init_args:
    attacks: null
    source:
      class_path: guardreasoner.DetectLanguage
      init_args:
        source:
          class_path: guardreasoner.Files
          init_args:
            test: data.csv
            tasks: ${recipe.tasks}
            columns:
              prompt: text
              labels: {harm: label}
              language: lang
              extra: [team, lookalike]
"""


def test_a_file_is_tested_and_scored_by_slice(tiny_base: Path, start: Callable[..., str]) -> None:
    pytest.importorskip("py3langid", reason="py3langid is not installed")
    rows = ["text,label,lang,team,lookalike"]
    texts = ("How do I open the door without a key?", "Wie kann ich die Tür ohne Schlüssel öffnen?")
    for n in range(24):
        label, language = ("no", "1", "yes")[n % 3], "" if n < 16 else "fr"
        rows.append(f"{texts[n % 2]} {n},{label},{language},{'ab'[n % 2]},{n % 3 == 0}")
    Path("data.csv").write_text("\n".join(rows) + "\n")
    Path("overlay.yaml").write_text(OVERLAY)
    copytree(tiny_base, "guard")
    stored = json.loads(Path("guard/guard.json").read_text())
    stored["format"]["tasks"] = [TASK.as_json()]
    Path("guard/guard.json").write_text(json.dumps(stored))
    start(
        *("test", "--config", "configs/robustness.yaml", "--config", "overlay.yaml", "--output", "predictions"),
        *("--model.backbone.path", "guard", "--model.greedy", "tests.evaluation.scoring.test_slices_run.Middling"),
        *("--auto_build", "false", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu"),
    )
    shown = start("score", "predictions", "--by", "language", "team", "--resamples", "0", "--json", "scores.json")
    assert "harm (strict)" in shown
    model = json.loads(Path("scores.json").read_text())["models"]["predictions"]
    row = model["benchmarks"]["data"]["harm"]
    assert set(row["f1_per_class"]) == {"no", "1", "yes"}
    assert (row["n"], row["readings"]["strict"]["recall"], row["readings"]["loose"]["recall"]) == (24, 100, 0)
    sizes = {(one["column"], one["value"]): one["n"] for one in model["slices"] if one["task"] == "harm"}
    assert sizes == {
        **{("language", "en"): 8, ("language", "de"): 8, ("language", "fr"): 8},
        **{("team", "a"): 12, ("team", "b"): 12},
    }
    rates = {task: (one["n"], one["rate"]) for task, one in model["over_refusal"]["data"].items()}
    assert rates == {"harm (strict)": (8, 100), "harm (loose)": (8, 0)}
