"""Training data that hold benchmark prompts: refused with the ids; allowed by name, and stamped on all that follows."""

import csv
import json
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.workflow.manifest import Manifest, contaminated
from tests.support.six_way import TOPICS, write_requests

OVERLAY = """
recipe:
  tasks: [{{name: category, key: Category, question: sort it., labels: [{labels}]}}]
data:
  init_args:
    source:
      class_path: guardreasoner.sources.files.Files
      init_args:
        train: train.jsonl
        test: test.jsonl
        tasks: ${{recipe.tasks}}
        columns: {{prompt: text, reasoning: why, labels: {{category: label}}}}
"""
QUIET = ("--trainer.enable_progress_bar=false", "--data.epochs=1")


def dressed(place: int, text: str) -> str:
    """Return a text in other clothes: case, a zero-width space, white space, width, a soft hyphen."""
    middle = len(text) // 2
    return (
        text.upper(),
        f"{text[:middle]}\u200b{text[middle:]}",
        f"  {text.replace(' ', '  ')}\n",
        text.replace("flat", "ｆｌａｔ"),
        f"{text[:middle]}\u00ad{text[middle:].swapcase()}",
    )[place]


@pytest.fixture(autouse=True)
def here(workplace: Path) -> None:
    """Work where 5 of 45 training requests are benchmark requests in other clothes."""
    Path("own.yaml").write_text(OVERLAY.format(labels=", ".join(TOPICS)))
    write_requests(Path("all.csv"), 60)
    with Path("all.csv").open(newline="") as file:
        rows = [{**row, "label": list(TOPICS)[int(row["label"])]} for row in csv.DictReader(file)]
    test = [{**row, "id": f"test-{n}"} for n, row in enumerate(rows[:20])]
    train = [{**row, "id": f"train-{n}"} for n, row in enumerate(rows[20:])]
    train += [{**row, "id": f"copy-{n}", "text": dressed(n, row["text"])} for n, row in enumerate(rows[:5])]
    for name, content in (("train", train), ("test", test)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))


def run(verb: str, config: str, *more: str) -> int:
    return main([verb, "--config", f"configs/{config}.yaml", "--config", "own.yaml", *more])


def test_the_five_are_refused_by_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("base-model", "base") == 2
    assert capsys.readouterr().err.splitlines() == [
        *(f"record copy-{n}: same prompt as test-{n}" for n in range(5)),
        "error: training data: 5 records with a prompt that also occurs in a benchmark of this run: "
        "copy-0, copy-1, copy-2, copy-3, copy-4",
        "hint: --recipe.skip_contaminated true drops them; --allow_contamination keeps them and marks all results",
    ]


def test_they_are_left_out_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("own.yaml").open("a") as file:
        file.write("    skip_contaminated: true\n    similarity: 1.0\n")
    assert run("base-model", "base") == 0
    said = capsys.readouterr().out
    assert "5 records with a prompt that also occurs in a benchmark of this run: copy-0, copy-1, copy-2" in said
    assert "(left out)" in said
    assert "from 40 records" in said
    assert not contaminated("checkpoints/base")


@pytest.mark.filterwarnings("ignore")
def test_what_was_allowed_is_stamped_on_all_that_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("own.yaml").open("a") as file:
        file.write("allow_contamination: true\n")
    assert run("base-model", "base") == 0
    Path("own.yaml").write_text(Path("own.yaml").read_text().replace("allow_contamination: true\n", ""))
    assert run("fit", "rsft", "--auto_build=false", *QUIET) == 2  # the flag is not inherited, the stamp is
    assert run("fit", "rsft", "--auto_build=false", "--allow_contamination", *QUIET) == 0
    said = capsys.readouterr()
    assert "5 records with a prompt that also occurs in a benchmark of this run: copy-0" in said.out
    test = ("--model.backbone.path", "checkpoints/rsft", "--data.rollouts", "null", "--output", "logs/predictions/it")
    assert run("test", "evaluate", "--auto_build=false", QUIET[0], *test) == 0
    for made in ("checkpoints/base", "checkpoints/rsft", "logs/predictions/it"):
        manifest = Manifest.read(made)
        assert manifest is not None
        assert manifest.allow_contamination, made
    capsys.readouterr()
    assert main(["score", "logs/predictions/it"]) == 0
    note = "note: logs/predictions/it was made with --allow_contamination: logs/predictions/it"
    assert note in capsys.readouterr().out
