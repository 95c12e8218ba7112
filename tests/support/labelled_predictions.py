"""Small folders of predictions of one task of one's own, with further columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.tasks import Task, write_tasks

SEVERITY = Task("response", "Response", "judge the response.", ("safe", "controversial", "unsafe"), ordered=True)
"""A task with ordered labels."""


def labelled_predictions(
    folder: Path,
    task: Task,
    answers: Sequence[tuple[str, str]],
    benchmark: str = "held-out",
    columns: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write a folder of predictions.

    Args:
        folder: folder to write.
        task: the task.
        answers: gold label and verdict of each record; a verdict that is no label of the task is an unparsed answer.
        benchmark: name of the benchmark.
        columns: further fields of each row.
    """
    rows: list[dict[str, Any]] = []
    for number, (gold, verdict) in enumerate(answers):
        text = answer_block({task.name: verdict}, [task]) if verdict in task.labels else "I do not know."
        prompt = render(Record("", f"{benchmark} {number}", "Sure."), [task])
        row = {"record_id": f"{benchmark}/{number}", "labels": {task.name: gold}, "prompt": prompt, "label": gold}
        rows.append(row | {"predict": text} | (dict(columns[number]) if columns else {}))
    write_jsonl(folder / benchmark / "generated_predictions.jsonl", rows)
    write_tasks(folder, [task])
    return folder
