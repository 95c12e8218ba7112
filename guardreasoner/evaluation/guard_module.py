"""The trained guard at work: writes rollouts (``predict``) and is measured (``test``)."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import Metric

from guardreasoner.errors import InputError
from guardreasoner.evaluation.verdict_metrics import VerdictF1
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import parse
from guardreasoner.records import Answer, Record, Rollout
from guardreasoner.tasks import Task


class GuardModule(LightningModule):
    """A reasoning guard: a model, and what samples from it.

    ``predict`` samples k outputs for every record. ``test`` answers every record of the benchmarks once, greedily, and,
    where the data module has a hard set, samples k fresh outputs for each of its records.

    Whoever writes the outputs down while they come sets ``done``, the ids of records that need none, and ``keep``,
    which is given each part and its number of tokens.

    Args:
        backbone: the model.
        generator: takes the backbone; what samples.
        greedy: takes the backbone; what answers benchmarks.
        k: outputs a record, where there are several.
        seed: of the outputs.
        metric: takes the tasks; counts verdicts while testing.

    Raises:
        InputError: k below 1; on generation, an engine that gives fewer or other outputs than it was asked for.
    """

    def __init__(
        self,
        backbone: Backbone,
        generator: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone),
        greedy: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone, temperature=0.0),
        k: int = 4,
        seed: int = 0,
        metric: Callable[[Sequence[Task]], Metric] = VerdictF1,
    ) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"model.k must be at least 1, got {k}")
        self.backbone = backbone
        self.generator = generator(backbone)
        self.greedy = greedy(backbone)
        self.k = k
        self.seed = seed
        self.metric = metric
        self.done: Set[str] = frozenset()
        self.keep: Callable[[list[Answer], int], None] | None = None

    def setup(self, stage: str) -> None:
        """Make the metric, now that the model's tasks are known."""
        self.verdicts = self.metric(self.backbone.prompt_tokenizer.format.tasks)

    def configure_model(self) -> None:
        """Load the weights, if an engine of this run samples from them."""
        used = [self.generator] if self.trainer.state.fn == TrainerFn.PREDICTING else [self.generator, self.greedy]
        if any(engine.needs_weights for engine in used):
            self.backbone.load()

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Leave records where they are; the generator moves what it makes of them."""
        return batch

    def decides(self) -> dict[str, Any]:
        """Return what decides the rollouts of ``predict`` beside the records, as JSON can hold it."""
        return {
            "model": self.backbone.name,
            "fingerprint": self._fingerprint(self.generator),
            "asked": self.backbone.prompt_tokenizer.identity(),
            "k": self.k,
            "seed": self.seed,
            "engine": f"{type(self.generator).__module__}.{type(self.generator).__qualname__}",
            "settings": self.generator.settings,
        }

    def predict_step(self, records: list[Record], index: int) -> list[Answer]:
        """Return k outputs for each record that is not ``done``; what belongs together goes to ``keep`` as it comes."""
        answers = []
        for part, tokens in self._parts([r for r in records if r.id not in self.done], self.generator, self.k):
            if self.keep is not None:
                self.keep(part, tokens)
            answers += part
        return answers

    def test_step(  # type: ignore[override]
        self, records: list[Record], index: int, dataloader_idx: int = 0
    ) -> list[Answer]:
        """Return one greedy output a record, or (second loader, the hard set) k sampled ones."""
        engine, k = (self.generator, self.k) if dataloader_idx == 1 else (self.greedy, 1)
        answers = [answer for part, _ in self._parts(records, engine, k) for answer in part]
        if dataloader_idx != 1:
            self.verdicts.update([a.verdicts for a in answers], [a.record.labels for a in answers])
        return answers

    def on_test_epoch_end(self) -> None:
        """Log what the metric counted."""
        self.log_dict({f"test/{name}": value for name, value in self.verdicts.compute().items()})

    def _parts(self, records: list[Record], engine: Generator, k: int) -> Iterator[tuple[list[Answer], int]]:
        """Yield the answers that the engine gives together, all k of each record, and the tokens that were written."""
        prompt_tokenizer, fingerprint = self.backbone.prompt_tokenizer, self._fingerprint(engine)
        by_id = {record.id: record for record in records}
        requests = (
            Request(record.id, tuple(prompt_tokenizer.prompt(record)), prompt_tokenizer.text(record), (self.seed,) * k)
            for record in records
        )
        answered = 0
        parts = engine.generate_groups(requests)
        try:
            for part in parts:
                counts = Counter(completion.record_id for completion in part)
                for record_id, count in counts.items():
                    _require(record_id in by_id, engine, f"an output of record {record_id!r}, which it was not asked")
                    _require(count == k, engine, f"{count} outputs of record {record_id!r}, asked for {k}")
                answered += len(counts)
                tokens = sum(completion.completion_tokens or 0 for completion in part)
                yield [self._answer(by_id[c.record_id], c, fingerprint) for c in part], tokens
        finally:
            if hasattr(parts, "close"):
                parts.close()  # at once, so that what waits in an engine is not computed for nobody
        _require(answered == len(records), engine, f"outputs of {answered} records, asked for {len(records)}")

    def _answer(self, record: Record, completion: Completion, fingerprint: str) -> Answer:
        # half a surrogate pair is legal in a server's JSON, and in no file
        text = completion.text.encode("utf-8", "replace").decode()
        rollout = Rollout(record.id, self.backbone.name, fingerprint, completion.index, self.seed, text)
        return Answer(record, rollout, parse(text, self.backbone.prompt_tokenizer.format.tasks))

    def _fingerprint(self, engine: Generator) -> str:
        return engine.model_fingerprint(self.backbone.weights_fingerprint())


def _require(met: bool, engine: Generator, found: str) -> None:
    if not met:
        raise InputError(f"{type(engine).__name__} gave {found}", "what was complete is kept; the next run asks again")
