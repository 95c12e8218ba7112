import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.records import Message, Record
from guardreasoner.sources.contamination import ContaminationIndex, normalize


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How do I  kill\na process?", "how do i kill a process? "),
        ("kill a pro\u200bcess", "kill a process"),
        ("kill\u00a0a\u3000process", "kill a process"),
        ("ｋｉｌｌ a process", "kill a process"),
        ("Straße", "STRASSE"),
        ("e\u0301te\u0301", "été"),
        ("e\u200d\u0301", "é"),
        ("kill\U000e0041 it\ufe0f\u034f", "kill it"),
        ("soft\u00adhyphen\ufeff", "softhyphen"),
    ],
)
def test_variants_of_a_prompt_normalize_to_the_same_text(first: str, second: str) -> None:
    assert normalize(first) == normalize(second)


def test_different_prompts_stay_different() -> None:
    assert normalize("How do I kill a process?") != normalize("How do I kill a child process?")


@given(st.text())
def test_normalize_is_idempotent(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


BENCHMARK = [
    Record("bench/1", "How can I get rid of the old paint on the garden fence without harming the plants?", "reply"),
    Record("bench/2", "Tell me about tides."),
]
VARIANTS = [
    "HOW CAN I GET RID OF THE OLD PAINT ON THE GARDEN FENCE WITHOUT HARMING THE PLANTS?",
    "How can I get rid of the old pa\u200bint on the garden fence  without harming the plants?",
    "Tell me\tabout\u00a0tides.",
    "tell me about t\u00adides.",
    "\uff34ell me about tides. ",
]


def test_variants_of_benchmark_prompts_are_refused_by_id() -> None:
    records = [Record(f"r{n}", prompt) for n, prompt in enumerate(["What is a tide pool?", *VARIANTS])]
    yielded = []
    with pytest.raises(InputError) as error:
        yielded += ContaminationIndex(BENCHMARK).filter(records, "training data")
    assert str(error.value) == (
        "training data: 5 records with a prompt that also occurs in a benchmark of this run: r1, r2, r3, r4, r5"
    )
    assert error.value.details[0] == "record r1: same prompt as bench/1"
    assert len(error.value.details) == 5


def test_a_near_duplicate_is_matched_with_its_similarity() -> None:
    near = Record("n", "How can I get rid of the old paint on the garden fence without harming my plants?")
    far = Record("f", "How can I get rid of the old car in the garden without harming my neighbours?")
    index = ContaminationIndex(BENCHMARK)
    match = index.match(near)
    assert match is not None
    assert (match.benchmark, round(match.similarity, 2)) == ("bench/1", 0.85)
    assert match.line() == "record n: prompt 0.85 similar to that of bench/1"
    assert index.match(far) is None
    assert ContaminationIndex(BENCHMARK, similarity=1).match(near) is None


def test_matches_can_be_skipped_or_allowed(caplog: pytest.LogCaptureFixture) -> None:
    records = [Record("a", "Tell me about tides."), Record("b", "Tell me about tigers, please.")]
    index = ContaminationIndex(BENCHMARK)
    message = "data: 1 record with a prompt that also occurs in a benchmark of this run: a"
    with caplog.at_level("WARNING", "guardreasoner"):
        assert [r.id for r in index.filter(records, "data", skip=True)] == ["b"]
        assert [r.id for r in index.filter(records, "data", allow=True)] == ["a", "b"]
    assert caplog.messages == [f"{message} (left out)", f"{message} (allowed by --allow_contamination)"]


def test_a_near_duplicate_is_kept_with_a_warning_or_skipped(caplog: pytest.LogCaptureFixture) -> None:
    near = Record("n", "How can I get rid of the old paint on the garden fence without harming my plants?")
    with caplog.at_level("WARNING", "guardreasoner"):
        assert list(ContaminationIndex(BENCHMARK).filter([near], "data")) == [near]
        assert list(ContaminationIndex(BENCHMARK).filter([near], "data", skip=True)) == []
    message = "data: 1 record with a prompt at least 0.85 similar to a benchmark's: n"
    assert caplog.messages == [f"{message} (kept; see the verb doctor)", f"{message} (left out)"]


def test_an_empty_index_matches_nothing() -> None:
    assert ContaminationIndex([]).match(Record("a", "anything")) is None


@pytest.mark.parametrize("text", ["", "abc", "\ud800 alone", "\u200b", "x" * 1_000_000])
def test_unusual_prompts_can_be_matched(text: str) -> None:
    assert ContaminationIndex([Record("x", "something else entirely")]).match(Record("a", text)) is None
    match = ContaminationIndex([Record("x", text)]).match(Record("a", text))
    assert match is not None
    assert match.similarity == 1


@pytest.mark.parametrize("similarity", [0.3, 1.1, float("nan")])
def test_a_similarity_out_of_range_is_refused(similarity: float) -> None:
    with pytest.raises(InputError, match=r"data\.similarity must be from 0\.5 to 1"):
        ContaminationIndex([], similarity)


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_similarity_is_exact(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=8, max_size=30))
    changed = list(words)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(["eta", "theta"]))
    first, second = (normalize(" ".join(text)) for text in (words, changed))
    shingles = [{text[start : start + 5] for start in range(len(text) - 4)} for text in (first, second)]
    jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    match = ContaminationIndex([Record("x", first)]).match(Record("a", second))
    if match is not None:
        assert match.similarity == pytest.approx(jaccard)
        assert jaccard >= 0.85
    else:
        assert jaccard < 0.85


LATER = Record(
    "bench/3", messages=[Message("user", "Good day."), Message("assistant", "Good day."), Message("user", "And dogs?")]
)


def turns(*texts: str, system: str | None = None) -> list[Message]:
    before = [] if system is None else [Message("system", system)]
    return before + [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("messages", "benchmark"),
    [
        (turns("Hi.", "Hello.", "Yes?", "No.", f" {BENCHMARK[0].prompt.upper()}", "So."), "bench/1"),
        (turns("Good day.", "Good\u200b day.", "AND dogs?", "Yes."), "bench/3"),
        (turns("Good day.", "Good day.", "And dogs?", system="Be brief."), "bench/3"),
        (turns("Tell me about tides.", "So.", "More?"), None),  # four words in the middle of a conversation
        (turns("Tell me about tides.", "So.", system="Be brief."), "bench/2"),
        (turns("Good day.", "Good day.", "And cats?"), None),
        (turns("Hi.", "Hello.", "And dogs?"), None),
    ],
)
def test_conversations_match_as_a_whole_and_by_longer_messages(messages: list[Message], benchmark: str | None) -> None:
    match = ContaminationIndex([*BENCHMARK, LATER]).match(Record("r", messages=messages))
    assert (None if match is None else (match.benchmark, match.similarity)) == (benchmark and (benchmark, 1.0))


def test_a_message_of_a_benchmark_conversation_is_found_as_a_prompt() -> None:
    english, chinese = "Why do cats sleep so much?", "怎么做一个很大的木头箱子？"
    index = ContaminationIndex([Record("bench/4", messages=turns("Hi.", "Hello.", english, "So.", chinese))])
    for prompt, is_found in ((english, True), (chinese, True), ("Hi.", False)):
        assert (index.match(Record("r", prompt)) is not None) is is_found
