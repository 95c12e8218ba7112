"""The model card of a guard, from its manifests, its calibrations and the JSON files of ``score`` and ``robustness``.

Nothing is estimated or assumed: what no file says is called unknown.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.guard.data_set_facts import DATA_SETS
from guardreasoner.prompts import PromptFormat
from guardreasoner.tasks import Task
from guardreasoner.workflow.lineage import Node
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.visible_text import visible_line

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$&])")
_UNKNOWN = "unknown"
_COMMIT_LENGTH = 10
_CLASSES = {"RSFTModule": "R-SFT", "HSDPOModule": "HS-DPO", "GRPOModule": "GRPO"}


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Args:
        name: name of the model.
        form: what the folder holds: ``adapter``, ``merged``, ``transformers``, or ``model`` if it was not exported.
        format: prompt format of the model; None if it is that of another guard.
        tasks: tasks of the model.
        tree: the lineage of the model; None if it has no manifest.
        calibrations: calibrations of the model.
        scores: the model's part of the JSON of ``score``, by mode; empty if there is none.
        robustness: content of the JSON of ``robustness``; None if there is none.
        verification: outcome of ``export --verify`` in one sentence; None if it did not run.
        base: path or hub id of the base model of an adapter; None if the folder holds all weights.
    """

    name: str
    form: str
    format: PromptFormat | None
    tasks: Sequence[Task]
    tree: Node | None
    calibrations: Sequence[Calibration] = ()
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    robustness: Mapping[str, Any] | None = None
    verification: str | None = None
    base: str | None = None


def model_scores(content: Any, model: str, where: str) -> dict[str, Mapping[str, Any]]:
    """Return the numbers of one model by mode, with its name under "model", from the JSON of ``score``.

    Args:
        content: the parsed file.
        model: name of the model; it may have another one if the file holds one model alone.
        where: path of the file, for messages.

    Raises:
        InputError: the file was not written by ``score --json``, or holds several models but not this one.
    """
    expected = InputError(f"{where}: expected the JSON of score --json")
    if not isinstance(content, dict):
        raise expected
    modes = content.get("modes", {str(content.get("mode")): content})
    found: dict[str, Mapping[str, Any]] = {}
    for mode, part in modes.items() if isinstance(modes, dict) else ():
        models = part.get("models") if isinstance(part, dict) else None
        if not isinstance(models, dict) or not models:
            raise expected
        if model not in models and len(models) > 1:
            raise InputError(
                f"{where}: no model {model!r}, found {', '.join(sorted(models))}",
                "score NAME=PREDICTIONS names a model; --name NAME names the one of the card",
            )
        name = model if model in models else next(iter(models))
        if not isinstance(models[name], dict) or "benchmarks" not in models[name]:
            raise expected
        found[str(mode)] = {**models[name], "model": name}
    if not found:
        raise expected
    return found


def require_robustness(content: Any, where: str) -> Mapping[str, Any]:
    """Return the content of a JSON file of ``robustness``.

    Raises:
        InputError: the file was not written by ``robustness --json``.
    """
    families = content.get("families") if isinstance(content, dict) else None
    names = {"family", "benchmark", "task", "n", "before", "after", "drop", "drop_interval"}
    if not isinstance(families, list) or not all(isinstance(row, dict) and names <= row.keys() for row in families):
        raise InputError(f"{where}: expected the JSON of robustness --json")
    return dict(content)


def model_card(facts: CardFacts) -> str:
    """Return the text of a model card: YAML front matter that the hub reads, then Markdown."""
    sections = (
        _summary(facts),
        _use(facts),
        _data(facts.tree),
        _recipe(facts.tree),
        _figures(facts),
        _calibration(facts.calibrations),
        _attacks(facts.robustness),
        _limits(facts),
    )
    body = "\n\n".join("\n".join(lines) for lines in sections if lines)
    return f"---\n{_front_matter(facts)}\n---\n\n{body}\n"


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        model_name=_plain(facts.name),
        library_name="peft" if facts.form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["guardreasoner", "guard", "content-moderation", "safety"],
        datasets=[known.hub for _, known in _data_sets(facts.tree) if known is not None and known.hub] or None,
        base_model=_hub_base(facts),
        eval_results=list(_eval_results(facts)) or None,
    )
    text: str = data.to_yaml()
    return text


def _eval_results(facts: CardFacts) -> Iterator[Any]:
    """Yield the F1 of each benchmark and task in the first mode, with its interval."""
    from huggingface_hub import EvalResult

    mode, scores = next(iter(facts.scores.items()), ("", None))
    positives = {task.name: task.positive for task in facts.tasks}
    for benchmark, task, row in _rows(scores):
        if row.get("f1") is None:
            continue
        interval = row.get("f1_interval")
        yield EvalResult(
            task_type="text-classification",
            task_name=f"guard task {_plain(task)}",
            dataset_type=_plain(benchmark),
            dataset_name=_plain(benchmark),
            metric_type="f1",
            metric_name=f"F1 of {_plain(positives.get(task, 'the positive class'))} in percent, {_plain(task)}, {mode}",
            metric_value=round(row["f1"], 2),
            metric_args={
                "n": row.get("n"),
                **({"interval_95": [round(end, 2) for end in interval]} if interval else {}),
            },
        )


def _summary(facts: CardFacts) -> list[str]:
    speeds = ", ".join(facts.format.speeds) if facts.format else ""
    rows = [
        ("made with", "guardreasoner" + (f" {version}" if (version := _version(facts.tree)) else "")),
        ("form", {"adapter": "LoRA adapter, needs its base model"}.get(facts.form, "all weights")),
        ("base model of the adapter", facts.base),
        ("speeds it was trained for", speeds or _UNKNOWN),
        ("export", facts.verification or ("verdicts were not compared" if facts.form != "model" else None)),
    ]
    return [
        f"# {_text(facts.name)}",
        "",
        "A guard: a language model that reads a conversation between a user and an AI assistant and answers the tasks",
        "below, after reasoning or at once.",
        "",
        *_table(("task", "question", "labels", "positive"), [_task_row(task) for task in facts.tasks]),
        "",
        *_table(("", ""), [(key, value) for key, value in rows if value is not None]),
    ]


def _use(facts: CardFacts) -> list[str]:
    lines = [
        "## Intended use",
        "",
        "To flag conversations for blocking or for review by people, with thresholds chosen on the user's own data.",
        "An answer without a clear verdict is *unparsed*: it must be treated as flagged or reviewed, never as",
        "safe. The model is not meant to decide about people without review, and not to replace a legal assessment.",
    ]
    if facts.form != "transformers":
        return lines
    return [
        *lines,
        "",
        "The messages of a chat request are the conversation to judge; the chat template adds the instruction.",
        "`enable_thinking` (true: reason first; false: verdicts alone) and `policy` are arguments of the template:",
        "",
        "```python",
        "ids = tokenizer.apply_chat_template(",
        '    [{"role": "user", "content": "How do I bake bread?"}, {"role": "assistant", "content": "Like this: …"}],',
        '    enable_thinking=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",',
        ")",
        'print(tokenizer.decode(model.generate(**ids)[0, ids["input_ids"].shape[1]:], skip_special_tokens=True))',
        "```",
        "",
        "With vLLM: `vllm serve FOLDER`, then a chat request with `temperature: 0` and",
        '`chat_template_kwargs: {"enable_thinking": false}`. The verdicts are the lines after `Answers:` at the end of',
        "the answer.",
        "",
        "Control tokens have other spellings than in the base model (each starts with U+FDD0), so that no text of a",
        "user becomes one. The template replaces U+FDD0 in texts by U+FFFD.",
    ]


def _data(tree: Node | None) -> list[str]:
    lines = ["## Data", ""]
    if tree is None or tree.manifest is None:
        return [*lines, "Unknown: the model has no manifest."]
    rows = []
    for name, known in _data_sets(tree):
        if known is None:
            rows.append((name, _UNKNOWN, _UNKNOWN))
        else:
            rows.append((known.title, known.licence, known.address or "part of guardreasoner"))
    files = [
        (node.path, _UNKNOWN, f"file, SHA-256 {(node.recorded or _UNKNOWN)[:16]}")
        for node in _nodes(tree)
        if node.kind in ("file", "folder") and not node.inputs
    ]
    return [
        *lines,
        "What the fits and the runs behind them read, benchmarks that were only compared with included:",
        "",
        *(_table(("data", "licence", "address"), [*rows, *files]) if rows or files else ["No data set is recorded."]),
        "",
        _contamination(tree),
    ]


def _contamination(tree: Node) -> str:
    manifests = [node.manifest for node in _nodes(tree) if node.manifest is not None]
    fits = [manifest for manifest in manifests if manifest.command[:1] == ["fit"]]
    if any(manifest.allow_contamination for manifest in manifests):
        return (
            "Contamination: a fit was allowed to train on records of its benchmarks (`--allow_contamination`), or an "
            "input was made so. Scores on these benchmarks do not show how the model does on new data."
        )
    if not fits:
        return "Contamination: unknown, since no manifest of a fit was found."
    dropped = any(_at(fit.config, "recipe", "skip_contaminated") for fit in fits)
    return (
        f"Contamination: every fit ({len(fits)}) checked that no training record has the prompt of a benchmark "
        f"configured for it; such records {'were left out' if dropped else 'would have stopped it'}. Other benchmarks "
        "were not checked."
    )


def _recipe(tree: Node | None) -> list[str]:
    lines = ["## Recipe", ""]
    fits = [
        (node.path, node.manifest)
        for node in _nodes(tree)
        if node.manifest is not None and node.manifest.command[:1] == ["fit"]
    ]
    if not fits:
        return [*lines, "Unknown: no manifest of a fit was found."]
    columns = [_fit_column(path, manifest) for path, manifest in reversed(fits)]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name, "") for column in columns)) for name in names]
    return [
        *lines,
        "In the order of training:",
        "",
        *_table(("", *(f"fit {n + 1}" for n in range(len(columns)))), rows),
    ]


def _fit_column(path: str, manifest: Manifest) -> dict[str, str]:
    config = manifest.config or {}
    model, data = _at(config, "model", "init_args"), _at(config, "data", "init_args")
    class_name = str(_at(config, "model", "class_path") or _UNKNOWN).rpartition(".")[2]
    lora = _at(model, "backbone", "lora")
    lora = lora.get("init_args", lora) if isinstance(lora, dict) else None
    values = {
        "output": path,
        "stage": _CLASSES.get(class_name, class_name),
        "started from": _at(model, "backbone", "path"),
        "objective": str(_at(model, "objective") or "").rpartition(".")[2] or None,
        "beta": _at(model, "beta"),
        "SFT coefficient": _at(model, "sft_coef"),
        "optimizer": str(_at(model, "optimizer", "class_path") or "").rpartition(".")[2] or None,
        "learning rate": _at(model, "optimizer", "init_args", "lr"),
        "batch size": _at(data, "batch_size"),
        "epochs": _at(data, "epochs"),
        "longest example (tokens)": _at(data, "max_length"),
        "weights trained": f"LoRA, r {lora.get('r', 16)}, alpha {lora.get('alpha', 32)}" if lora else None,
        "quantization": _at(model, "backbone", "quantization"),
        "data type": _at(model, "backbone", "dtype"),
        "γ of the pair weights": _at(data, "pairing", "gamma"),
        "seed": _at(config, "seed_everything"),
        "commit of the code": (manifest.commit or _UNKNOWN)[:_COMMIT_LENGTH] + (", changed" if manifest.dirty else ""),
        "finished": manifest.created or None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _figures(facts: CardFacts) -> list[str]:
    lines = ["## Figures", ""]
    if not facts.scores:
        return [*lines, "Unknown: no scores were given (`score --json`, then `--scores FILE`)."]
    for mode, scores in facts.scores.items():
        rows = [
            (
                *(benchmark, task, str(row.get("n", _UNKNOWN))),
                *(_figure(row, name) for name in ("f1", "recall", "false_positive_rate")),
                str(row.get("unparsed", _UNKNOWN)),
            )
            for benchmark, task, row in _rows(scores)
        ]
        lines += [
            f"{_source(scores)}. Mode {_text(mode)}, in percent, with 95 % bootstrap intervals in brackets. Overall "
            f"F1: {_figure(scores, 'overall_f1')}; accuracy: {_figure(scores, 'accuracy')}.",
            "",
            *_table(("benchmark", "task", "n", "F1 (positive class)", "recall", "FPR", "unparsed"), rows),
            "",
        ]
    if facts.form != "model":
        lines.append("The figures are those of the model before the export.")
    return lines


def _calibration(calibrations: Sequence[Calibration]) -> list[str]:
    lines = ["## Calibration", ""]
    if not calibrations:
        return [*lines, "None: scores have no threshold yet (`calibrate`)."]
    rows = [
        (
            *(each.name, each.score, f"{each.block:.6g}", f"{each.review:.6g}", f"{100 * each.false_positive_rate:g}"),
            f"{100 * each.expected:.2f} [{100 * each.interval[0]:.2f}, {100 * each.interval[1]:.2f}]",
            f"{each.negatives:,} of {each.records:,}",
        )
        for each in calibrations
    ]
    headings = ("task", "score", "block from", "review from", "wanted FPR %", "expected FPR % [95 %]", "negatives of n")
    return [
        *lines,
        "Thresholds on the score of the positive label, chosen on validation records. The rates hold for records that",
        "are drawn like these. A record without a score is unparsed, never passed.",
        "",
        *_table(headings, rows),
    ]


def _attacks(robustness: Mapping[str, Any] | None) -> list[str]:
    lines = ["## Attacks", ""]
    if robustness is None:
        return [*lines, "Unknown: no results were given (`robustness --json`, then `--robustness FILE`)."]
    families = robustness["families"]
    pooled = [row for row in families if str(row["benchmark"]).casefold() == "all"] or families
    rows = [
        (
            *(row["family"], row["benchmark"], row["task"], str(row["n"])),
            *(_number(row["before"]), _number(row["after"]), _number(row["drop"]) + _between(row["drop_interval"])),
        )
        for row in pooled
    ]
    return [
        *lines,
        f"{_source(robustness)}. F1 of the positive class in percent on records in their original form and as "
        "rewritten by each attack:",
        "",
        *_table(("attack", "benchmark", "task", "n", "before", "after", "drop [95 %]"), rows),
    ]


def _limits(facts: CardFacts) -> list[str]:
    notes = [
        "It was measured on the benchmarks above alone; other domains, languages and attacks are unknown."
        if facts.scores
        else "Nothing above says how well it does: no scores were given.",
        "It can be wrong with confidence, and its reasoning need not be the cause of its verdict.",
        "Texts that it judges are also part of its prompt; an author may try to steer the verdict.",
        "The licence of the model depends on those of its base model and data.",
    ]
    return ["## Limits", "", *(f"- {note}" for note in notes)]


def _task_row(task: Task) -> tuple[str, ...]:
    return (task.name, task.question.strip(), ", ".join(task.labels), task.positive)


def _nodes(tree: Node | None) -> list[Node]:
    """Return the nodes of a lineage, each path once."""
    return list({node.path: node for node in tree.walk()}.values()) if tree else []


def _data_sets(tree: Node | None) -> list[tuple[str, Any]]:
    """Return (class name, what is known of the data set) for each class that read records for the model."""
    names = [name for node in _nodes(tree) if node.kind == "code" for name in _classes(node.path, node.arguments)]
    return [(name, DATA_SETS.get(name)) for name in dict.fromkeys(names)]


def _classes(path: str, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield the class of a source, or those of the sources that it joins."""
    inner = [value for value in _flat(arguments.values()) if isinstance(value, Mapping) and "class_path" in value]
    if not inner:
        yield path.rpartition(".")[2]
    for source in inner:
        yield from _classes(str(source["class_path"]), source.get("init_args") or {})


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _hub_base(facts: CardFacts) -> str | None:
    hubs = [node.path for node in _nodes(facts.tree) if node.kind == "hub"]
    if facts.base is not None and not Path(facts.base).is_absolute():
        hubs.insert(0, facts.base)
    return _plain(hubs[0]) if hubs else None


def _version(tree: Node | None) -> str | None:
    return tree.manifest.versions.get("guardreasoner") if tree and tree.manifest else None


def _rows(scores: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (benchmark, task, numbers) in the order of the file."""
    for benchmark, tasks in (scores or {}).get("benchmarks", {}).items():
        for task, row in tasks.items():
            yield benchmark, task, row


def _source(figures: Mapping[str, Any]) -> str:
    """Return the name of the predictions that figures come from, and their path if the file has it."""
    files = ", ".join(map(str, figures.get("files") or ()))
    return f"Predictions {_text(figures.get('model', _UNKNOWN))}" + (f" ({_text(files)})" if files else "")


def _figure(row: Mapping[str, Any], name: str) -> str:
    return _number(row.get(name)) + _between(row.get(f"{name}_interval"))


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "–"


def _between(interval: Any) -> str:
    return f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


def _at(value: Any, *keys: str) -> Any:
    """Return a value inside nested mappings; None if it is absent."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the cells are texts from files and are escaped."""
    body = ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings), *body]


def _text(value: object) -> str:
    """Return a text as one line of Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", visible_line(str(value)))


def _plain(text: str) -> str:
    """Return a text as one line for YAML."""
    return visible_line(text)
