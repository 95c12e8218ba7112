"""Public short names and renamed names: maps both to current full paths.

Old names work for one more release, each with one warning line, in config files, flags and Python imports. To end
that, empty ``MOVED`` and ``RENAMED_KEYS``.
"""

import ast
import difflib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "guardreasoner"
_FOLDER = Path(__file__).parent

MOVED: dict[str, str] = {
    "adapter": "model.lora",
    "attacks": "evaluation.attacks",
    "attacks.spellings": "evaluation.attacks.obfuscation",
    "attacks.surroundings": "evaluation.attacks.padding",
    "attention": "model.packed_attention",
    "attention.Beginning": "model.packed_attention.SharedPrefix",
    "attention.Tree": "model.packed_attention.PackedContext",
    "backbone": "model.backbone",
    "callbacks.ScoreFigures": "callbacks.ScorePlots",
    "callbacks.figures": "callbacks.tensorboard",
    "callbacks.hard_samples": "callbacks.hard_sample_accuracy",
    "callbacks.score_figures": "callbacks.score_plots",
    "callbacks.score_figures.ScoreFigures": "callbacks.score_plots.ScorePlots",
    "callbacks.texts": "callbacks.sample_texts",
    "commands": "cli.commands",
    "comparison": "evaluation.comparison",
    "conclusions": "evaluation.conclusions",
    "config": "workflow.config",
    "contamination": "sources.contamination",
    "contamination.Held": "sources.contamination.ContaminationIndex",
    "data.benchmark": "evaluation.benchmark_data",
    "data.loading": "training.loaders",
    "data.preference": "training.preference_data",
    "data.reasoning": "training.reasoning_data",
    "data.training": "training.training_data",
    "data.training.Subject": "training.training_data.TrainingItem",
    "diagnosis.ids": "diagnosis.id_checks",
    "diagnosis.targets": "diagnosis.target_checks",
    "encoder": "model.prompt_tokenizer",
    "encoder.Encoder": "model.prompt_tokenizer.PromptTokenizer",
    "example_store": "training.example_store",
    "freshness": "workflow.staleness",
    "freshness.State": "workflow.staleness.StageState",
    "generators.cache": "generators.reserved_cache",
    "generators.choice": "generators.token_sampler",
    "generators.choice.Choice": "generators.token_sampler.TokenSampler",
    "generators.patience": "generators.retries",
    "generators.patience.Patience": "generators.retries.RetryWait",
    "generators.running": "generators.decode_cache",
    "generators.running.Running": "generators.decode_cache.DecodeCache",
    "generators.side_by_side": "generators.parallel",
    "generators.side_by_side.side_by_side": "generators.parallel.parallel_map",
    "generators.slots": "generators.server",
    "journal": "generators.rollout_log",
    "journal.Journal": "generators.rollout_log.RolloutLog",
    "lineage": "workflow.lineage",
    "manifest": "workflow.manifest",
    "mining.measures": "mining.metrics",
    "mining.picking": "mining.selection",
    "mining.plots": "report.mining_plots",
    "misspelt": "cli.parse_errors",
    "model_folder": "model.loading",
    "modules.estimate": "synthesis.teacher",
    "modules.estimate.Estimate": "synthesis.teacher.CostEstimator",
    "modules.guard": "evaluation.guard_module",
    "modules.hsdpo": "training.hsdpo",
    "modules.ledger": "synthesis.answer_log",
    "modules.ledger.Ledger": "synthesis.answer_log.AnswerLog",
    "modules.metrics": "evaluation.verdict_metrics",
    "modules.optimization": "training.step",
    "modules.rsft": "training.rsft",
    "modules.teacher": "synthesis.teacher",
    "objective": "training.losses",
    "objective.adaptive_weight": "mining.weights.adaptive_weight",
    "objective.sequence_logps": "model.log_probs.sequence_logps",
    "objective.sequence_nll": "model.log_probs.sequence_nll",
    "objective.token_logps": "model.log_probs.token_logps",
    "options": "cli.options",
    "packing": "model.packing",
    "pipeline": "workflow.pipeline",
    "plotting": "report.plot",
    "progress": "generators.progress",
    "ratings": "review.ratings",
    "ratings.summary": "review.rating_summary",
    "reasoning_quality": "evaluation.reasoning_quality",
    "reasoning_quality.Estimate": "evaluation.intervals.Estimate",
    "recipe": "workflow.recipe",
    "redaction": "workflow.redaction",
    "reference": "training.reference",
    "report.comparisons": "report.comparison_tables",
    "report.curves": "report.training_curves",
    "report.drawing": "report.svg",
    "report.explanation": "report.explanation_text",
    "report.flipped": "report.flip_examples",
    "report.mining_screen": "report.mining_tables",
    "report.origin_sections": "report.lineage_sections",
    "report.origins": "report.run_lineage",
    "report.page": "report.doctor_page",
    "report.plots": "report.diagnosis_plots",
    "report.ratings": "report.rating_tables",
    "report.reasoning": "report.reasoning_table",
    "report.rendering": "report.page_template",
    "report.run_page": "report.comparison_page",
    "report.scores": "report.score_tables",
    "report.tables": "report.table",
    "report.verdict": "report.comparison_summary",
    "review.cases": "review.items",
    "robustness": "evaluation.robustness",
    "sampling": "training.sampler",
    "scoring": "evaluation.scoring",
    "scoring.bootstrap": "evaluation.intervals",
    "scoring.figures": "evaluation.scoring.metrics",
    "scoring.outcomes": "evaluation.scoring.labels",
    "scoring.plots": "report.score_plots",
    "scoring.shares": "evaluation.intervals",
    "sources.embedded.cases": "sources.embedded.scenarios",
    "sources.together": "sources.concat",
    "sources.together.Together": "sources.concat.Concat",
    "splits": "sources.splits",
    "tokens": "model.batch",
    "validation": "sources.row_parser",
    "validation.RowCheck": "sources.row_parser.RowParser",
}
"""New path by old path, both below ``guardreasoner``: modules, and renamed objects. The longest match applies."""

RENAMED_KEYS: dict[str, str] = {
    "leave_out_held": "skip_contaminated",
    "pairing.mines": "sources_by_model",
    "pairing.reading": "parser",
    "columns.words": "label_map",
    "model.preference": "objective",
    "pairs.mines": "sources_by_model",  # flags of the verb ``pairs``
    "pairs.reading": "parser",
}
"""New name by old key, or by "owner.key" for a key that is renamed only directly below its owner."""

_CONFIG_KEYS = [(old, new) for old, new in RENAMED_KEYS.items() if not old.startswith("pairs.")]

_NAMES_OF_USERS = {"keep", "labels", "label_map", "sources_by_model"}
"""Keys of mappings whose keys and values are column names, labels and sources of the user's own."""

_PATH_KEYS = {"output", "base", "checkpoints", "logs", "path", "file", "folder", "dir", "directory", "name"}
"""Words of keys whose values are not class paths."""

Warn = Callable[[str, str], None]

_PATH = re.compile(rf"{_PACKAGE}(?:\.\w+)+")
_INTERPOLATED = re.compile(r"\$\{([\w.]+)\}")


@cache
def public_names() -> dict[str, str]:
    """Return the module of each public name, as ``guardreasoner/__init__.pyi`` lists them."""
    tree = ast.parse((_FOLDER / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def current_path(path: str) -> str:
    """Return the current dotted path of a module or object of this package; return any other text unchanged."""
    parts = path.split(".")
    if parts[0] == _PACKAGE:
        for end in range(len(parts), 1, -1):
            if new := MOVED.get(".".join(parts[1:end])):
                return ".".join([_PACKAGE, new, *parts[end:]])
    return path


def full_path(path: str) -> str:
    """Return the current full path of an object: that of ``HSDPOModule`` for ``guardreasoner.HSDPOModule``."""
    path = current_path(path)
    package, _, name = path.partition(".")
    module = public_names().get(name) if package == _PACKAGE else None
    return f"{module}.{name}" if module else path


def short_path(path: str) -> str:
    """Return the public name of an object if it has one, else its path."""
    package, _, name = path.rpartition(".")
    return f"{_PACKAGE}.{name}" if public_names().get(name) in (package, f"{package}.{name}") else path


def similar_path(path: str) -> str | None:
    """Return the path of the known object whose name is most similar to that of ``path``; None if none is similar."""
    known = {name: f"{_PACKAGE}.{name}" for name in public_names()}
    for old, new in MOVED.items():
        known.setdefault(old.rpartition(".")[2], short_path(f"{_PACKAGE}.{new}"))
        known.setdefault(new.rpartition(".")[2], short_path(f"{_PACKAGE}.{new}"))
    near = difflib.get_close_matches(path.rpartition(".")[2], known, n=1, cutoff=0.7)
    return known[near[0]] if near else None


def warn_once(old: str, new: str, where: str = "") -> None:
    """Print one line for an old name, once per process."""
    if old not in _warned:
        _warned.add(old)
        print(f"warning: {where}{old} is now {new}; the old name works until the next release", file=sys.stderr)


_warned: set[str] = set()


def ignore(old: str, new: str) -> None:
    """Print nothing; for old names in files that an earlier version wrote."""


def current_config(value: Any, owner: str = "", warn: Warn = warn_once) -> Any:
    """Return a config, or a part of one, with current keys and full paths of this package's classes.

    Args:
        value: mappings, lists and scalars of a YAML file.
        owner: key of the value.
        warn: called with each old name and its current name.
    """
    if isinstance(value, dict):
        if owner in _NAMES_OF_USERS:
            return value
        config = {}
        for key, inner in value.items():
            if key == "init_args" and isinstance(inner, dict) and _is_foreign(value.get("class_path")):
                config[key] = {name: current_config(one, str(name), warn) for name, one in inner.items()}
            else:
                new = current_key(key, owner, warn)
                config[new] = current_config(inner, _owner(str(new), owner), warn)
        return config
    if isinstance(value, list):
        return [current_config(inner, owner, warn) for inner in value]
    return current_text(value, owner, warn) if isinstance(value, str) else value


def current_key(key: Any, owner: str = "", warn: Warn = warn_once) -> Any:
    """Return the current name of a key; it may be dotted and end in ``+``, as in ``data.pairing.mines+``."""
    if not isinstance(key, str):
        return key
    parts = key.removesuffix("+").split(".")
    for position, part in enumerate(parts):
        # A value that is parsed on its own, such as JSON after a flag, has no owner.
        unowned = next((new for old, new in _CONFIG_KEYS if not owner and old.endswith(f".{part}")), None)
        new = RENAMED_KEYS.get(f"{owner}.{part}") or RENAMED_KEYS.get(part) or unowned
        if new:
            warn(f"key {part!r}", repr(new))
            parts[position] = new
        owner = _owner(parts[position], owner)
    return ".".join(parts) + ("+" if key.endswith("+") else "")


def current_text(text: str, key: str = "", warn: Warn = warn_once) -> str:
    """Return a text with current keys in its ``${…}``, or the current full path of a class of this package.

    Args:
        text: the value.
        key: key of the value; values of keys for paths are never class paths.
        warn: called with each old name and its current name.
    """
    if _PATH.fullmatch(text) and (key == "class_path" or _PATH_KEYS.isdisjoint(key.split("_"))):
        new = current_path(text)
        if new != text and _is_defined(new):
            warn(text, short_path(new))
        return full_path(new)
    return _INTERPOLATED.sub(lambda match: f"${{{current_key(match[1], warn=warn)}}}", text)


def current_argv(argv: Sequence[str], warn: Warn = warn_once) -> list[str]:
    """Return a command line with current flags and full paths.

    Args:
        argv: verb, then flags.
        warn: called with each old name and its current name.
    """
    current, key = list(argv[:1]), ""
    for word in argv[1:]:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        name = f"--{current_key(flag[2:], argv[0], warn)}" if len(flag) > 2 else flag
        is_flag = word.startswith("--")
        key = name.rpartition(".")[2].lstrip("-") if is_flag else key
        current.append(f"{name}{equals}{current_text(value, key, warn)}")
        key = key if is_flag and not equals else ""
    return current


class MovedModules(MetaPathFinder, Loader):
    """Import a module by its old name, as an empty module that looks its attributes up in the new modules."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec for an old module, or for a former package of old modules."""
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        is_package_of_old = any(f"{_PACKAGE}.{old}".startswith(f"{fullname}.") for old in MOVED)
        new = current_path(fullname)
        if is_package_of_old or (new != fullname and _exists(new)):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and make the module look its attributes up in the new modules."""
        old = module.__name__
        if (new := current_path(old)) != old:
            warnings.warn(f"{old} is now {new}; import from there", FutureWarning, stacklevel=2)
        module.__getattr__ = lambda name: _attribute(f"{old}.{name}")  # type: ignore[method-assign]


def _attribute(path: str) -> Any:
    new = current_path(path)
    if _exists(new):
        return import_module(new)
    module, _, name = new.rpartition(".")
    if name.startswith("__") or not _exists(module):
        raise AttributeError(f"module {path.rpartition('.')[0]!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def _exists(module: str) -> bool:
    path = _FOLDER.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _is_defined(path: str) -> bool:
    """Return whether the file of a module mentions the last name of a dotted path; nothing is imported."""
    module, _, name = full_path(path).rpartition(".")
    file = _FOLDER.joinpath(*module.split(".")[1:])
    files = [file for file in (file.with_suffix(".py"), file / "__init__.py") if file.is_file()]
    return _exists(path) or any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in files)


def _owner(key: str, owner: str) -> str:
    """Return the owner of the keys below ``key``; keys in ``init_args`` belong to the owner of the class."""
    return owner if key == "init_args" else key


def _is_foreign(class_path: Any) -> bool:
    """Return whether a class belongs to another package; the names of its arguments are its own."""
    return isinstance(class_path, str) and not class_path.startswith(f"{_PACKAGE}.")
