"""TRL's DPOTrainer as a stage of a study: an outside check of HS-DPO without weights, on the same pairs."""

import tempfile
from importlib.util import find_spec
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Example, Step
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.workflow.ranges import Positive


class TRLDPO(HSDPOModule):
    """A model that TRL trains, with TRL's loop, losses, order and reference; what is around the training stays ours.

    In the first step, TRL trains a copy of the R-SFT model on the token ids of all training pairs, for all epochs; the
    weights then replace ours, and the other steps change nothing. With micro-batches of one pair, which it gets, TRL's
    sum of DPO and SFT loss is the loss of HS-DPO for pairs of weight 1.

    Args:
        lr: peak of the cosine schedule.
        **options: options of :class:`guardreasoner.training.hsdpo.HSDPOModule`; ``objective``, ``optimizer`` and
            ``warmup`` do not apply.

    Raises:
        InputError: raised at the first step if TRL is not installed, a pair has another weight than 1, or the model has
            an adapter.
    """

    def __init__(self, lr: Positive = 5e-6, **options: Any) -> None:
        super().__init__(**options)
        self.lr = lr

    def training_step(self, step: Step, index: int) -> None:
        """Let TRL train at the first step; count the step."""
        trainer: Any = self.trainer
        if trainer.global_step == 0:
            data = trainer.datamodule
            loss = self.train_with_trl(data.train, data.batch_size, data.epochs, data.max_length, data.seed)
            self.log("train/loss", loss)
        optimizer: Any = self.optimizers()
        optimizer.step()  # without gradients it only counts
        schedule: Any = self.lr_schedulers()
        schedule.step()

    def train_with_trl(self, pairs: Any, batch_size: int, epochs: int, max_length: int, seed: int) -> float:
        """Train on pairs and return TRL's mean loss.

        Args:
            pairs: sequence of :class:`Example` with a chosen and a rejected completion.
            batch_size: pairs per optimizer step.
            epochs: epochs of the schedule.
            max_length: most tokens of prompt and completion; no pair is longer.
            seed: seed of TRL's order.
        """
        rows = [pairs[index] for index in range(len(pairs))]
        self._require_trainable(rows)
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        class Tokenized(DPOTrainer):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset  # it has the columns of token ids already

        columns = {
            "prompt_ids": [list(row.prompt) for row in rows],
            "chosen_ids": [list(row.completions[0]) for row in rows],
            "rejected_ids": [list(row.completions[1]) for row in rows],
        }
        with tempfile.TemporaryDirectory() as folder:
            config = DPOConfig(
                output_dir=folder,
                **{"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size, "seed": seed},
                **{"num_train_epochs": epochs, "learning_rate": self.lr, "lr_scheduler_type": "cosine"},
                **{"weight_decay": 0.0, "max_grad_norm": self.max_grad_norm, "max_length": max_length},
                **{"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, self.sft_coef], "beta": self.beta},
                **{"model_init_kwargs": {"dtype": "float32"}, "bf16": False, "gradient_checkpointing": False},
                **{"use_cpu": self.device.type == "cpu", "disable_tqdm": True, "report_to": "none"},
                **{"logging_strategy": "no", "save_strategy": "no"},
            )
            trainer = Tokenized(
                model=self.backbone.path,
                args=config,
                train_dataset=Dataset.from_dict(columns),
                processing_class=AutoTokenizer.from_pretrained(self.backbone.path),
            )
            loss = float(trainer.train().training_loss)
        self.backbone.network.load_state_dict(trainer.model.state_dict())
        return loss

    def _require_trainable(self, pairs: list[Example]) -> None:
        if find_spec("trl") is None:
            raise InputError("TRL is not installed", "pip install --constraint constraints.txt --editable '.[bench]'")
        if weighted := next((pair.id for pair in pairs if set(pair.weights) - {1.0} or pair.token_weights), None):
            raise InputError(f"pair {weighted}: TRL has no weights", "set data.pairing.gamma to 0")
        if self.backbone.has_adapter:
            raise InputError("model: TRLDPO trains all weights, but this model has an adapter")
