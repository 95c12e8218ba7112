"""Ask an engine: the text that a guard writes about each conversation, with the probability of each label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from guardreasoner.errors import InputError
from guardreasoner.evaluation.label_scores import label_scores
from guardreasoner.generators import Generator, Request, Scorer, Watch
from guardreasoner.guard.direct import DirectAnswers
from guardreasoner.guard.results import GuardAnswer
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Answer, Record, Rollout, Speed


class Answering:
    """Answers conversations with one engine.

    Args:
        engine: the engine.
        prompt_tokenizer: tokenizer of the model.
        scored: speeds whose answers are scored; the engine must be able to.
    """

    def __init__(self, engine: Generator, prompt_tokenizer: PromptTokenizer, scored: Sequence[Speed]) -> None:
        self._engine = engine
        self._prompt_tokenizer = prompt_tokenizer
        self._scored = tuple(scored)
        self._direct = DirectAnswers(prompt_tokenizer)

    def answers(
        self,
        asked: Mapping[str, tuple[Record, tuple[int, ...]]],
        speed: Speed,
        watches: Mapping[str, Watch] = MappingProxyType({}),
        scorer: Scorer | None = None,
    ) -> dict[str, GuardAnswer]:
        """Return the answers by record id.

        Args:
            asked: each record with the token ids of its prompt, by the record's id.
            speed: the speed that the prompts ask for.
            watches: called with the text of an answer while it is written, by the record's id.
            scorer: scores the possible direct answers; None: the engine.

        Raises:
            InputError: the engine fails, or returns other outputs than were requested.
        """
        records = {key: record for key, (record, _) in asked.items()}
        requests = [
            Request(key, prompt, self._prompt_tokenizer.text(record, speed), (0,))
            for key, (record, prompt) in asked.items()
        ]
        found: dict[str, GuardAnswer] = {}
        if speed == "direct" and speed in self._scored and self._engine.scores_in_one_pass:
            for key, direct in self._direct.find(records, requests, scorer or self._engine.score).items():
                answer = self._answer(records[key], direct.completion, speed, direct.tokens)
                found[key] = replace(answer, probabilities=direct.probabilities)
        rest = [request for request in requests if request.record_id not in found]
        return found | self._generated(records, rest, speed, watches)

    def _generated(
        self, records: Mapping[str, Record], requests: Sequence[Request], speed: Speed, watches: Mapping[str, Watch]
    ) -> dict[str, GuardAnswer]:
        if not requests:
            return {}
        generated = self._engine.generate_watched(requests, watches) if watches else self._engine.generate(requests)
        completions = {one.record_id: one for one in generated}
        if completions.keys() != {request.record_id for request in requests}:
            returned = f"{len(completions)} answers, requested {len(requests)}"
            raise InputError(f"{type(self._engine).__name__} returned {returned}")
        answers = [
            # a lone surrogate is legal in a server's JSON, but no text of ours
            self._answer(records[key], one.text.encode("utf-8", "replace").decode(), speed, one.completion_tokens or 0)
            for key, one in completions.items()
        ]
        if speed in self._scored:
            outputs = [Rollout(one.record.id, "", "", 0, 0, one.completion, speed) for one in answers]
            to_score = [Answer(a.record, output, a.verdicts) for a, output in zip(answers, outputs, strict=True)]
            scores = label_scores(to_score, self._engine, self._prompt_tokenizer)
            answers = [replace(a, probabilities=labels) for a, labels in zip(answers, scores, strict=True)]
        return {answer.record.id: answer for answer in answers}

    def _answer(self, record: Record, completion: str, speed: Speed, tokens: int) -> GuardAnswer:
        format = self._prompt_tokenizer.format
        return GuardAnswer(record, completion, speed, format.parse(completion), format.reasoning(completion), tokens)
