"""``export``: write a guard as an adapter, as a merged model, or as a folder that other tools can serve."""

import argparse
import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from guardreasoner.cli.commands._card import add_card_options, card_facts
from guardreasoner.cli.guard_engine import add_base_path
from guardreasoner.errors import InputError
from guardreasoner.records import Record, read_records
from guardreasoner.tasks import Task
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.manifest import record_made
from guardreasoner.workflow.output_checks import require_replaceable, require_writable
from guardreasoner.workflow.output_lock import locked_output
from guardreasoner.workflow.redaction import command_without_secrets
from guardreasoner.workflow.replacing import replacing_folder
from guardreasoner.workflow.terminal import show_line

if TYPE_CHECKING:
    from guardreasoner.guard.export import Dtype, ExportSource
    from guardreasoner.guard.verification import Verification
    from guardreasoner.model.backbone import Backbone

HELP = "export a guard: adapter, merged model, or a transformers folder whose chat template renders its prompts"

_FORMS = ("adapter", "merged", "transformers", "gguf")
_SHOWN = 20
"""Number of differences that are listed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="model folder, such as checkpoints/hsdpo")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    add_base_path(parser)
    parser.add_argument(
        "--as",
        dest="form",
        choices=_FORMS,
        default="merged",
        help="adapter: the LoRA adapter alone; merged (default): all weights, for this package; transformers: all "
        "weights, with a chat template that renders the guard's prompts, for vLLM and others",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="data type of the written weights; default: that of the fit, float32 if it is not known",
    )
    parser.add_argument(
        "--quantization",
        choices=("4bit", "none"),
        help="quantization of the base model while the adapter was trained; default: what the manifest says",
    )
    parser.add_argument(
        "--verify", type=_count, metavar="N", help="compare the verdicts on N records before and after the export"
    )
    parser.add_argument(
        "--records",
        metavar="PATH",
        help="records for --verify: a JSONL file, or predictions; default: an embedded test split",
    )
    parser.add_argument(
        "--max_new_tokens", type=_count, default=2048, metavar="N", help="longest answer of --verify (default 2048)"
    )
    add_card_options(parser)
    parser.add_argument("--push_to_hub", metavar="REPO", help="also upload the folder, as a private repository")
    parser.add_argument("--public", action="store_true", help="with --push_to_hub: make a new repository public")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder even if another command made it")


def run(args: argparse.Namespace) -> int:
    """Write the folder, compare verdicts, and upload it unless verdicts of a float32 export differ.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags.

    Returns:
        0, or 1 if verdicts of a float32 export differ.

    Raises:
        InputError: the model is missing, damaged or of another kind than the form needs, the output must not be
            replaced, a file of an option is invalid, or the upload fails.
    """
    from guardreasoner.cli.log_output import show_log
    from guardreasoner.guard.hub_upload import require_upload, upload

    show_log()
    _require_options(args)
    command = Command(("export", *args.argv), _config(args))
    require_replaceable(command)
    if args.push_to_hub:
        require_upload(args.push_to_hub)
    from guardreasoner.guard.export import export_source

    source = export_source(args.model, args.quantization, args.base_path)
    require_replaceable(Command(command.argv, command.config | {"base": {"path": source.base}}))
    card_facts(args.model, args)  # reports a wrong file before the work
    require_writable(command)
    with locked_output(args.out):
        verification = _export(args, source)
    if source.adapter and args.form == "adapter" and os.path.isabs(source.base):
        show_line(f"note: the adapter names its base model by a path of this machine: {source.base}")
    show_line(f"written: {args.out}")
    failed = verification is not None and verification.failed
    if args.push_to_hub and failed:
        show_line(f"not uploaded: the verdicts of {args.out} differ from those of {args.model}")
    elif args.push_to_hub:
        show_line(f"uploaded: {upload(args.out, args.push_to_hub, private=not args.public)}")
    return int(failed)


def _require_options(args: argparse.Namespace) -> None:
    if args.form == "gguf":
        raise InputError(
            "--as gguf: llama.cpp publishes its converter only in its repository, not as a package",
            "export --as transformers, then run llama.cpp's convert_hf_to_gguf.py on that folder; see docs/export.md",
        )
    if args.form == "adapter" and args.dtype:
        raise InputError("--dtype: an adapter is copied as it is", "leave it out, or use --as merged")
    if args.records and not args.verify:
        raise InputError("--records: only used with --verify N")
    if args.public and not args.push_to_hub:
        raise InputError("--public: only used with --push_to_hub REPO")


def _export(args: argparse.Namespace, source: "ExportSource") -> "Verification | None":
    """Write the folder in one step, with its card and manifest; return the outcome of the comparison."""
    from guardreasoner.guard.export import CARD, export_adapter, export_merged, export_transformers
    from guardreasoner.guard.model_card import model_card
    from guardreasoner.guard.verification import require_policies
    from guardreasoner.model.backbone import Backbone

    dtype: Dtype = args.dtype or ("bfloat16" if source.dtype == "bfloat16" else "float32")
    before = Backbone(
        source.path,
        quantization=source.quantization,
        dtype="float32" if dtype == "float32" else source.dtype,
        base_path=source.base_path,
    )
    tokenizer = before.prompt_tokenizer
    records = _records(args, tokenizer.format.tasks) if args.verify else []
    require_policies(records, tokenizer.format.tasks)
    verification = None
    with replacing_folder(args.out) as folder:
        if args.form == "adapter":
            export_adapter(source, folder)
        elif args.form == "merged":
            export_merged(source, tokenizer, dtype, folder)
        else:
            export_transformers(source, tokenizer, dtype, folder)
        if records:
            verification = _verify(args, source, before, records, folder, dtype)
        line = None if verification is None else verification.line()
        base = source.base if args.form == "adapter" else None
        facts = card_facts(args.model, args, args.form, base, line)
        (folder / CARD).write_text(model_card(facts), encoding="utf-8")
        inputs = [args.model, *([source.base] if source.adapter and os.path.isdir(source.base) else [])]
        config = _config(args) | {"dtype": dtype, "quantization": source.quantization}
        config |= {} if verification is None else {"verified": verification.as_json()}
        record_made(folder, ["export", *command_without_secrets(args.argv)], config, inputs)
    return verification


def _verify(
    args: argparse.Namespace,
    source: "ExportSource",
    before: "Backbone",
    records: Sequence[Record],
    folder: Path,
    dtype: "Dtype",
) -> "Verification":
    """Compare the verdicts and list the differences."""
    from guardreasoner.guard.verification import compare_verdicts, local_answers, plain_answers
    from guardreasoner.model.backbone import Backbone

    show_line(f"comparing verdicts on {len(records):,} records")
    if args.form == "transformers":
        after = plain_answers(before, folder, dtype, args.max_new_tokens)
    else:
        quantization, base_path = (source.quantization, source.base_path) if args.form == "adapter" else (None, None)
        exported = Backbone(str(folder), quantization=quantization, dtype=dtype, base_path=base_path)
        after = local_answers(exported, args.max_new_tokens)
    verification = compare_verdicts(before, after, records, dtype, args.max_new_tokens)
    for difference in verification.differences[:_SHOWN]:
        show_line(f"  {difference.line()}")
    if (hidden := len(verification.differences) - _SHOWN) > 0:
        show_line(f"  and {hidden:,} more")
    show_line(verification.line())
    return verification


def _records(args: argparse.Namespace, tasks: Sequence[Task]) -> list[Record]:
    """Return the records to compare verdicts on: by default embedded ones, with policies if a task judges by them.

    Raises:
        InputError: the file is missing or invalid, or has fewer records.
    """
    if args.records is None:
        if any(task.uses_policy for task in tasks):
            from guardreasoner.sources.embedded.policies import EmbeddedPolicies

            return EmbeddedPolicies(test=6 * ceil(args.verify / 6)).records("test")[: args.verify]
        from guardreasoner.sources.embedded import Embedded

        return Embedded(test=args.verify).records("test")
    if os.path.isdir(args.records):
        from guardreasoner.sources.predictions import read_predictions

        records = list(read_predictions(args.records).records)
    else:
        records = read_records(args.records)
    if len(records) < args.verify:
        raise InputError(f"--verify {args.verify:,}: {args.records} has {len(records):,} records")
    return records[: args.verify]


def _config(args: argparse.Namespace) -> dict[str, object]:
    """Return the options in the form of a stage's config."""
    return {
        "output": args.out,
        "overwrite": args.overwrite,
        "model": {"path": args.model},
        "as": args.form,
        "dtype": args.dtype,
    }


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, found {text!r}")
    return value
