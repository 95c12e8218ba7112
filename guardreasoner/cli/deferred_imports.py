"""Leave out parts of other packages that no command uses and that take seconds to import.

- ``import lightning`` imports all of torchmetrics: metrics of audio, images and text, hence scipy and transformers, and
  matplotlib. Lightning needs the classes ``Metric`` and ``MetricCollection``. Here the ``__init__.py`` of torchmetrics'
  packages runs only when a name is requested that cannot be found without it, and metrics have no ``plot()``.
- ``import lightning`` imports ``torch._dynamo``, the compiler, for ``isinstance`` checks and to exclude a method from
  compilation. Here both look for it when they are used. Optimizers and models import it as ever.
- The network classes of transformers import losses of object detection, hence scipy. Here they do not find it.

Nothing else of these packages is changed, and what is already imported stays as it is.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_DEFERRED: dict[str, dict[str, str]] = {
    "torchmetrics": {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"},
    "torchmetrics.classification": {},
    "torchmetrics.functional": {},
    "torchmetrics.functional.classification": {},
}
"""Packages whose ``__init__.py`` runs when it is needed, each with the names that are found without it."""

_USES_OF_DYNAMO = (
    "lightning.fabric.wrappers",
    "lightning.pytorch.utilities.compile",
    "lightning.pytorch.trainer.connectors.logger_connector.result",
)
"""Modules that import ``torch._dynamo`` to recognize compiled modules, or to keep a method from being compiled."""

_DYNAMO = "torch._dynamo"


def defer_imports() -> None:
    """Leave these parts out in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds some modules as usual, but wraps their loaders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wrapper = _wrapper(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if wrapper else None
        if spec is not None and spec.loader is not None and wrapper is not None:
            spec.loader = wrapper(spec.loader)
        return spec


def _wrapper(name: str) -> "type[_Wrapper] | None":
    if name in _DEFERRED:
        return _WithoutInit
    if name in _USES_OF_DYNAMO:
        return _WithoutDynamo
    if name == "transformers.loss.loss_utils":
        return _WithoutScipy
    return _WithoutPlots if name == "torchmetrics.utilities.imports" else None


class _Wrapper(Loader):
    """Loader that executes a module in its own way, and delegates everything else to ``loader``."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _WithoutInit(_Wrapper):
    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Package
        if module.__name__ == "torchmetrics":
            import_module("torchmetrics.utilities")  # its modules import each other, and must start here


class _Package(ModuleType):
    """A package whose ``__init__.py`` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        found_in = _DEFERRED[self.__name__]
        if name in found_in:
            return getattr(import_module(found_in[name]), name)
        if name == "__version__":
            return import_module("torchmetrics.__about__").__version__
        if name == "_logger":
            return logging.getLogger(self.__name__)
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


class _WithoutPlots(_Wrapper):
    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module._MATPLOTLIB_AVAILABLE = False  # type: ignore[attr-defined]


class _WithoutScipy(_Wrapper):
    """Losses of object detection import scipy where they find it."""

    def exec_module(self, module: ModuleType) -> None:
        import transformers.utils

        found, transformers.utils.is_scipy_available = transformers.utils.is_scipy_available, lambda: False
        try:
            self.loader.exec_module(module)
        finally:
            transformers.utils.is_scipy_available = found


class _WithoutDynamo(_Wrapper):
    def exec_module(self, module: ModuleType) -> None:
        if _DYNAMO in sys.modules:
            self.loader.exec_module(module)
            return
        import torch

        stand_in = ModuleType(_DYNAMO)
        stand_in.OptimizedModule = _OptimizedModule  # type: ignore[attr-defined]
        sys.modules[_DYNAMO] = stand_in
        disable, torch.compiler.disable = torch.compiler.disable, _disable
        try:
            self.loader.exec_module(module)
        except ImportError:  # another version of Lightning, which needs more of it
            sys.modules.pop(_DYNAMO, None)
            self.loader.exec_module(module)
        finally:
            torch.compiler.disable = disable
            if sys.modules.get(_DYNAMO) is stand_in:
                del sys.modules[_DYNAMO]


def _disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Replace ``torch.compiler.disable``: the same, but the compiler is imported at the first call of the function."""
    import torch

    return torch._disable_dynamo(fn, recursive)


class _IsCompiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        # Nothing has been compiled before the compiler was imported.
        dynamo = sys.modules.get(_DYNAMO)
        return dynamo is not None and isinstance(instance, dynamo.OptimizedModule)


class _OptimizedModule(metaclass=_IsCompiled):
    """Stands for ``torch._dynamo.OptimizedModule`` in checks."""
