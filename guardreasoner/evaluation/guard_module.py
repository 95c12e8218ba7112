"""Lightning module of a trained guard: samples rollouts (``predict``) and is tested on benchmarks (``test``)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from types import GeneratorType
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics import Metric

from guardreasoner.errors import InputError
from guardreasoner.evaluation.label_scores import Probabilities, label_scores, vote_shares
from guardreasoner.evaluation.verdict_metrics import VerdictF1
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Answer, Record, Rollout, ScoreKind, Speed
from guardreasoner.tasks import Task
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.ranges import Count, CountOrZero, Seed

VOTES = 2
"""Loader index under which a sink stores the outputs that vote; 0 and 1 are the two data loaders."""


class AnswerSink(Protocol):
    """Stores answers while they are generated, so that an interrupted run can be resumed.

    ``loader`` is the index of the data loader: in a test, 1 for the hard records, else 0; ``VOTES`` for the outputs
    that vote.
    """

    def done(self, loader: int) -> Set[str]:
        """Return the ids of the records whose answers are stored already; they are not generated again."""
        ...

    def stored(self, loader: int, record_id: str) -> Sequence[Rollout]:
        """Return the stored outputs of a record that is done; only a test asks for them."""
        ...

    def store(self, loader: int, answers: Sequence[Answer], tokens: int) -> None:
        """Store answers that the engine returned together, all of each record.

        Args:
            loader: index of the data loader.
            answers: the answers.
            tokens: number of tokens generated for them.
        """


@runtime_checkable
class ResumableModule(Protocol):
    """A module that passes its answers to a sink as they are made.

    Args:
        backbone: the model.
        greedy: the engine that answers benchmarks.
        k: number of sampled outputs for each record.
        votes: number of sampled outputs that vote on each record of a test.
        sink: stores the answers; set by a callback.
    """

    backbone: Backbone
    greedy: Generator
    k: int
    votes: int
    sink: AnswerSink | None

    def decides(self, engine: Generator | None = None) -> dict[str, Any]:
        """Return the settings that determine the outputs of an engine; None is the engine that samples."""
        ...


class GuardModule(LightningModule):
    """A reasoning guard: a backbone with the engines that generate from it.

    ``predict`` samples k outputs for every record. ``test`` answers every benchmark record once, greedily, and, if the
    data module has a hard set, samples k new outputs for each of its records.

    A callback that stores the answers sets ``sink``. Several processes share the records of ``predict``: each gets all
    of them, and answers every n-th group of those that its engine computes together. So the outputs do not depend on
    the number of processes.

    Args:
        backbone: the model.
        generator: factory of the sampling engine, called with the backbone.
        greedy: factory of the engine that answers benchmarks, called with the backbone.
        k: number of outputs for each record, where several are sampled.
        speed: whether the model is asked to reason first; None: the speed that it was trained for, reasoned if both.
        seed: seed of the outputs.
        scores: whether a test adds the probability of each label, computed from the log-probabilities of the answer's
            alternatives; None: if the engine can, except on a server.
        votes: number of sampled outputs of each tested record whose shares of verdicts are added as a score.
        metric: factory of the metric that counts verdicts during a test, called with the tasks.

    Raises:
        InputError: if k is below 1; during generation, if an engine returns other outputs than were requested.
    """

    def __init__(
        self,
        backbone: Backbone,
        generator: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone),
        greedy: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone, temperature=0.0),
        k: Count = 4,
        seed: Seed = 0,
        speed: Speed | None = None,
        scores: bool | None = None,
        votes: CountOrZero = 0,
        metric: Callable[[Sequence[Task]], Metric] = VerdictF1,
    ) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"model.k must be at least 1, got {k}")
        for name, factory in (("generator", generator), ("greedy", greedy)):
            if factory is None:  # possible in YAML
                raise InputError(f"model.{name}: found null, expected an engine")
        self.backbone = backbone
        self.generator = generator(backbone)
        self.greedy = greedy(backbone)
        self.k = k
        self.seed = seed
        self.wanted_speed = speed
        self.scores = self.greedy.can_score and self.greedy.scores_by_default if scores is None else scores
        self.votes = votes
        self.metric = metric
        self.sink: AnswerSink | None = None
        self._groups = 0

    @property
    def speed(self) -> Speed:
        """Speed that the model is asked for.

        Raises:
            InputError: the model was not trained for it.
        """
        return self.backbone.prompt_tokenizer.format.speed(self.wanted_speed)

    def setup(self, stage: str) -> None:
        """Create the metric; the tasks of the model are known only now."""
        self.verdicts = self.metric(self.backbone.prompt_tokenizer.format.tasks)

    def configure_model(self) -> None:
        """Load the weights if an engine of this run generates from them."""
        engines = [self.generator] if self.trainer.state.fn == TrainerFn.PREDICTING else [self.generator, self.greedy]
        if any(engine.needs_weights for engine in engines):
            self.backbone.load()

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Return the records unchanged; the generator moves its tensors itself."""
        return batch

    def decides(self, engine: Generator | None = None) -> dict[str, Any]:
        """Return, as JSON values, everything besides the records that determines the outputs of an engine.

        Args:
            engine: the engine; None is the one that samples.
        """
        engine = engine or self.generator
        return {
            "model": self.backbone.name,
            "fingerprint": self._fingerprint(engine),
            "asked": self.backbone.prompt_tokenizer.identity(),
            "speed": self.speed,
            "k": self.k,
            "seed": self.seed,
            "engine": f"{type(engine).__module__}.{type(engine).__qualname__}",
            "settings": engine.settings,
            **self._precision(engine),
        }

    def on_predict_start(self) -> None:
        """Start to count the groups of records that the processes share."""
        self._groups = 0

    def predict_step(self, records: list[Record], index: int) -> list[Answer]:
        """Return k outputs for each record of this process that is not done; the sink gets them at once."""
        return self._answers(0, self._share(records), self.generator, self.k)

    def test_step(  # type: ignore[override]
        self, records: list[Record], index: int, dataloader_idx: int = 0
    ) -> list[Answer]:
        """Return one greedy output for each record or, for the second loader (the hard set), k sampled outputs.

        Outputs that the sink has stored are returned too, so that metrics count every answer once.
        """
        engine, k = (self.generator, self.k) if dataloader_idx == 1 else (self.greedy, 1)
        answers = self._answers(dataloader_idx, self._missing(records, dataloader_idx), engine, k)
        answers += self._stored(records, dataloader_idx)
        order = {record.id: position for position, record in enumerate(records)}
        answers.sort(key=lambda answer: (order[answer.record.id], answer.rollout.index))
        if dataloader_idx != 1:
            self.verdicts.update([a.verdicts for a in answers], [a.record.labels for a in answers])
            answers = self._with_scores(answers)
        return answers

    def on_test_epoch_end(self) -> None:
        """Log the values of the metric."""
        self.log_dict({f"test/{name}": value for name, value in self.verdicts.compute().items()})

    def _with_scores(self, answers: list[Answer]) -> list[Answer]:
        """Return greedy answers with the scores that the run asks for."""
        scores: dict[str, dict[ScoreKind, Probabilities]] = defaultdict(dict)
        if self.scores:
            scored = label_scores(answers, self.greedy, self.backbone.prompt_tokenizer)
            for answer, labels in zip(answers, scored, strict=True):
                scores[answer.record.id][answer.rollout.speed] = labels
        if self.votes:
            records = [answer.record for answer in answers]
            voting = self._answers(VOTES, self._missing(records, VOTES), self.generator, self.votes)
            ballots: dict[str, list[Mapping[str, str | None]]] = defaultdict(list)
            for vote in [*voting, *self._stored(records, VOTES)]:
                ballots[vote.record.id].append(vote.verdicts)
            for record in records:
                scores[record.id]["votes"] = vote_shares(ballots[record.id])
        return [replace(answer, scores=scores[answer.record.id]) for answer in answers]

    def _stored(self, records: Sequence[Record], loader: int) -> list[Answer]:
        """Return the answers that the sink has stored in an earlier run."""
        if self.sink is None:
            return []
        stored = ((record, self.sink.stored(loader, record.id)) for record in records)
        return [self._parsed(record, rollout) for record, rollouts in stored for rollout in rollouts]

    def _missing(self, records: Sequence[Record], loader: int) -> list[Record]:
        """Return the records that the sink has no answers of."""
        done: Set[str] = frozenset() if self.sink is None else self.sink.done(loader)
        return [record for record in records if record.id not in done]

    def _share(self, records: list[Record]) -> list[Record]:
        """Return the records that this process answers: every n-th of the groups that are not done."""
        size = self.generator.group_size(self.k) or len(records)
        groups = (self._missing(records[start : start + size], 0) for start in range(0, len(records), size))
        share = []
        for group in filter(None, groups):
            if self._groups % self.trainer.world_size == self.trainer.global_rank:
                share += group
            self._groups += 1
        return share

    def _answers(self, loader: int, records: list[Record], engine: Generator, k: int) -> list[Answer]:
        """Return the answers to records; the sink gets each group as the engine returns it.

        Raises:
            Stopped: a signal has arrived; the answers in the sink are kept.
        """
        answers: list[Answer] = []
        stop_signals.check()
        for part, tokens in self._generate(records, engine, k) if records else ():
            stop_signals.check_parent()
            if self.sink is not None:
                self.sink.store(loader, part, tokens)
            answers += part
            stop_signals.check()
        return answers

    def _generate(self, records: list[Record], engine: Generator, k: int) -> Iterator[tuple[list[Answer], int]]:
        """Yield answers as the engine returns them, all k of a record together, with the number of generated tokens."""
        prompt_tokenizer, fingerprint = self.backbone.prompt_tokenizer, self._fingerprint(engine)
        record_by_id = {record.id: record for record in records}
        speed, seeds = self.speed, (self.seed,) * k
        requests = (
            Request(r.id, tuple(prompt_tokenizer.prompt(r, speed)), prompt_tokenizer.text(r, speed), seeds)
            for r in records
        )
        answered = 0
        parts = engine.generate_groups(requests)
        try:
            for part in parts:
                counts = Counter(completion.record_id for completion in part)
                for record_id, count in counts.items():
                    _require(record_id in record_by_id, engine, f"an output for record {record_id!r}, not requested")
                    _require(count == k, engine, f"{count} outputs for record {record_id!r}, requested {k}")
                answered += len(counts)
                tokens = sum(completion.completion_tokens or 0 for completion in part)
                yield [self._answer(record_by_id[c.record_id], c, fingerprint) for c in part], tokens
        finally:
            if isinstance(parts, GeneratorType):
                parts.close()  # at once, so that the engine drops its pending requests
        _require(answered == len(records), engine, f"outputs for {answered} records, requested {len(records)}")

    def _answer(self, record: Record, completion: Completion, fingerprint: str) -> Answer:
        # a lone surrogate is legal in a server's JSON but cannot be written to a file
        text = completion.text.encode("utf-8", "replace").decode()
        if truncated := completion.finish_reason == "length":
            text = text.rstrip("\ufffd")  # the limit may split a character
        name, index = self.backbone.name, completion.index
        rollout = Rollout(record.id, name, fingerprint, index, self.seed, text, self.speed, truncated)
        return self._parsed(record, rollout)

    def _parsed(self, record: Record, rollout: Rollout) -> Answer:
        return Answer(record, rollout, self.backbone.prompt_tokenizer.format.parse(rollout.completion))

    def _precision(self, engine: Generator) -> dict[str, Any]:
        """Return what differs from the default in the precision that an engine computes with."""
        weights = self.backbone.weights_fingerprint()
        if engine.model_fingerprint(weights) != weights:
            return {}  # a server, which has its own
        default = {"dtype": "float32", "quantization": None, "precision": "32-true"}
        used = (self.backbone.dtype, self.backbone.quantization, self.trainer.precision)
        return {name: value for (name, usual), value in zip(default.items(), used, strict=True) if value != usual}

    def _fingerprint(self, engine: Generator) -> str:
        return engine.model_fingerprint(self.backbone.weights_fingerprint())


def _require(condition: bool, engine: Generator, result: str) -> None:
    if not condition:
        hint = "complete answers are stored; the next run requests the others again"
        raise InputError(f"{type(engine).__name__} returned {result}", hint)
