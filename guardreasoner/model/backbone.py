"""The network: loads a causal language model (all weights, LoRA, 4-bit), scores completions, saves it.

Shapes: R rows of T tokens, N completion tokens, H hidden size, V vocabulary.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from guardreasoner.errors import InputError
from guardreasoner.formats.published import PublishedFormat
from guardreasoner.formats.stored import format_from_json, is_user_defined
from guardreasoner.model.adapter_folder import (
    embedding_rows_of,
    has_tokenizer,
    no_model_in,
    require_same_vocabulary,
)
from guardreasoner.model.batch import Batch, Segment
from guardreasoner.model.linear_layer import use_onednn
from guardreasoner.model.loading import (
    FORMAT_FILE,
    GIVE_BASE,
    base_of,
    embedding_rows,
    file_of,
    files_fingerprint,
    load_network,
    loading,
    read_json,
    require_intact,
)
from guardreasoner.model.log_probs import adopt_output_layer
from guardreasoner.model.lora import (
    LoRA,
    add_adapter,
    attach_adapter,
    base_fingerprint,
    prepared,
    require_plain_lora,
    write_base,
)
from guardreasoner.model.packed_attention import (
    Context,
    KeyValues,
    PackedContext,
    SharedPrefix,
    enable_packed_attention,
    skip_unpredicted_positions,
)
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.model.vector_functions import prepare_vector_functions
from guardreasoner.prompts import PromptFormat
from guardreasoner.tasks import Task
from guardreasoner.workflow.guard_file import is_model_folder
from guardreasoner.workflow.replacing import replacing_folder

log = logging.getLogger("guardreasoner")

_PLAIN = "data.collate: guardreasoner.model.batch.two_row"


class Backbone(nn.Module):
    """A causal language model, read from a folder or the hub when it is first needed.

    A folder that holds an adapter is loaded as its base model plus that adapter, which is then trained further.

    Args:
        path: Hugging Face model folder or hub id.
        lora: train a low-rank adapter instead of all weights.
        quantization: "4bit" loads the frozen weights as NF4 (bitsandbytes); training then needs ``lora`` or an adapter
            folder.
        dtype: data type of the loaded weights.
        format: format of a model whose folder does not name one; default is the paper's prompt format. The published
            format of another guard is named by its class, such as ``guardreasoner.LlamaGuard3``; a class of your own
            extends :class:`guardreasoner.formats.published.PublishedFormat`.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them.
        tasks: tasks of a model whose folder does not name any; default is the three tasks of GuardReasoner.
        base_path: folder or hub id of the base model of an adapter folder that names another place, as those of other
            tools often do; None: the place that it names.
        compile: compile the feed-forward layers and norms with ``torch.compile``. Takes about a minute at the first
            step and needs a C++ compiler on a CPU, Triton on a GPU.

    Raises:
        InputError: the folder does not exist, a file is damaged, weights are missing or not finite, or the prompt
            format, tokenizer, adapter or base model does not match.
    """

    def __init__(
        self,
        path: str,
        lora: LoRA | None = None,
        quantization: Literal["4bit"] | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        format: PromptFormat | PublishedFormat | None = None,
        gradient_checkpointing: bool = False,
        tasks: list[Task] | None = None,
        compile: bool = False,
        base_path: str | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.base_path = base_path
        self.lora = lora
        self.quantization = quantization
        self.dtype = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_layers = compile
        self.network: Any = None
        self.supports_packing = False
        """Whether the loaded network computes packed rows (:mod:`guardreasoner.model.packing`)."""
        self.compute_dtype: str = dtype
        """Data type of the forward pass: that of the weights, unless the trainer uses another one."""
        self.is_sharded = False
        """Whether processes hold shares of the weights, which are gathered for a forward pass (FSDP2)."""
        self._format = format
        self._tasks = tuple(tasks) if tasks else None
        self._prompt_tokenizer: PromptTokenizer | None = None

    @property
    def name(self) -> str:
        """Display name of the model: the last part of its path."""
        return Path(self.path).name

    @property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """Tokenizer with the prompt format; needs no weights."""
        if self._prompt_tokenizer is None:
            from transformers import AutoTokenizer

            self._require_path()
            require_intact(self.path, weights=False)
            # an adapter that is stored without a tokenizer has that of its base model
            place = self.weights_path if self._adapter() is not None and not has_tokenizer(self.path) else self.path
            tokenizer = loading(place, lambda: AutoTokenizer.from_pretrained(place, trust_remote_code=False))
            stored = (read_json(file_of(self.path, FORMAT_FILE)) or {}).get("format")
            self._prompt_tokenizer = PromptTokenizer(tokenizer, self._format_with(stored))
            if stored is not None and stored.get("chat_template") and "date" not in stored:
                log.warning(
                    "%s: saved by an earlier version, whose prompts had the current date and were not trimmed as "
                    "the chat template does; fit it again, or compare prompts with doctor",
                    self.path,
                )
        return self._prompt_tokenizer

    @property
    def configured_format(self) -> PromptFormat | PublishedFormat:
        """Prompt format in the config; used for a model whose folder does not name one."""
        return self._format_with(None)

    @property
    def weights_path(self) -> str:
        """Folder or hub id of the base model of an adapter, or of the model itself.

        Raises:
            InputError: the folder is an adapter that names no base model, or no adapter although ``base_path`` is set.
        """
        adapter = self._adapter()
        if adapter is not None:
            return base_of(self.path, adapter, self.base_path)
        if self.base_path is not None:
            raise InputError(
                f"model.backbone.base_path: {self.path} holds all weights, no adapter of a base model",
                "leave base_path out",
            )
        return self.path

    @property
    def embedding_rows(self) -> int:
        """Number of token ids that the model has an embedding for, read without loading its weights.

        Raises:
            InputError: a file is missing or damaged.
        """
        own = embedding_rows_of(self.path) if self._adapter() is not None else None
        return own or embedding_rows(self.weights_path)

    @property
    def has_adapter(self) -> bool:
        """Whether the loaded network is trained through an adapter."""
        return hasattr(self.network, "peft_config")

    def load(self) -> None:
        """Load the weights if they are not loaded yet."""
        if self.network is not None:
            return
        self._require_path()
        adapter = self._adapter()
        if adapter is not None:
            require_plain_lora(self.path, adapter)
        network = self._base_network(adapter)
        self.prompt_tokenizer.require_embeddings(_rows(network))
        adopt_output_layer(network)
        if adapter is not None:
            network = prepared(network, bool(self.quantization))
            network = attach_adapter(network, self.path, adapter, self.lora, self.base_path)
        elif self.lora is not None:
            network = add_adapter(prepared(network, bool(self.quantization)), self.lora)
        elif self.quantization:
            network.requires_grad_(False)
        self.use(network)

    def use(self, network: Any) -> None:
        """Use a causal language model that is loaded already, with its adapter."""
        if self.gradient_checkpointing:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            # transformers 5 makes the embedding's output require a gradient, which only reentrant checkpointing needs
            # and which gives the layers below an adapter on the upper ones a backward pass.
            if hasattr(network, "_require_grads_hook"):
                network.disable_input_require_grads()
        use_onednn(network)
        prepare_vector_functions()
        self.network = network
        self.supports_packing = enable_packed_attention(self._decoder())
        if self.supports_packing:
            skip_unpredicted_positions(self._decoder())
        if self.compile_layers:
            self._compile()

    def unloaded(self) -> "Backbone":
        """Return a copy without weights that can be sent to another process or loaded once more.

        A folder is named by its absolute path, since the other process may have another working directory.
        """
        return Backbone(
            str(Path(self.path).resolve()) if Path(self.path).is_dir() else self.path,
            self.lora,
            self.quantization,
            self.dtype,
            self._format,
            self.gradient_checkpointing,
            list(self._tasks) if self._tasks else None,
            self.compile_layers,
            self.base_path,
        )

    def forward(self, batch: Batch, prefix: SharedPrefix | None = None, temperature: float = 1.0) -> Tensor:
        """Return the log-probability of each completion token, (N,) in nats; see :meth:`completion_logps`."""
        return self.completion_logps(batch, prefix, temperature)

    def completion_logps(self, batch: Batch, prefix: SharedPrefix | None = None, temperature: float = 1.0) -> Tensor:
        """Return the log-probability of each completion token, (N,) in nats.

        The output layer is only applied to the N positions that predict a completion token.

        Args:
            batch: rows of one layout.
            prefix: shared prefix of a packed batch; None encodes it here (:meth:`encode_prefix`).
            temperature: sampling temperature, > 0, of the distribution: softmax(logits / temperature).

        Raises:
            InputError: the network does not support packed rows.
        """
        if batch.segments is None:
            hidden = self._hidden(batch.input_ids, batch.position_ids, mask=batch.attention_mask).flatten(0, 1)
            hidden = hidden[batch.predictors]
        else:
            context = PackedContext(batch.segments, prefix or self._encoded(batch.prefix_ids))
            hidden = self.packed_hidden(batch.input_ids, batch.position_ids, context)
            hidden = hidden[torch.searchsorted(context.predict_positions(hidden.device), batch.predictors)]
        if temperature != 1:
            hidden = hidden / temperature  # the output layer is linear and has no bias
        return self.target_logps(hidden, batch.targets)

    def encode_prefix(self, ids: Tensor | None) -> SharedPrefix | None:
        """Compute the keys and values of a shared prefix; return None if there is none.

        Args:
            ids: (tokens,) int64, may be empty; None for a batch of plain rows.
        """
        return self._encoded(ids)

    def _encoded(self, ids: Tensor | None) -> SharedPrefix | None:
        """Do what ``encode_prefix`` does; sharding makes that a forward pass of its own, which must not be nested."""
        if ids is None or not len(ids):
            return None
        kv_out: dict[int, KeyValues] = {}
        positions = torch.arange(len(ids), device=ids.device)
        context = PackedContext([Segment(0, len(ids), num_predict=1)], kv_out=kv_out)
        hidden = self.packed_hidden(ids[None], positions[None], context)
        if self.is_sharded and hidden.requires_grad:
            # The backward pass of a layer gathers its weights when the gradient of its output arrives. Nothing else
            # depends on the last layer's output, so its keys get a zero that does.
            last = max(kv_out)
            key, value = kv_out[last]
            kv_out[last] = key + 0.0 * hidden[0, 0], value
        return SharedPrefix(kv_out)

    def layers(self) -> list[nn.Module]:
        """Return the decoder layers of the loaded network.

        Raises:
            InputError: the network has no list of layers.
        """
        layers = getattr(self._decoder(), "layers", None)
        if layers is None:
            raise InputError(f"{self.path}: {type(self.network).__name__} has no list of layers")
        return list(layers)

    def packed_hidden(self, ids: Tensor, positions: Tensor, context: PackedContext) -> Tensor:
        """Return the last hidden states of a packed row at the positions that predict a target, (positions, H).

        Args:
            ids: (1, T) int64.
            positions: (1, T) int64.
            context: the row's context.

        Raises:
            InputError: the network does not support packed rows.
        """
        hidden = self._hidden(ids, positions, context)[0]
        # The last layer may have left out the other positions already (skip_unpredicted_positions).
        return hidden if context.full_hidden is not None else hidden[context.predict_positions(hidden.device)]

    def next_hidden(self, ids: Tensor, positions: Tensor, context: Context) -> Tensor:
        """Return the last hidden states of one more token per row, (rows, H).

        Args:
            ids: (rows, 1) int64.
            positions: (rows, 1) int64.
            context: the preceding tokens of the rows.

        Raises:
            InputError: the network does not support contexts.
        """
        return self._hidden(ids, positions, context)[:, 0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output layer to (N, H) hidden states; return (N, V)."""
        logits: Tensor = self.network.get_output_embeddings()(hidden)
        return logits

    def target_logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the log-probability of each target, (N,) in nats, without materializing all logits.

        Args:
            hidden: (N, H) last hidden state at the position before each target.
            targets: (N,) int64 token ids.
        """
        logps: Tensor = self.network.get_output_embeddings()(hidden, targets)
        return logps

    def _hidden(
        self, ids: Tensor, positions: Tensor, context: Context | None = None, mask: Tensor | None = None
    ) -> Tensor:
        more: dict[str, Any] = {}
        if context is not None:
            if not self.supports_packing:
                raise InputError(f"{self.path}: this network does not support packed rows", f"set {_PLAIN}")
            # transformers passes a four-dimensional mask on as it is; the context attention ignores it.
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device)
            more["context"] = context
        decoder = self._decoder()
        output = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **more)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def weights_fingerprint(self) -> str:
        """Return a hash of the model's weights and tokenizer, with those of an adapter's base model."""
        return files_fingerprint(self.path, self.base_path)

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face model folder atomically; see :meth:`write`."""
        with replacing_folder(path) as folder:
            self.write(folder)

    def write(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write weights or adapter, tokenizer and prompt format to an existing folder.

        Args:
            folder: the folder.
            weights: whole weights by their name in the network, for one whose own weights are sharded.
        """
        if self.has_adapter:
            self.network.save_pretrained(folder, selected_adapters=["default"], state_dict=weights)
            write_base(folder)
        else:
            self.network.save_pretrained(folder, state_dict=weights)
        self.prompt_tokenizer.tokenizer.save_pretrained(folder)
        content: dict[str, Any] = {"format": self.prompt_tokenizer.format.as_json()}
        if self.has_adapter:
            content["base"] = base_fingerprint(self.network)
        (folder / FORMAT_FILE).write_text(json.dumps(content, indent=1) + "\n")

    def _compile(self) -> None:
        """Compile feed-forward layers and norms for rows of any length."""
        for layer in self.layers():
            for name, part in layer.named_children():
                if "attn" not in name:
                    part.compile(dynamic=True)

    def _decoder(self) -> Any:
        network = self.network.get_base_model() if self.has_adapter else self.network
        return network.base_model

    def _adapter(self) -> dict[str, Any] | None:
        """Return the content of the folder's ``adapter_config.json``, None if it has none."""
        return read_json(Path(self.path) / "adapter_config.json")

    def _base_network(self, adapter: dict[str, Any] | None) -> Any:
        """Return the loaded network without an adapter, with the number of embeddings that the adapter has."""
        place = self.weights_path
        try:
            network = load_network(place, getattr(torch, self.dtype), self.quantization)
        except InputError as error:
            if adapter is None or Path(place).is_dir():
                raise
            raise InputError(f"{self.path}: its base model is missing: {error}", GIVE_BASE) from error
        if adapter is None:
            return network
        if "base" not in (read_json(Path(self.path) / FORMAT_FILE) or {}) and has_tokenizer(self.path):
            require_same_vocabulary(self.path, place, self.prompt_tokenizer.tokenizer)
        rows = embedding_rows_of(self.path)
        if rows is not None and rows != _rows(network):
            network.resize_token_embeddings(rows, mean_resizing=False)  # the adapter's own are copied in
        return network

    def _require_path(self) -> None:
        path = Path(self.path)
        looks_local = (
            path.is_absolute()
            or self.path.startswith("./")  # Path drops this prefix
            or path.parts[:1] in {("checkpoints",), ("..",)}
            or len(path.parts) > 2
        )
        if looks_local and not path.is_dir():
            raise InputError(f"{self.path}: no such model folder")
        if path.is_dir() and not is_model_folder(path):
            raise no_model_in(self.path)

    def _format_with(self, stored: Mapping[str, Any] | None) -> PromptFormat | PublishedFormat:
        """Return the format: the stored one, or that of the config if the folder has none."""
        given = self._format
        if stored is None:
            format = given or PromptFormat()
            if isinstance(format, PromptFormat):
                return replace(format, tasks=self._tasks) if self._tasks else format
        elif is_user_defined(stored):
            format = self._user_defined_format(stored)
        else:
            format = format_from_json(stored, str(Path(self.path) / FORMAT_FILE))
        if self._tasks and self._tasks != format.tasks:
            own = ", ".join(task.name for task in format.tasks)
            if isinstance(format, PublishedFormat):
                raise InputError(f"model.backbone.tasks: the tasks of the format {format.name} are fixed: {own}")
            raise InputError(
                f"{self.path}: model.backbone.tasks differ from the tasks that the model was trained for: {own}",
                "define tasks once, in recipe.tasks, and train the model again after a change",
            )
        if isinstance(given, PromptFormat) and isinstance(format, PromptFormat):
            if None in (given.date, format.date):
                # each of them takes the date from the other
                format = replace(format, date=format.date or given.date)
                given = replace(given, date=format.date)
            if given.tasks == PromptFormat().tasks:
                given = replace(given, tasks=format.tasks)  # the config names no tasks: keep the model's
        if given is not None and given != format:
            raise self._other_format()
        return format

    def _other_format(self) -> InputError:
        return InputError(
            f"{self.path}: model.backbone.format differs from the prompt format that the model was trained with",
            f"leave it out to use the format in {Path(self.path) / FORMAT_FILE}",
        )

    def _user_defined_format(self, stored: Mapping[str, Any]) -> PublishedFormat:
        """Return the format of the config, for a model that was trained with a user-defined format.

        The class that the model folder names is not imported: only code that the config names is trusted.

        Raises:
            InputError: the config has another class or other options.
        """
        name = stored["class"]
        if isinstance(self._format, PublishedFormat) and self._format.as_json()["class"] == name:
            if json.loads(json.dumps(self._format.as_json())) != stored:
                raise self._other_format()
            return self._format
        raise InputError(
            f"{self.path}: the model was trained with the format {name}, which is not part of guardreasoner",
            f"if you trust that code: --model.backbone.format {name}",
        )


def _rows(network: Any) -> int:
    """Return the number of token ids that a network can read and write."""
    return min(len(layer.weight) for layer in (network.get_input_embeddings(), network.get_output_embeddings()))
