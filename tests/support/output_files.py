"""Small folders of predictions and rollouts."""

from pathlib import Path

from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.tasks import GUARD_TASKS


def predictions(
    folder: Path, answers: str, hard: str = "", benchmark: str = "held-out", ids: str = "", prompts: str = ""
) -> Path:
    """Write a folder of predictions of the task "request".

    Args:
        folder: folder to write.
        answers: gold label and verdict of each record, such as "HU HH"; another letter is an unparsed answer.
        hard: verdicts of sampled outputs for record 0.
        benchmark: name of the benchmark.
        ids: prefix of the record ids.
        prompts: a letter per record, equal letters for equal prompts; empty for different prompts.
    """
    names = {"H": "harmful", "U": "unharmful"}

    def answer(letter: str) -> str:
        return answer_block({"request": names[letter]}, GUARD_TASKS) if letter in names else "…"

    rows = []
    for number, word in enumerate(answers.split()):
        labels = {"request": names[word[0]]}
        text = render(Record("", prompts[number] if prompts else f"p{number}"), GUARD_TASKS)
        rows.append({"prompt": text, "label": labels["request"], "predict": answer(word[1])})
        rows[-1] |= {"record_id": f"{ids}{number}", "labels": labels}
    write_jsonl(folder / benchmark / "generated_predictions.jsonl", rows)
    samples = [
        {"record_id": f"{ids}0", "labels": rows[0]["labels"], "index": index, "seed": 0, "predict": answer(letter)}
        for index, letter in enumerate(hard)
    ]
    if samples:
        write_jsonl(folder / benchmark / "hard_samples.jsonl", samples)
    return folder


def rollouts(folder: Path, verdicts: str, model: str = "m", source: str = "[corpus]") -> str:
    """Write a folder of rollouts for harmful requests; return its path.

    Args:
        folder: folder to write.
        verdicts: the verdicts of each record's outputs, such as "HU HH-"; "-" is an unparsed output.
        model: name of the model.
        source: source of the records.
    """
    names = {"H": "harmful", "U": "unharmful"}
    records, outputs = [], []
    for number, word in enumerate(verdicts.split()):
        records.append(Record(str(number), "p", labels={"request": "harmful"}, source=source))
        for index, letter in enumerate(word):
            text = answer_block({"request": names[letter]}, GUARD_TASKS) if letter in names else "…"
            outputs.append(Rollout(str(number), model, "f", index, 0, text))
    write_jsonl(folder / "records.jsonl", records)
    write_jsonl(folder / "rollouts.jsonl", outputs)
    return str(folder)
