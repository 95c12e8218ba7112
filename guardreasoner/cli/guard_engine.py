"""Flags that load a guard: its engine, by the overlays that ``predict`` and ``test`` take, base model, quantization."""

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import resolve

if TYPE_CHECKING:
    from guardreasoner.generators import Generator
    from guardreasoner.model.backbone import Backbone

LOCAL = "local"
"""Name of the default engine, which needs no overlay."""

EngineFactory = Callable[["Backbone"], "Generator"]


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declare ``--engine``."""
    what = "local (default), plain, vllm, server or ray, as configs/engine/NAME.yaml has it, or your own such file"
    parser.add_argument("--engine", default=LOCAL, metavar="NAME|FILE", help=what)


def add_base_path(parser: argparse.ArgumentParser) -> None:
    """Declare ``--base_path``."""
    what = "base model of an adapter folder that names another place (default: the place that it names)"
    parser.add_argument("--base_path", metavar="FOLDER", help=what)


def add_quantization(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Declare ``--quantization``; with ``of``, that of another model, such as ``--second_quantization``."""
    which = f"the weights of the {of} model" if of else "the weights"
    name = f"--{of}_quantization" if of else "--quantization"
    parser.add_argument(name, choices=("4bit",), help=f"load {which} as NF4, as QLoRA trains on them")


def engine_factory(given: str, settings: Mapping[str, Any] | None = None) -> EngineFactory | None:
    """Return the factory of an engine that answers greedily.

    Args:
        given: ``local``, the name of an overlay in ``configs/engine``, or an overlay file.
        settings: arguments of the engine that replace those of the overlay.

    Returns:
        The factory; None for ``local``, since :meth:`guardreasoner.Guard.load` makes that engine itself.

    Raises:
        InputError: there is no such overlay, or it has no valid engine.
    """
    if given == LOCAL:
        return None
    overlay = given if "/" in given or given.endswith((".yaml", ".yml")) else f"engine/{given}"
    greedy = ("--recipe.temperature", "0", "--recipe.top_p", "1")
    try:
        config = resolve(["predict", "--config", overlay, *greedy]).config
    except InputError as error:
        raise InputError(str(error).replace(f"--config {overlay}", f"--engine {given}"), error.hint) from None
    found: Any = config
    for key in ("model", "init_args", "generator"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, dict) or "class_path" not in found:
        raise InputError(f"--engine {given}: has no model.init_args.generator", "see configs/engine/vllm.yaml")
    found = {**found, "init_args": {**(found.get("init_args") or {}), **(settings or {})}}
    return _greedy_factory(_instantiated(found, given), given)


def _instantiated(found: Mapping[str, Any], given: str) -> EngineFactory:
    from jsonargparse import ArgumentParser

    from guardreasoner.cli.parse_errors import config_error
    from guardreasoner.generators import Generator
    from guardreasoner.model.backbone import Backbone

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--generator", type=Callable[[Backbone], Generator])
    try:
        parsed = parser.parse_object({"generator": dict(found)})
        made: EngineFactory = parser.instantiate_classes(parsed).generator
    except argparse.ArgumentError as error:
        told = config_error(str(error), parser, ["predict"])
        raise InputError(f"--engine {given}: {told}", told.hint) from None
    return made


def _greedy_factory(factory: EngineFactory, given: str) -> EngineFactory:
    def make(backbone: "Backbone") -> "Generator":
        engine = factory(backbone)
        if not engine.is_greedy:
            what = "samples or leaves the temperature to the server, but a guard answers greedily"
            raise InputError(f"--engine {given}: {what}", "set temperature: ${recipe.temperature}, or 0")
        return engine

    return make
