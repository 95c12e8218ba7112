"""The example of docs/own-data.md: a CSV file with a six-way label goes through every stage with YAML alone."""

import json
import re
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.prompts import parse
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.tasks import Task
from tests.support.six_way import TOPICS, write_requests

ROOT = Path(__file__).parents[2]


@pytest.fixture
def helpdesk(workplace: Path) -> Path:
    """Work in a folder with the configs, the overlay of the page and few requests."""
    overlay = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "own-data.md").read_text(), re.DOTALL)
    assert overlay
    Path("desk.yaml").write_text(overlay[1])
    write_requests(Path("data/requests.csv"), 240)
    return workplace


def run(verb: str, config: str, *options: str) -> None:
    """Run a verb with the overlay; its inputs were written by earlier runs."""
    argv = [verb, "--config", f"configs/{config}.yaml", "--config", "desk.yaml", *options]
    assert main(argv) == 0


@pytest.mark.filterwarnings("ignore")
def test_six_labels_go_through_every_stage(helpdesk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ("--trainer.enable_progress_bar=false",)
    run("base-model", "base")
    run("fit", "rsft", *quiet)
    for config in ("mine", "hard_set"):
        run("predict", config, *quiet)
    run("fit", "hsdpo", *quiet)
    run("test", "evaluate", *quiet)

    # the prompt format with its one task is stored with the model
    stored = json.loads(Path("checkpoints/desk/hsdpo/guard.json").read_text())["format"]
    assert [task["labels"] for task in stored["tasks"]] == [list(TOPICS)]
    tasks = [Task(**task) for task in stored["tasks"]]
    # chosen and rejected outputs of the mined pairs differ in this task's verdict
    capsys.readouterr()
    assert main(["pairs", "--rollouts", "logs/desk/rollouts/rsft", "--out", "pairs.jsonl"]) == 0
    pairs = [row for _, row in read_jsonl("pairs.jsonl")]
    assert pairs
    for pair in pairs:
        gold = pair["record"]["labels"]["category"]
        assert parse(pair["chosen"]["completion"], tasks) == {"category": gold}
        assert parse(pair["rejected"]["completion"], tasks) != {"category": gold}
    # scores have an F1 for each of the six labels
    assert main(["score", "logs/desk/predictions/hsdpo", "--json", "scores.json"]) == 0
    scored = json.loads(Path("scores.json").read_text())["models"]["hsdpo"]["average"]
    assert list(scored["category"]["f1_per_class"]) == list(TOPICS)
    assert not Path("checkpoints/desk/rsft.previous").exists()


def test_a_faulty_row_stops_the_run_before_it_starts(helpdesk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("data/requests.csv").open("a") as file:
        file.write("Where is the lift?,7,\n,2,none\n")
    assert main(["base-model", "--config", "configs/base.yaml", "--config", "desk.yaml"]) == 2
    allowed = "0, 1, 2, 3, 4, 5, noise, water, keys, parcels, rent, other"
    assert capsys.readouterr().err.splitlines() == [
        f"data/requests.csv:242: label: found '7', allowed are {allowed}",
        "data/requests.csv:243: text: found null, expected text",
        "error: data.source: 2 of 242 rows are faulty, nothing was started",
        "hint: correct them, or move them out with data.source.quarantine: FOLDER",
    ]
    assert not [path for path in Path("checkpoints").rglob("*") if path.is_file()]
