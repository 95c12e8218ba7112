"""What a planned fit costs beside memory: floating-point operations and bytes on disk."""

from dataclasses import dataclass
from typing import Any

from guardreasoner.diagnosis.run_plan import Schedule, Settings
from guardreasoner.diagnosis.step_memory import Parameters
from guardreasoner.workflow.unfinished_fit import KEPT


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a fit.

    Args:
        total: of all steps.
        reference: of the reference's log-probabilities, part of ``total``.
    """

    total: float
    reference: float


def operations(config: Any, settings: Settings, schedule: Schedule, parameters: Parameters) -> Work:
    """Return the floating-point operations of a fit; a multiplication and an addition are two.

    Args:
        config: transformers' configuration of the base model.
        settings: settings of the fit.
        schedule: its steps.
        parameters: numbers of parameters.
    """
    embedding = config.vocab_size * config.hidden_size
    layers = parameters.base - embedding * (1 if config.tie_word_embeddings else 2)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    mean = sum(schedule.sizes.lengths) / len(schedule.sizes.lengths)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * size * mean / 2
    forward = 2 * (layers + parameters.adapter) + attention
    backward = 2 * forward if settings.lora is None else forward + 2 * parameters.adapter
    again = forward if settings.checkpointing else 0
    head = (6 if settings.lora is None else 4) * embedding
    total = schedule.packed_tokens * (forward + backward + again) + schedule.predicted_tokens * head
    reference = 0.0
    if settings.reference:
        once = schedule.packed_tokens * forward + schedule.predicted_tokens * 2 * embedding
        epochs = schedule.steps / schedule.steps_per_epoch
        reference = once / max(1.0, epochs) if settings.reference == "Precomputed" else once
    return Work(total + reference, reference)


def disk(config: Any, settings: Settings, schedule: Schedule, parameters: Parameters, state: float) -> dict[str, float]:
    """Return the bytes of the files of a fit.

    Args:
        config: transformers' configuration of the base model.
        settings: settings of the fit.
        schedule: its steps.
        parameters: numbers of parameters.
        state: bytes of the optimizer's state per trained parameter.
    """
    checkpoint = parameters.trained_bytes + state * parameters.trained
    ids = sum(schedule.sizes.prompts) + sum(map(sum, schedule.sizes.completions))
    return {
        "base model": parameters.base * (2 if settings.dtype != "float32" or settings.quantization else 4),
        "trained model": parameters.saved_bytes,
        "checkpoints while it runs": (KEPT + 1) * checkpoint,
        "tokenized data": 4 * ids,
    }
