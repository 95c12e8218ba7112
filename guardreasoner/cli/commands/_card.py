"""Options and facts of a model card, which ``export`` and ``card`` share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration.stored import calibrations_in
from guardreasoner.formats.stored import format_from_json
from guardreasoner.prompts import PromptFormat
from guardreasoner.records.jsonl import parse_json
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.workflow.guard_file import GUARD_FILE
from guardreasoner.workflow.lineage import lineage
from guardreasoner.workflow.manifest import Manifest, content_hash

if TYPE_CHECKING:
    from guardreasoner.guard.model_card import CardFacts


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--name``, ``--scores`` and ``--robustness``."""
    parser.add_argument("--name", metavar="NAME", help="name of the model in the card and in FILE; default: its folder")
    parser.add_argument("--scores", metavar="FILE", help="figures for the card: the JSON of score --json")
    parser.add_argument("--robustness", metavar="FILE", help="attacks for the card: the JSON of robustness --json")


def card_facts(
    model: str, args: argparse.Namespace, form: str = "model", base: str | None = None, verification: str | None = None
) -> "CardFacts":
    """Return what the card of a model folder says.

    Args:
        model: the folder.
        args: the options that :func:`add_card_options` declares.
        form: what the folder of the card holds.
        base: base model of an adapter that the folder of the card needs.
        verification: outcome of ``--verify`` in one sentence.

    Raises:
        InputError: a file is missing, is not what its option expects, or holds the figures of another model.
    """
    from guardreasoner.guard.model_card import CardFacts, model_scores, require_robustness

    name = args.name or Path(model).resolve().name
    guard_file = Path(model, GUARD_FILE)
    format = _stored_format(guard_file)
    tasks: Sequence[Task] = format.tasks if format is not None else GUARD_TASKS
    scores = model_scores(_json(args.scores), name, args.scores) if args.scores else {}
    robustness = require_robustness(_json(args.robustness), args.robustness) if args.robustness else None
    for row in scores.values():
        _require_same_model(model, row.get("model_hash"), args.scores)
    _require_same_model(model, (robustness or {}).get("model_hash"), args.robustness)
    return CardFacts(
        name=name,
        form=form,
        format=format if isinstance(format, PromptFormat) else None,
        tasks=tasks,
        tree=lineage([model])[0] if Manifest.read(model) else None,
        calibrations=calibrations_in(guard_file),
        scores=scores,
        robustness=robustness,
        verification=verification,
        base=base,
    )


def _require_same_model(model: str, made_by: Any, where: str) -> None:
    """Refuse figures whose stored hash is neither that of a model folder nor that of what it was exported from."""
    if not isinstance(made_by, str):
        return
    hashes, manifest = [content_hash(model)], Manifest.read(model)
    if manifest is not None and manifest.command[:1] == ["export"] and manifest.config:
        hashes += [manifest.inputs.get(manifest.config["model"]["path"], "")]
    if made_by not in hashes:
        raise InputError(
            f"{where}: figures of another model than {model}: expected content {hashes[0][:16]}, found {made_by[:16]}",
            "test this model, then score its predictions",
        )


def _stored_format(guard_file: Path) -> Any:
    """Return the format in a ``guard.json``; None if there is none."""
    if not guard_file.is_file():
        return None
    stored = _json(str(guard_file))
    format = stored.get("format") if isinstance(stored, dict) else None
    return format_from_json(format, str(guard_file)) if format is not None else None


def _json(path: str) -> Any:
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
