"""Train reasoning guard models: R-SFT, hard-sample mining, HS-DPO, evaluation.

The public names are listed in ``__init__.pyi``. They can be used in Python and as a ``class_path`` in YAML, for example
``guardreasoner.HSDPOModule``. Each is imported when it is first used, so ``import guardreasoner`` loads no torch.
"""

import sys
from importlib import import_module
from typing import Any

from guardreasoner.moved import MovedModules, public_names

__version__ = "0.1.0"

sys.meta_path.append(MovedModules())


def __getattr__(name: str) -> Any:
    if name not in public_names():
        raise AttributeError(f"module 'guardreasoner' has no attribute {name!r}")
    return getattr(import_module(public_names()[name]), name)


__all__ = list(public_names())


def __dir__() -> list[str]:
    return sorted([*globals(), *public_names()])
