"""Training that compares a model with what it was before: no dropout, and a reference made from its first state."""

from collections.abc import Sequence
from typing import Any

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example
from guardreasoner.training.reference import Reference
from guardreasoner.training.sharding import is_sharded


def turn_dropout_off(backbone: Backbone) -> None:
    """Put a loaded model in evaluation mode, except for activation checkpointing, which only training mode has."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    backbone.eval()
    for layer in backbone.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True  # only the layer itself, not the dropout inside


def prepare_reference(reference: Reference, backbone: Backbone, examples: Sequence[Example], trainer: Any) -> None:
    """Prepare a reference from the model as its folder holds it, which the policy of a resumed run no longer is.

    Args:
        reference: the reference.
        backbone: the model that is trained, loaded.
        examples: all examples whose reference will be requested before training; empty if they are not known yet.
        trainer: the trainer.
    """
    if trainer.precision == "bf16-mixed":
        backbone.compute_dtype = "bfloat16"
    with trainer.precision_plugin.forward_context():  # which the trainer enters for the policy
        # With sharded weights, a checkpoint is restored later, so the policy still is the R-SFT model.
        if not trainer.ckpt_path or is_sharded(trainer):
            reference.prepare(backbone, examples, trainer)
            return
        initial = backbone.unloaded()
        initial.load()
        initial.compute_dtype = backbone.compute_dtype
        reference.prepare(initial.to(trainer.lightning_module.device).eval(), examples, trainer, backbone)
