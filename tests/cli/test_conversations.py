"""A ShareGPT file of conversations with tool calls and policies goes through doctor, fit, test and score."""

import json
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.predictions import read_predictions
from tests.support.conversations import write_conversations, write_policies

OVERLAY = """
recipe:
  checkpoints: checkpoints/agents
  logs: logs/agents
  max_length: 1024
  tasks:
    - name: call
      key: Call
      question: determine whether the user asked for the tool that the assistant called last.
      labels: [not asked, asked]
      judges: tool_call
      uses_policy: true
data:
  init_args:
    source:
      class_path: guardreasoner.Files
      init_args:
        train: agents.jsonl
        test_share: 0.2
        tasks: ${recipe.tasks}
        policies: policies.json
        columns: {policy_id: rules}
"""


def run(verb: str, config: str, *options: str) -> None:
    """Run a verb with the overlay; its inputs were written by earlier runs."""
    argv = [verb, "--config", f"configs/{config}.yaml", "--config", "agents.yaml", *options]
    assert main(argv) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_conversations_with_tool_calls(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("agents.yaml").write_text(OVERLAY)
    write_conversations(Path("agents.jsonl"), 50)
    write_policies(Path("policies.json"))
    quiet = ("--trainer.enable_progress_bar=false",)
    run("base-model", "base")
    run("doctor", "rsft", "--json", "doctor.json")
    run("fit", "rsft", *quiet, "--data.epochs=1")
    model = "--model.backbone.path=checkpoints/agents/rsft"
    run("test", "evaluate", *quiet, model, "--data.rollouts=null", "--recipe.max_new_tokens=48")

    found = json.loads(Path("doctor.json").read_text())
    predictions = read_predictions("logs/agents/predictions/hsdpo")
    assert found["train"] + len(predictions.records) == 50
    # messages and policy come back from the predictions as they were in the file
    source = {row["id"]: row for _, row in read_jsonl("agents.jsonl")}
    policies = json.loads(Path("policies.json").read_text())
    for record in predictions.records:
        row = source[record.id]
        calls = [json.loads(m["value"])["name"] for m in row["conversations"] if m["from"] == "function_call"]
        assert [call.name for message in record.messages for call in message.tool_calls] == calls
        assert record.policy == policies[row["rules"]]
    capsys.readouterr()
    assert main(["score", "logs/agents/predictions/hsdpo"]) == 0
    assert "call" in capsys.readouterr().out
