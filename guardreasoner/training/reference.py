"""The frozen reference of HS-DPO: the R-SFT model, kept as a copy, as a second adapter, or as stored numbers."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Example, two_row
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.model.packing import packed
from guardreasoner.records import replacing_file
from guardreasoner.workflow.manifest import fingerprint


class Reference(ABC):
    """Gives log π_ref of whole completions. It sees the backbone once, before the first step of training."""

    @abstractmethod
    def prepare(self, backbone: Backbone, examples: Sequence[Example]) -> None:
        """Freeze what the backbone is now.

        Args:
            backbone: the loaded R-SFT model, not yet trained further.
            examples: every example that will be asked for.
        """

    @abstractmethod
    def sequence_logps(self, batch: Batch) -> Tensor:
        """Return (sequences,) log-probabilities in nats, without a gradient."""


class FrozenCopy(Reference):
    """A second set of weights: the simplest, at the price of its memory."""

    def __init__(self) -> None:
        self._copy: Backbone | None = None

    def prepare(self, backbone: Backbone, examples: Sequence[Example]) -> None:
        """Copy the network."""
        self._copy = copy.deepcopy(backbone).eval().requires_grad_(False)

    @torch.no_grad()
    def sequence_logps(self, batch: Batch) -> Tensor:
        """Run the copy."""
        assert self._copy is not None, "prepare() comes first"
        self._copy.to(batch.input_ids.device)
        return sequence_logps(self._copy.completion_logps(batch), batch.sequence, batch.sequences)


class FrozenAdapter(Reference):
    """A second, frozen copy of the R-SFT adapter on the same base weights; for LoRA.

    Switching the adapter off would give the *base* model, not the R-SFT model. A model whose adapter is new (R-SFT
    trained all weights) is the exception: there "off" is the R-SFT model, and a fresh adapter changes nothing, so the
    copy is the same.
    """

    NAME = "reference"

    def __init__(self) -> None:
        self._backbone: Backbone | None = None

    def prepare(self, backbone: Backbone, examples: Sequence[Example]) -> None:
        """Copy the adapter's weights into a second adapter that is never trained.

        Raises:
            InputError: the model has no adapter.
        """
        network = backbone.network
        if not backbone.has_adapter:
            raise InputError(
                "model.reference: FrozenAdapter needs a model with an adapter (LoRA); this one trains all its weights",
                "use guardreasoner.training.reference.FrozenCopy or guardreasoner.training.reference.Precomputed",
            )
        config = copy.deepcopy(network.peft_config["default"])
        config.inference_mode = True
        config.lora_dropout = 0.0  # its new layers start in training mode
        network.add_adapter(self.NAME, config)
        with torch.no_grad():
            own = dict(network.named_parameters())
            for name, parameter in own.items():
                if f".{self.NAME}." in name:
                    parameter.copy_(own[name.replace(f".{self.NAME}.", ".default.")])
        self._backbone = backbone
        self._select("default")

    @torch.no_grad()
    def sequence_logps(self, batch: Batch) -> Tensor:
        """Run the backbone with the frozen adapter, then put the trained one back."""
        assert self._backbone is not None, "prepare() comes first"
        self._select(self.NAME)
        try:
            return sequence_logps(self._backbone.completion_logps(batch), batch.sequence, batch.sequences)
        finally:
            self._select("default")

    def _select(self, name: str) -> None:
        # set_adapter makes what it selects trainable unless told otherwise
        assert self._backbone is not None
        self._backbone.network.base_model.set_adapter(name, inference_mode=name == self.NAME)
        for parameter_name, parameter in self._backbone.network.named_parameters():
            if "lora_" in parameter_name:
                parameter.requires_grad_(f".{self.NAME}." not in parameter_name)


class Precomputed(Reference):
    """Every log-probability computed once before training, stored under the fingerprint of model, tokenizer and pairs.

    Args:
        folder: where the numbers are kept; a later run on the same model and pairs reads them.
        batch_size: pairs that are computed at once.
    """

    def __init__(self, folder: str = "logs/reference", batch_size: int = 16) -> None:
        if batch_size < 1:
            raise InputError(f"model.reference.batch_size must be at least 1, got {batch_size}")
        self.folder = Path(folder)
        self.batch_size = batch_size
        self._places: dict[str, int] = {}
        self._logps = torch.zeros(0, 2, dtype=torch.float64)

    def prepare(self, backbone: Backbone, examples: Sequence[Example]) -> None:
        """Read the stored values, or compute and store them.

        Raises:
            InputError: a stored value is not a finite number, or belongs to another model or other pairs.
        """
        digest = sha256(fingerprint([backbone.weights_fingerprint(), backbone.dtype, backbone.quantization]).encode())
        lengths = []
        for place, example in enumerate(_each(examples)):
            digest.update(repr((example.id, example.prompt, example.completions)).encode())
            lengths.append(example.length)
            self._places[_key(example.id, *map(len, example.completions))] = place
        key = digest.hexdigest()
        path = self.folder / f"{key[:32]}.safetensors"
        values = _stored(path, key) if path.is_file() else self._compute(backbone, examples, np.argsort(lengths))
        if values.shape[0] != len(examples) or not torch.isfinite(values).all():
            raise InputError(f"{path}: a stored reference value is not a finite number", f"delete {path} and run again")
        if not path.is_file():
            with replacing_file(path) as partial:
                save_file({"logps": values}, partial, metadata={_MADE_FOR: key})
        self._logps = values

    def sequence_logps(self, batch: Batch) -> Tensor:
        """Look the values up; chosen ones first, then rejected ones."""
        lengths = torch.bincount(batch.sequence, minlength=batch.sequences).tolist()
        count = len(batch.ids)
        places = [self._places[_key(name, *lengths[place::count])] for place, name in enumerate(batch.ids)]
        return self._logps[places].T.reshape(-1).to(batch.input_ids.device)

    @torch.no_grad()
    def _compute(self, backbone: Backbone, examples: Sequence[Example], order: np.ndarray) -> Tensor:
        """Return (examples, 2) values; pairs of like length are computed together."""
        backbone.eval()
        device = next(backbone.parameters()).device
        collate = packed if backbone.supports_packing else two_row
        values = torch.zeros(len(order), 2, dtype=torch.float64)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size].tolist()
            batch = collate([examples[place] for place in places], backbone.prompt_tokenizer.padding).to(device)
            logps = sequence_logps(backbone.completion_logps(batch), batch.sequence, batch.sequences)
            values[places] = logps.reshape(2, len(places)).T.double().cpu()
        return values


def _each(examples: Sequence[Example]) -> Iterator[Example]:
    return (examples[place] for place in range(len(examples)))


_MADE_FOR = "model, tokenizer and pairs"


def _stored(path: Path, key: str) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            made_for, values = (file.metadata() or {}).get(_MADE_FOR), file.get_tensor("logps")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a file of reference values ({error})", f"delete {path} and run again") from None
    if made_for != key:
        raise InputError(f"{path}: reference values of another model or other pairs", f"delete {path} and run again")
    return values


def _key(record_id: str, *lengths: int) -> str:
    return "/".join([record_id, *map(str, lengths)])
