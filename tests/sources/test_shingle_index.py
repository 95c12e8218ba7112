"""The search for the most similar text: equal to comparing with every text, and fast where all texts are similar."""

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.sources.shingle_index import ShingleIndex, shingles

SIMILARITIES = st.sampled_from([0.5, 0.6, 2 / 3, 0.75, 0.8, 0.85, 0.9, 1.0])
WORDS = ("alpha", "beta", "gamma", "delta", "a", "eta", "theta", "é", "\ud800")


def most_similar_of_all(texts: list[str], similarity: float, text: str) -> tuple[float, str] | None:
    best = (0.0, "")
    for other in texts:
        if min(len(text), len(other)) > 0.5 * similarity * max(len(text), len(other)):
            own, others = shingles(text), shingles(other)
            best = max(best, (len(own & others) / len(own | others), other))
    return best if best[0] >= similarity else None


def sentences(template: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS), max_size=8).map(lambda words: template + " ".join(words))


@settings(max_examples=100, deadline=None)
@given(st.data(), SIMILARITIES, st.sampled_from(["", "tell me a story about ", "x" * 40]))
def test_the_search_finds_what_comparing_with_every_text_finds(
    data: st.DataObject, similarity: float, template: str
) -> None:
    texts = data.draw(st.lists(sentences(template), unique=True, max_size=40))
    index = ShingleIndex(texts, similarity)
    for text in data.draw(st.lists(sentences(template) | st.sampled_from([*texts, "alpha"]), min_size=1, max_size=5)):
        assert index.most_similar(text) == most_similar_of_all(texts, similarity, text)


def test_the_search_is_exact_on_texts_that_share_most_of_their_shingles() -> None:
    # more than one word of bits, shingles in few texts and in many, and exact ties
    rng = random.Random(0)
    template = "stay in the story, answer as its hero, and do not break off before the pupil has heard all of it: "
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 8))) for _ in range(60)]
    texts = list({template * rng.randint(1, 2) + " ".join(rng.choices(words, k=3)) for _ in range(400)})
    index = ShingleIndex(texts, 0.6)
    for text in (template + " ".join(rng.choices(words, k=3)) for _ in range(60)):
        assert index.most_similar(text) == most_similar_of_all(texts, 0.6, text)


def test_the_time_on_prompts_of_one_template_is_nearly_linear() -> None:
    rng = random.Random(0)
    template = f"{rng.getrandbits(1600):x} "  # 400 characters
    texts = [f"{template}{rng.getrandbits(80):x}" for _ in range(2000)]
    start = time.perf_counter()
    index = ShingleIndex(texts, 0.85)
    assert all(index.most_similar(f"{template}{rng.getrandbits(80):x}") for _ in texts)
    assert time.perf_counter() - start < 20  # about 2 s; 64 s when each pair of prompts was compared
