"""A CSV with a six-way label through every stage, by YAML alone: the worked example of docs/own-data.md."""

import json
import re
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.prompts import parse
from guardreasoner.records import read_jsonl
from guardreasoner.tasks import Task
from tests.support.six_way import TOPICS, write_requests

ROOT = Path(__file__).parents[2]


@pytest.fixture
def desk(workplace: Path) -> Path:
    """Work where the configs are, with the overlay as the page has it and few requests."""
    found = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "own-data.md").read_text(), re.DOTALL)
    assert found
    Path("desk.yaml").write_text(found[1])
    write_requests(Path("data/requests.csv"), 240)
    return workplace


def run(*words: str) -> None:
    """Run a verb with the overlay; what it needs has been made by the runs before."""
    verb, config, *more = words
    argv = [verb, "--config", f"configs/{config}.yaml", "--config", "desk.yaml", *more]
    assert main(argv) == 0


@pytest.mark.filterwarnings("ignore")
def test_six_labels_go_through_every_stage(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ("--trainer.enable_progress_bar=false",)
    run("base-model", "base")
    run("fit", "rsft", *quiet)
    for config in ("mine", "hard_set"):
        run("predict", config, *quiet)
    run("fit", "hsdpo", *quiet)
    run("test", "evaluate", *quiet)

    # the prompt asks the one question, and the format is kept with the model
    stored = json.loads(Path("checkpoints/desk/hsdpo/guard.json").read_text())["format"]
    assert [task["labels"] for task in stored["tasks"]] == [list(TOPICS)]
    tasks = [Task(**task) for task in stored["tasks"]]
    # mining read this task's answers: both right and wrong ones are told apart by its six labels
    capsys.readouterr()
    assert main(["pairs", "--rollouts", "logs/desk/rollouts/rsft", "--out", "pairs.jsonl"]) == 0
    pairs = [row for _, row in read_jsonl("pairs.jsonl")]
    assert pairs
    for pair in pairs:
        gold = pair["record"]["labels"]["category"]
        assert parse(pair["chosen"]["completion"], tasks) == {"category": gold}
        assert parse(pair["rejected"]["completion"], tasks) != {"category": gold}
    # scores have an F1 for each of the six
    assert main(["score", "logs/desk/predictions/hsdpo", "--json", "scores.json"]) == 0
    scored = json.loads(Path("scores.json").read_text())["models"]["hsdpo"]["average"]
    assert list(scored["category"]["f1_per_class"]) == list(TOPICS)
    assert not Path("checkpoints/desk/rsft.previous").exists()


def test_a_fault_in_the_file_ends_the_run_before_it_starts(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("data/requests.csv").open("a") as file:
        file.write("Where is the lift?,7,\n,2,none\n")
    assert main(["base-model", "--config", "configs/base.yaml", "--config", "desk.yaml"]) == 2
    words = "0, 1, 2, 3, 4, 5, noise, water, keys, parcels, rent, other"
    assert capsys.readouterr().err.splitlines() == [
        f"data/requests.csv:242: label: found '7', allowed are {words}",
        "data/requests.csv:243: text: found null, expected text",
        "error: data.source: 2 of 242 rows are faulty, nothing was started",
        "hint: mend them, or set them aside with data.source.quarantine: FOLDER",
    ]
    assert not [path for path in Path("checkpoints").rglob("*") if path.is_file()]
