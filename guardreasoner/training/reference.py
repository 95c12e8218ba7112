"""The frozen reference of HS-DPO and GRPO: the R-SFT model as a copy, a second adapter, or stored log-probabilities."""

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Collator, Example, two_row
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.model.packing import packed
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.ranges import Count

log = logging.getLogger("guardreasoner")


class Reference(ABC):
    """Gives log π_ref of whole completions; prepared once, before the first training step."""

    is_initial_policy = False
    """Whether this is the policy before its first step, so that all margins must be 0 there."""

    @abstractmethod
    def prepare(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        trainer: Trainer | None = None,
        policy: Backbone | None = None,
    ) -> None:
        """Freeze the current state of the backbone.

        Args:
            backbone: the loaded R-SFT model before HS-DPO.
            examples: all examples whose reference will be requested.
            trainer: the trainer, whose processes share the work; None for a single process.
            policy: the model that is trained, if it is another object than ``backbone``, as in a resumed run.
        """

    @abstractmethod
    def sequence_logps(self, batch: Batch) -> Tensor:
        """Return the log-probabilities of a batch's completions, (B,) in nats, without gradient."""


class FrozenModel(Reference):
    """A reference that is run on each batch, so that it knows completions that were sampled during training."""

    is_initial_policy = True

    @abstractmethod
    def token_logps(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Return the log-probability of each completion token, (N,) in nats, without gradient.

        Args:
            batch: any batch.
            temperature: sampling temperature of the distribution, > 0.
        """

    def sequence_logps(self, batch: Batch) -> Tensor:
        """Run the reference and sum over each completion."""
        return sequence_logps(batch.weighted(self.token_logps(batch)), batch.sequence, batch.sequences)


class FrozenCopy(FrozenModel):
    """A second set of weights: the simplest reference, at the price of its memory."""

    def __init__(self) -> None:
        self._copy: Backbone | None = None

    def prepare(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        trainer: Trainer | None = None,
        policy: Backbone | None = None,
    ) -> None:
        """Copy the network, unless it is a copy already.

        Raises:
            InputError: the weights are sharded.
        """
        _require_whole_weights(backbone, "FrozenCopy")
        frozen = copy.deepcopy(backbone) if policy is None else backbone
        self._copy = frozen.eval().requires_grad_(False)

    @torch.no_grad()
    def token_logps(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Run the copy."""
        assert self._copy is not None, "call prepare() first"
        self._copy.to(batch.input_ids.device)
        logps: Tensor = self._copy(batch, temperature=temperature)
        return logps


class FrozenAdapter(FrozenModel):
    """A second, frozen copy of the R-SFT adapter on the same base weights; for LoRA.

    Disabling the adapter instead would give the *base* model, not the R-SFT model. The two are the same only if R-SFT
    trained all weights and the adapter is new; a copy of that adapter, which changes nothing, is then right too.
    """

    NAME = "reference"

    def __init__(self) -> None:
        self._backbone: Backbone | None = None

    def prepare(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        trainer: Trainer | None = None,
        policy: Backbone | None = None,
    ) -> None:
        """Copy the adapter's weights into a second adapter that is never trained.

        Raises:
            InputError: the model has no adapter, or one that trains biases, which belong to the base model; or the
                weights are sharded.
        """
        _require_whole_weights(backbone, "FrozenAdapter")
        trained = policy or backbone
        network = trained.network
        if not backbone.has_adapter:
            raise InputError(
                "model.reference: FrozenAdapter needs a model with an adapter (LoRA), but this one trains all weights",
                "use guardreasoner.FrozenCopy or guardreasoner.Precomputed",
            )
        config = copy.deepcopy(network.peft_config["default"])
        if config.bias != "none":
            raise InputError(
                "model.reference: FrozenAdapter cannot freeze the biases that this adapter trains (bias in its config)",
                "use guardreasoner.FrozenCopy or guardreasoner.Precomputed",
            )
        config.inference_mode = True
        config.lora_dropout = 0.0  # its new layers start in training mode
        config.init_lora_weights = True  # overwritten below; some other ways to start change the base weights
        # validate calls this in inference mode, whose tensors a later fit could not change
        with torch.inference_mode(False), torch.no_grad():
            if self.NAME not in network.peft_config:  # a module that was validated or fitted before has it
                network.add_adapter(self.NAME, config)
            initial = dict(backbone.network.named_parameters())
            for name, parameter in network.named_parameters():
                if self.owns(name):
                    parts = ("default" if part == self.NAME else part for part in name.split("."))
                    parameter.copy_(initial[".".join(parts)])
        self._backbone = trained
        self._select("default")

    @torch.no_grad()
    def token_logps(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Run the backbone with the frozen adapter, then activate the trained adapter again."""
        assert self._backbone is not None, "call prepare() first"
        self._select(self.NAME)
        try:
            logps: Tensor = self._backbone(batch, temperature=temperature)
            return logps
        finally:
            self._select("default")

    @classmethod
    def owns(cls, parameter: str) -> bool:
        """Return whether a parameter, by its name, belongs to the frozen adapter; an embedding's has it at the end."""
        return cls.NAME in parameter.split(".")

    def _select(self, name: str) -> None:
        # set_adapter makes the selected adapter trainable unless inference_mode is set
        assert self._backbone is not None
        self._backbone.network.base_model.set_adapter(name, inference_mode=name == self.NAME)
        for parameter_name, parameter in self._backbone.network.named_parameters():
            if "lora_" in parameter_name:
                parameter.requires_grad_(not self.owns(parameter_name))


class Precomputed(Reference):
    """Log-probabilities computed once before training and stored under the fingerprint of model, tokenizer and pairs.

    Several processes compute a share each. Only the first one reads and writes the file; the others get its content.

    Args:
        folder: folder of the stored values; a later run on the same model and pairs reads them.
        batch_size: examples per forward pass.
    """

    is_initial_policy = True

    def __init__(self, folder: str = "logs/reference", batch_size: Count = 16) -> None:
        if batch_size < 1:
            raise InputError(f"model.reference.batch_size must be at least 1, got {batch_size}")
        self.folder = Path(folder)
        self.batch_size = batch_size
        self._keys = np.zeros(0, dtype=np.uint64)
        """(examples,), hashes of id and completion lengths in ascending order; strings would take ten times as much."""
        self._first = np.zeros(0, dtype=np.int64)
        """(examples,), the index of the first value of the example of each key."""
        self._logps = torch.zeros(0, dtype=torch.float64)

    def prepare(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        trainer: Trainer | None = None,
        policy: Backbone | None = None,
    ) -> None:
        """Read the stored values, or compute and store them; damaged ones are computed again.

        Raises:
            InputError: a value is not finite.
        """
        model = [backbone.weights_fingerprint(), backbone.dtype, backbone.quantization]
        other_dtype = [backbone.compute_dtype] if backbone.compute_dtype != backbone.dtype else []
        digest = sha256(fingerprint([*model, *other_dtype]).encode())
        digest.update(_FORMAT)
        keys, count = np.zeros(len(examples), dtype=np.uint64), 0
        lengths, starts = (np.zeros(len(examples), dtype=np.int64) for _ in range(2))
        for index, example in enumerate(_each(examples)):
            digest.update(repr((example.id, example.prompt, example.completions)).encode())
            if example.token_weights:  # without weights, files of earlier versions are read
                digest.update(repr(example.token_weights).encode())
            lengths[index], starts[index] = example.length, count
            keys[index] = _key(example.id, list(map(len, example.completions)))
            count += len(example.completions)
        order = np.argsort(keys, kind="stable")
        self._keys, self._first = keys[order], starts[order]
        if (twice := np.flatnonzero(self._keys[1:] == self._keys[:-1])).size:
            example = examples[int(order[twice + 1].min())]
            raise InputError(f"example {example.id!r} occurs twice with completions of the same lengths")
        key = digest.hexdigest()
        path = self.folder / f"{key[:32]}.safetensors"
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        values = _on_first_process(trainer, lambda: _stored(path, key, count) if path.is_file() else None)
        is_new = values is None
        if values is None:
            values = self._compute(backbone, examples, np.argsort(lengths), starts, count, rank, world)
            if trainer is not None and world > 1:
                total: Tensor = trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="sum")
                values = total.cpu()
        if not torch.isfinite(values).all():
            position = int((~torch.isfinite(values)).nonzero()[0])
            example = examples[int(np.searchsorted(starts, position, side="right")) - 1]
            raise InputError(f"model.reference: log π_ref of record {example.id} is {values[position]}, not finite")
        if is_new and rank == 0:
            with replacing_file(path) as partial:
                save_file({"logps": values}, partial, metadata={_MADE_FOR: key, _HASH: _hash_of(values)})
        self._logps = values

    def sequence_logps(self, batch: Batch) -> Tensor:
        """Look the values up."""
        lengths = batch.lengths
        examples = [(batch.example == index).nonzero()[:, 0] for index in range(len(batch.ids))]
        hashes = [_key(name, lengths[own].tolist()) for name, own in zip(batch.ids, examples, strict=True)]
        keys = np.array(hashes, dtype=np.uint64)
        places = np.searchsorted(self._keys, keys)
        if not np.array_equal(self._keys[places[places < len(self._keys)]], keys):
            raise KeyError("an example that was not prepared")
        indices = torch.from_numpy(self._first[places])[batch.example.cpu()] + batch.number.cpu()
        return self._logps[indices].to(batch.input_ids.device)

    @torch.no_grad()
    def _compute(
        self,
        backbone: Backbone,
        examples: Sequence[Example],
        order: np.ndarray,
        starts: np.ndarray,
        count: int,
        rank: int,
        world: int,
    ) -> Tensor:
        """Return (count,) values, those of other processes 0; examples of similar length are computed together."""
        backbone.eval()
        device = next(backbone.parameters()).device
        collate: Collator = packed if backbone.supports_packing else two_row
        # Where weights are sharded, all processes compute together: as many batches each, none with a shared prefix,
        # which would be one more forward pass.
        prefix_length = 0 if backbone.is_sharded else None
        end = -(-len(order) // (world * self.batch_size)) * world * self.batch_size
        values = torch.zeros(count, dtype=torch.float64)
        for start in range(rank * self.batch_size, end if backbone.is_sharded else len(order), world * self.batch_size):
            indices = order[start : start + self.batch_size].tolist()
            computed = [examples[index] for index in indices or order[:1].tolist()]
            batch = collate(computed, backbone.prompt_tokenizer.padding, prefix_length).to(device)
            logps = sequence_logps(batch.weighted(backbone(batch)), batch.sequence, batch.sequences)
            if not indices:
                continue
            places = torch.from_numpy(starts[indices])[batch.example.cpu()] + batch.number.cpu()
            values[places] = logps.double().cpu()
        return values


def _require_whole_weights(backbone: Backbone, name: str) -> None:
    if backbone.is_sharded:
        raise InputError(
            f"model.reference: {name} does not work with sharded weights (trainer.strategy: ShardedStrategy)",
            "use guardreasoner.Precomputed, as in configs/hsdpo.yaml",
        )


_MADE_FOR, _HASH = "model, tokenizer and pairs", "sha256"
_FORMAT = b"one value per completion"
"""Part of the fingerprint, so that files of the earlier format (two values per pair) are not read."""


def _each(examples: Sequence[Example]) -> Iterator[Example]:
    return (examples[index] for index in range(len(examples)))


def _on_first_process(trainer: Trainer | None, read: Callable[[], Tensor | None]) -> Tensor | None:
    """Call ``read`` on the first process and return its result, or raise its error, on all processes."""
    if trainer is None or trainer.world_size == 1:
        return read()
    result: Tensor | InputError | None = None
    if trainer.global_rank == 0:
        try:
            result = read()
        except InputError as error:
            result = error
    result = trainer.strategy.broadcast(result)
    if isinstance(result, InputError):
        raise result
    return result


def _stored(path: Path, key: str, count: int) -> Tensor | None:
    """Return the stored values, (count,) in float64; None, with a warning, if the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata, values = file.metadata() or {}, file.get_tensor("logps")
    except (SafetensorError, OSError):
        metadata, values = {}, torch.zeros(0)
    is_intact = (metadata.get(_MADE_FOR), metadata.get(_HASH)) == (key, _hash_of(values))
    if is_intact and (values.shape, values.dtype) == ((count,), torch.float64):
        return values
    log.warning("%s is damaged: the reference values are computed again", path)
    return None


def _hash_of(values: Tensor) -> str:
    return sha256(values.numpy().tobytes()).hexdigest()


def _key(record_id: str, lengths: Sequence[int]) -> int:
    """Return a 64-bit hash of an example's id and completion lengths."""
    name = "/".join([record_id, *map(str, lengths)])
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
