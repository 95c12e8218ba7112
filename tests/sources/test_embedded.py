"""The embedded corpus: deterministic, disjoint splits, labels that follow from the text, no operational detail."""

import re
from collections import Counter

import pytest

from guardreasoner import prompts
from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import embedded
from guardreasoner.sources.embedded import Embedded, combination_split
from guardreasoner.sources.embedded.framings import CONSENT, FRAMES, OWN
from guardreasoner.sources.embedded.responses import AGREE, CLOSE, DECLINE, harm_start
from guardreasoner.sources.embedded.scenarios import Scenario
from guardreasoner.sources.embedded.topics import PARTS
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.manifest import fingerprint

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TOPICS = [topic for topics in PARTS.values() for topic in topics]


@pytest.fixture(scope="module")
def scenarios() -> dict[str, list[tuple[Scenario, Record]]]:
    return {split: Embedded().scenarios(split) for split in SPLITS}


@pytest.fixture(scope="module")
def records(scenarios: dict[str, list[tuple[Scenario, Record]]]) -> dict[str, list[Record]]:
    return {split: [record for _, record in rows] for split, rows in scenarios.items()}


def normalized(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def test_sizes_ids_and_sources(records: dict[str, list[Record]]) -> None:
    assert {split: len(rows) for split, rows in records.items()} == {"train": 2400, "validation": 240, "test": 480}
    ids = [record.id for rows in records.values() for record in rows]
    assert len(set(ids)) == len(ids)
    for split, rows in records.items():
        for record in rows:
            assert record.id.startswith(f"{split}/{record.source.removeprefix('embedded/')}/")


def test_the_corpus_is_deterministic(records: dict[str, list[Record]]) -> None:
    assert Embedded().records("train") == records["train"]
    assert Embedded(seed=1).records("train") != records["train"]


def test_the_row_in_the_docstring_is_a_record(records: dict[str, list[Record]]) -> None:
    docstring = embedded.__doc__ or ""
    row = next(record for record in records["train"] if f"id:        {record.id}\n" in docstring)
    assert f"prompt:    {row.prompt}\n" in docstring
    assert f"response:  {row.response}\n" in docstring
    assert f"request {row.labels['request']}, completion {row.labels['completion']}" in docstring


def test_a_smaller_corpus_is_a_prefix(records: dict[str, list[Record]]) -> None:
    assert Embedded(test=90).records("test") == records["test"][:90]


def test_a_choice_of_parts_keeps_the_same_records(records: dict[str, list[Record]]) -> None:
    some = Embedded(parts=("health", "home"))
    assert some.records("train") == [record for record in records["train"] if record.source != "embedded/digital"]
    assert some.records("validation") == records["validation"]
    assert some.records("test") == records["test"]


def test_counts_not_divisible_by_three() -> None:
    by_part = Counter(record.source for record in Embedded(train=7).records("train"))
    assert by_part == {"embedded/home": 3, "embedded/digital": 2, "embedded/health": 2}
    assert Embedded(test=0).records("test") == []


def test_splits_share_no_prompt_and_conversations_are_unique(records: dict[str, list[Record]]) -> None:
    seeds = {split: [*records[split], *Embedded(seed=1).records(split)] for split in SPLITS}
    prompts_of = {split: {normalized(record.prompt) for record in rows} for split, rows in seeds.items()}
    assert not prompts_of["train"] & prompts_of["test"]
    assert not prompts_of["train"] & prompts_of["validation"]
    assert not prompts_of["validation"] & prompts_of["test"]
    for rows in records.values():
        conversations = {normalized(f"{record.prompt}\n{record.response}") for record in rows}
        assert len(conversations) == len(rows)


def test_splits_own_different_combinations(scenarios: dict[str, list[tuple[Scenario, Record]]]) -> None:
    owners: dict[tuple[str, ...], set[str]] = {}
    for split, rows in scenarios.items():
        for scenario, _ in rows:
            user = scenario.user
            owners.setdefault((scenario.topic.name, user.intent, user.aim, user.frame), set()).add(split)
            assert combination_split(scenario.topic, user.intent, user.aim, user.frame) == split
    assert all(len(splits) == 1 for splits in owners.values())


def test_training_covers_every_attribute_and_word(scenarios: dict[str, list[tuple[Scenario, Record]]]) -> None:
    def attributes(rows: list[tuple[Scenario, Record]]) -> set[object]:
        return {
            part
            for scenario, _ in rows
            for part in (
                scenario.topic.name,
                (scenario.user.intent, scenario.user.aim, scenario.user.frame),
                scenario.user.form,
                scenario.assistant,
            )
        }

    def words(rows: list[tuple[Scenario, Record]]) -> set[str]:
        texts = (f"{record.prompt} {record.response} {record.reasoning}" for _, record in rows)
        return {word for text in texts for word in re.findall(r"[\w']+", text)}

    for split in ("validation", "test"):
        assert attributes(scenarios[split]) <= attributes(scenarios["train"])
        assert words(scenarios[split]) <= words(scenarios["train"])


def test_labels_are_balanced(records: dict[str, list[Record]]) -> None:
    for split, min_share in (("train", 0.3), ("validation", 0.28), ("test", 0.28)):
        for task in GUARD_TASKS:
            gold = Counter(record.labels[task.name] for record in records[split])
            labelled = sum(gold[label] for label in task.labels)
            assert set(gold) <= {*task.labels, None}
            assert all(gold[label] >= min_share * labelled for label in task.labels), (split, task.name, gold)
        without_response = sum(record.response is None for record in records[split])
        assert 0.1 < without_response / len(records[split]) < 0.2


def test_labels_follow_from_the_text(records: dict[str, list[Record]]) -> None:
    """Recover the attributes from the text alone and apply the rules of the docstring."""
    for record in (record for rows in records.values() for record in rows):
        assert record.labels == labels_from_text(record), record


def labels_from_text(record: Record) -> dict[str, str | None]:
    kind, topic = act_in_prompt(record.prompt)
    if kind == "dual":
        taken = any(phrase in record.prompt for phrase in CONSENT["taken"])
        given = any(phrase in record.prompt for phrase in CONSENT["owned"])
        own = re.search(rf"\b({'|'.join(OWN)}) (?!\w+'s)", record.prompt)
        assert taken + given == 1 or own, record.prompt
        request, requested = taken, topic.dual.steps
    else:
        meaning = bool(
            re.search(r"only why|[Ww]hy is it|[Oo]nly ask|regret|warn another|reasons against", record.prompt)
        )
        meaning |= bool(re.search(r"What can happen|Explain why|so bad", record.prompt))
        taken, request = False, kind == "harm" and not meaning
        acts = {"harm": topic.harm, "safe": topic.safe, "lookalike": topic.lookalike}
        requested = topic.dangers if meaning else acts[kind].steps
    verdict = {True: "harmful", False: "unharmful"}
    if record.response is None:
        return {"request": verdict[request], "completion": None, "response": None}
    response = record.response
    declines = response.startswith(DECLINE) or response.endswith(CLOSE)
    refuses = declines and not any(phrase in response for phrase in requested)
    harmful = any(step in response for step in (*topic.harm.steps, *(topic.dual.steps if taken else ())))
    completion = "refusal" if refuses else "compliance"
    return {"request": verdict[request], "completion": completion, "response": verdict[harmful]}


def act_in_prompt(prompt: str):  # type: ignore[no-untyped-def]
    found = []
    for topic in TOPICS:
        for kind in ("harm", "safe", "lookalike", "dual"):
            before, _, after = getattr(topic, kind).goal.partition("{owner}")
            if re.search(rf"{re.escape(before)}.*{re.escape(after)}" if after else rf"{re.escape(before)}\b", prompt):
                found.append((len(before + after), kind, topic))
    assert found, prompt
    return max(found, key=lambda hit: hit[0])[1:]


def test_no_phrase_contains_another() -> None:
    for topic in TOPICS:
        steps = [*topic.harm.steps, *topic.safe.steps, *topic.lookalike.steps, *topic.dual.steps, *topic.dangers]
        for phrase in steps:
            assert sum(phrase in other for other in steps) == 1, (topic.name, phrase)
    fixed_phrases = [*AGREE, *DECLINE, *CLOSE, *(phrase for phrases in FRAMES.values() for phrase in phrases)]
    assert len(set(fixed_phrases)) == len(fixed_phrases)


def test_targets_parse_back_to_the_labels(records: dict[str, list[Record]]) -> None:
    for record in (record for rows in records.values() for record in rows):
        assert prompts.parse(record.reasoning or "", GUARD_TASKS) == dict.fromkeys(record.labels)
        assert prompts.parse(prompts.target(record, GUARD_TASKS), GUARD_TASKS) == record.labels


def test_reasoning_quotes_the_conversation_and_agrees_with_the_labels(records: dict[str, list[Record]]) -> None:
    for record in (record for rows in records.values() for record in rows):
        assert record.reasoning is not None
        for quote in re.findall(r'"([^"]+)"', record.reasoning):
            assert quote in f"{record.prompt}\n{record.response}"
        sections = re.split(r"# Task \d\n", record.reasoning)[1:]
        for task, section in zip(GUARD_TASKS, sections, strict=True):
            label = record.labels[task.name]
            ending = re.search(r": (\w+)\.$", section.strip())
            assert (ending and ending[1]) == label


def test_wordings_vary(records: dict[str, list[Record]]) -> None:
    steps = Counter(step for record in records["train"] for step in (record.reasoning or "").split("\n"))
    assert len(steps) > 2000
    last = Counter((record.reasoning or "").rpartition(": ")[0].rpartition(": ")[2] for record in records["train"])
    assert max(last.values()) < 0.25 * len(records["train"])


FORBIDDEN = {
    *("ammonia", "bleach", "chlorine", "chloroform", "cyanide", "arsenic", "ricin", "anthrax", "fentanyl", "meth"),
    *("nitrate", "peroxide", "acetone", "thermite", "fertilizer", "gunpowder", "fuse", "detonator", "silencer"),
    *("sql", "exploit", "payload", "keylogger", "botnet", "proxy", "tor", "vpn", "metasploit", "nmap", "kali"),
    *("lockpick", "crowbar", "screwdriver", "dosage", "milligram", "mg", "grams", "celsius", "http", "www"),
}


def test_no_operational_detail(records: dict[str, list[Record]]) -> None:
    for record in (record for rows in records.values() for record in rows):
        words = set(re.findall(r"[\w-]+", f"{record.prompt} {record.response} {record.reasoning}".lower()))
        assert not words & FORBIDDEN
        assert not re.search(r"\d", f"{record.prompt} {record.response}")
    for topic in TOPICS:
        assert all(len(step.split()) <= 6 for step in topic.harm.steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, "train must be a number of records"),
        ({"test": True}, "test must be"),
        ({"validation": 2.5}, "validation must be"),
        ({"parts": ()}, "parts must be one or more of home, digital, health"),
        ({"parts": ("home", "home")}, "each once"),
        ({"parts": ("garden",)}, "garden"),
        ({"parts": "home"}, "parts must be"),
        ({"seed": "x"}, "seed must be a whole number"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Embedded(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="no split 'dev'"):
        Embedded().records("dev")  # type: ignore[arg-type]


def test_the_corpus_does_not_change(records: dict[str, list[Record]]) -> None:
    # Published figures depend on this corpus; list a change and its effect in CHANGELOG.md.
    rows = [record.as_json() for split in SPLITS for record in records[split]]
    assert fingerprint(rows) == "4c173bc23bb775b2ca0e7cc90b29930e5ade773960f384933dfb9290c2d51bc2"


def test_the_place_of_the_first_harmful_step_is_known(scenarios: dict[str, list[tuple[Scenario, Record]]]) -> None:
    for rows in scenarios.values():
        for scenario, record in rows:
            start = None if record.response is None else harm_start(scenario, record.response)
            assert (start is not None) == (record.labels["response"] == "harmful")
            if start is None:
                continue
            topic, response = scenario.topic, str(record.response)
            harmful = {*topic.harm.steps, *(topic.dual.steps if scenario.user.intent == "taken" else ())}
            assert any(response.startswith(step, start) for step in harmful)
            assert not any(step in response[:start] for step in harmful)


def test_no_text_of_the_corpus_holds_the_step_of_another_act() -> None:
    for topic in TOPICS:
        acts = [topic.harm.steps, topic.safe.steps, topic.lookalike.steps, topic.dual.steps, topic.dangers]
        texts = [text for act in acts for text in act]
        assert not [(one, other) for one in texts for other in texts if one is not other and one in other]
        assert not [text for text in texts for phrase in (*AGREE, *DECLINE, *CLOSE) if text in phrase]
