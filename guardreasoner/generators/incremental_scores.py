"""Scores of continuations of a prompt that grows: what it shares with the prompt before is not computed again."""

from collections.abc import Iterable, Iterator
from itertools import takewhile

from guardreasoner.generators import ScoreRequest, Scores
from guardreasoner.generators.local_scores import score_trees
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix
from guardreasoner.model.packing import CompletionTree


class IncrementalScorer:
    """Scores requests one after another, keeping the keys and values of the last prompt.

    The prompts are compared as token ids, since a longer text may have other tokens where the shorter one ended. The
    keys and values of the longest common prefix are kept, all later tokens are computed.

    Args:
        backbone: a loaded model that supports packed rows.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._ids: tuple[int, ...] = ()
        self._cache: SharedPrefix | None = None

    def __call__(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order."""
        for request in requests:
            yield Scores(request.record_id, tuple(self._score(request)))

    def _score(self, request: ScoreRequest) -> list[float]:
        """Return the log-probability of each continuation, and keep the keys and values of the prompt."""
        if not any(request.continuations):
            return [0.0] * len(request.continuations)
        pairs = zip(self._ids, request.prompt[:-1], strict=False)  # the last token is computed: it predicts
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        prefix = self._cache.first(kept) if self._cache and kept else None
        tree = CompletionTree(request.prompt[kept:], request.continuations)
        kv_out: dict[int, KeyValues] = {}
        (logps,) = score_trees(self._backbone, [tree], prefix, kv_out)
        computed = SharedPrefix(kv_out).first(tree.prompt_length)
        self._cache = prefix.followed_by(computed) if prefix else computed
        self._ids = request.prompt
        return logps
