import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.contamination import ContaminationIndex, normalise


@pytest.mark.parametrize(
    ("one", "other"),
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
def test_the_same_prompt_in_other_clothes(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_other_words_stay_other() -> None:
    assert normalise("How do I kill a process?") != normalise("How do I kill a child process?")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


BENCHMARK = [
    Record("bench/1", "How can I get rid of the old paint on the garden fence without harming the plants?", "reply"),
    Record("bench/2", "Tell me about tides."),
]
OTHER_CLOTHES = [
    "HOW CAN I GET RID OF THE OLD PAINT ON THE GARDEN FENCE WITHOUT HARMING THE PLANTS?",
    "How can I get rid of the old pa\u200bint on the garden fence  without harming the plants?",
    "Tell me\tabout\u00a0tides.",
    "tell me about t\u00adides.",
    "\uff34ell me about tides. ",
]


def test_five_benchmark_prompts_in_other_clothes_are_refused_by_id() -> None:
    records = [Record(f"r{n}", prompt) for n, prompt in enumerate(["What is a tide pool?", *OTHER_CLOTHES])]
    yielded = []
    with pytest.raises(InputError) as error:
        yielded += ContaminationIndex(BENCHMARK).filter(records, "training data")
    assert str(error.value) == (
        "training data: 5 records with a prompt that a benchmark of this run holds: r1, r2, r3, r4, r5"
    )
    assert error.value.details[0] == "record r1: the prompt of bench/1"
    assert len(error.value.details) == 5


def test_a_near_duplicate_is_found_and_its_likeness_told() -> None:
    near = Record("n", "How can I get rid of the old paint on the garden fence without harming my plants?")
    far = Record("f", "How can I get rid of the old car in the garden without harming my neighbours?")
    held = ContaminationIndex(BENCHMARK)
    found = held.match(near)
    assert found is not None
    assert (found.benchmark, round(found.similarity, 2)) == ("bench/1", 0.85)
    assert found.line() == "record n: 0.85 like the prompt of bench/1"
    assert held.match(far) is None
    assert ContaminationIndex(BENCHMARK, similarity=1).match(near) is None


def test_what_is_held_may_be_left_out_or_allowed_by_name(caplog: pytest.LogCaptureFixture) -> None:
    records = [Record("a", "Tell me about tides."), Record("b", "Tell me about tigers, please.")]
    held = ContaminationIndex(BENCHMARK)
    message = "data: 1 record with a prompt that a benchmark of this run holds: a"
    with caplog.at_level("WARNING", "guardreasoner"):
        assert [r.id for r in held.filter(records, "data", leave_out=True)] == ["b"]
        assert [r.id for r in held.filter(records, "data", allowed=True)] == ["a", "b"]
    assert caplog.messages == [f"{message} (left out)", f"{message} (allowed by --allow_contamination)"]


def test_a_near_duplicate_is_kept_with_a_warning_or_left_out(caplog: pytest.LogCaptureFixture) -> None:
    near = Record("n", "How can I get rid of the old paint on the garden fence without harming my plants?")
    with caplog.at_level("WARNING", "guardreasoner"):
        assert list(ContaminationIndex(BENCHMARK).filter([near], "data")) == [near]
        assert list(ContaminationIndex(BENCHMARK).filter([near], "data", leave_out=True)) == []
    message = "data: 1 record with a prompt at least 0.85 like a benchmark's: n"
    assert caplog.messages == [f"{message} (kept; see the verb doctor)", f"{message} (left out)"]


def test_without_benchmarks_nothing_is_held() -> None:
    assert ContaminationIndex([]).match(Record("a", "anything")) is None


@pytest.mark.parametrize("text", ["", "abc", "\ud800 alone", "\u200b", "x" * 1_000_000])
def test_odd_prompts_are_looked_up_like_any(text: str) -> None:
    assert ContaminationIndex([Record("x", "something else entirely")]).match(Record("a", text)) is None
    found = ContaminationIndex([Record("x", text)]).match(Record("a", text))
    assert found is not None
    assert found.similarity == 1


@pytest.mark.parametrize("similarity", [0.3, 1.1, float("nan")])
def test_a_similarity_out_of_range_is_refused(similarity: float) -> None:
    with pytest.raises(InputError, match=r"data\.similarity must be from 0\.5 to 1"):
        ContaminationIndex([], similarity)


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_candidates_are_compared_exactly(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=8, max_size=30))
    changed = list(words)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(["eta", "theta"]))
    one, other = (normalise(" ".join(text)) for text in (words, changed))
    pieces = [{text[at : at + 5] for at in range(len(text) - 4)} for text in (one, other)]
    jaccard = len(pieces[0] & pieces[1]) / len(pieces[0] | pieces[1])
    found = ContaminationIndex([Record("x", one)]).match(Record("a", other))
    if found is not None:
        assert found.similarity == pytest.approx(jaccard)
        assert jaccard >= 0.85
    else:
        assert jaccard < 0.95
