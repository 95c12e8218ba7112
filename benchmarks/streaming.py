"""Measures moderation of a response while it is written: where harm is first flagged, and what the kept cache saves.

    python benchmarks/streaming.py checkpoints/rsft

The model must have direct answers (``recipe.direct_share``). Two tables:

- Place. Each response of the embedded corpus is streamed. The corpus knows by construction at which character the first
  harmful step begins (``harm_start``), so it knows the sentence. Shares are in percent with Wilson's 95 % interval.
- Cost. Long answers are made by joining the distinct harmless responses of the corpus in order, one space between them,
  until they have a given number of sentences. Each is streamed, and its texts so far are judged by ``check``, in turns.
  Both must return the same verdicts and scores. Tokens are those that the embedding layer of the network reads. Where
  an answer is not certain after one pass, both decode it with the whole prompt; at most 32 tokens, since a toy may not
  stop on texts that are much longer than those of its training.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from peers.flags import positive_int

from guardreasoner.evaluation.intervals import Share
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.guard import Guard, GuardResult, JudgedSentence
from guardreasoner.guard.streaming import sentence_end
from guardreasoner.records import Record
from guardreasoner.sources.embedded import Embedded
from guardreasoner.sources.embedded.responses import harm_start
from guardreasoner.sources.embedded.scenarios import Scenario

PLACES = ("right", "earlier", "later", "never")
TOLERANCE = 1e-5
PROMPT = "How do I mend a chair?"


def main() -> None:
    """Run the measurements and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model folder of a guard with direct answers")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="records (default test)")
    parser.add_argument(
        "--sentences", type=int, nargs="*", default=[10, 20, 40, 80], help="sentences of the long answers"
    )
    parser.add_argument("--rounds", type=positive_int, default=3, help="rounds of alternating measurements (default 3)")
    arguments = parser.parse_args()
    guard = Guard.load(arguments.model, speed="direct", engine=lambda one: LocalGenerator(one, 32, temperature=0.0))
    drawn = Embedded().scenarios(arguments.split)
    answered = [(scenario, record) for scenario, record in drawn if record.response is not None]
    show_places(guard, answered)
    harmless = dict.fromkeys(str(r.response) for _, r in answered if r.labels["response"] == "unharmful")
    show_cost(guard, list(harmless), arguments.sentences, arguments.rounds)


def show_places(guard: Guard, answered: Sequence[tuple[Scenario, Record]]) -> None:
    """Print at which sentence harm is first flagged, and how many harmless responses are flagged."""
    places: Counter[str] = Counter()
    alarms = whole_alarms = harmless = missed_whole = unparsed = 0
    counts, known_at = [], Counter[int]()
    for scenario, record in answered:
        response = str(record.response)
        sentences = streamed(guard, record.prompt, response)
        counts.append(len(sentences))
        unparsed += sum(one.result.unparsed for one in sentences)
        first = next((number for number, one in enumerate(sentences) if one.flagged), None)
        start = harm_start(scenario, response)
        if start is None:
            harmless += 1
            alarms += first is not None
            whole_alarms += sentences[-1].flagged
        else:
            known = next(number for number, one in enumerate(sentences) if one.end > start)
            known_at[known + 1] += 1
            places[place(first, known)] += 1
            missed_whole += not sentences[-1].flagged
    harmful = sum(places.values())
    print(f"{len(answered):,} responses of {min(counts)} to {max(counts)} sentences (median {median(counts):g})")
    at = ", ".join(f"{number}: {count}" for number, count in sorted(known_at.items()))
    print(f"{harmful:,} harmful ones, by the sentence of the first harmful step: {at}")
    for name in PLACES:
        print(f"  first flagged: {name:<9}{shown(Share(places[name], harmful))}")
    print(f"  the whole response is not flagged: {shown(Share(missed_whole, harmful))}")
    print(f"{harmless:,} harmless ones")
    print(f"  a sentence is flagged: {shown(Share(alarms, harmless))}")
    print(f"  the whole response is flagged: {shown(Share(whole_alarms, harmless))}")
    print(f"{sum(counts):,} sentences, {unparsed:,} without a clear verdict, which are flagged")


def show_cost(guard: Guard, texts: Sequence[str], lengths: Sequence[int], rounds: int) -> None:
    """Print tokens and seconds of a stream and of checks of every text so far."""
    print(f"\nlong answers; median of {rounds} rounds; largest difference of a score at most {TOLERANCE}")
    print(f"{'sentences':>9}{'tokens':>9}{'checks':>10}{'ratio':>7}{'seconds':>9}{'checks':>10}{'ratio':>7}")
    for length in lengths:
        answer = joined(texts, length)
        seconds: dict[str, list[float]] = {"stream": [], "checks": []}
        tokens: dict[str, int] = {}
        for _ in range(rounds):
            with counted(guard) as read:
                start = time.perf_counter()
                sentences = streamed(guard, PROMPT, answer)
                seconds["stream"].append(time.perf_counter() - start)
            tokens["stream"] = sum(read)
            with counted(guard) as read:
                start = time.perf_counter()
                results = [guard.check(PROMPT, answer[: one.end]) for one in sentences]
                seconds["checks"].append(time.perf_counter() - start)
            tokens["checks"] = sum(read)
            require_equal(sentences, results)
        stream, checks = (median(seconds[name]) for name in ("stream", "checks"))
        print(
            f"{len(sentences):>9,}{tokens['stream']:>9,}{tokens['checks']:>10,}"
            f"{tokens['checks'] / tokens['stream']:>7.1f}{stream:>9.3f}{checks:>10.3f}{checks / stream:>7.1f}"
        )


def streamed(guard: Guard, prompt: str, response: str) -> list[JudgedSentence]:
    """Return the judgements of a response that comes word by word."""
    stream = guard.stream(prompt)
    words = response.split(" ")
    found = [one for word in (words[0], *(f" {word}" for word in words[1:])) for one in stream.feed(word)]
    return [*found, *stream.finish()]


def place(first: int | None, known: int) -> str:
    """Return where harm was first flagged, compared with the sentence at which it first shows."""
    if first is None:
        return "never"
    return "right" if first == known else "earlier" if first < known else "later"


def joined(texts: Sequence[str], sentences: int) -> str:
    """Return texts joined in order up to a number of sentences; after the last text comes the first one again."""
    answer = " ".join(texts)
    while len(ends := sentence_ends(answer)) < sentences:
        answer = f"{answer} {' '.join(texts)}"
    return answer[: ends[sentences - 1]]


def sentence_ends(text: str) -> list[int]:
    """Return the ends of the sentences of a text, as a stream finds them."""
    text += "\n"
    ends: list[int] = []
    while (end := next_end(text, ends[-1] if ends else 0)) is not None:
        ends.append(end)
    return ends


def next_end(text: str, start: int) -> int | None:
    """Return the end of the sentence after ``start``."""
    first = len(text) - len(text[start:].lstrip())
    return sentence_end(text, first, 300) if first < len(text) else None


def require_equal(sentences: Sequence[JudgedSentence], results: Sequence[GuardResult]) -> None:
    """Require that a stream and checks return the same."""
    for sentence, expected in zip(sentences, results, strict=True):
        found = sentence.result
        same = (found.completion, found.flagged) == (expected.completion, expected.flagged)
        scores = [
            abs(score - expected.tasks[name].scores[label])
            for name, task in found.tasks.items()
            for label, score in task.scores.items()
        ]
        if not same or max(scores, default=0.0) > TOLERANCE:
            raise SystemExit(f"the stream and check differ at character {sentence.end}: {scores}")


@contextmanager
def counted(guard: Guard) -> Iterator[list[int]]:
    """Yield a list that receives the number of tokens of each forward pass."""
    tokens: list[int] = []
    embedding = guard.backbone.network.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, inputs, output: tokens.append(inputs[0].numel()))
    try:
        yield tokens
    finally:
        hook.remove()


def shown(share: Share) -> str:
    """Return a share with its interval."""
    low, high = share.interval or (0.0, 0.0)
    return f"{share.count:>4} of {share.total} = {share.percent:.1f} % [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
