"""The embedded policies: deterministic, disjoint splits, labels that follow from the text and only with the policy."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from guardreasoner import prompts
from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.embedded import policies
from guardreasoner.sources.embedded.policies import HIDDEN_POLICY, Case, EmbeddedPolicies
from guardreasoner.sources.embedded.policies.behaviours import BEHAVIOUR, BEHAVIOURS, Behaviour
from guardreasoner.sources.embedded.policies.circumstances import CIRCUMSTANCES, Circumstance
from guardreasoner.sources.embedded.policies.dialogues import PLATFORMS, TOOL
from guardreasoner.sources.embedded.policies.rules import KNOWN_RULES, NEW_RULES, RULES, WORDINGS, Rule
from guardreasoner.tasks import POLICY_TASKS
from guardreasoner.workflow.manifest import fingerprint

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SIZES = {
    ("train", "training"): 4800,
    ("validation", "new-combinations"): 240,
    **{("test", name): 200 for name in ("new-combinations", "new-rules", "seen")},
}


@pytest.fixture(scope="module")
def cases() -> dict[str, list[Case]]:
    return {split: EmbeddedPolicies().cases(split) for split in SPLITS}


@pytest.fixture(scope="module")
def records() -> dict[str, list[Record]]:
    return {split: EmbeddedPolicies().records(split) for split in SPLITS}


def conversation(record: Record) -> str:
    return json.dumps([message.as_json() for message in record.messages])


def test_sizes_ids_and_sources(records: dict[str, list[Record]]) -> None:
    found = Counter((split, record.source) for split, rows in records.items() for record in rows)
    assert found == {(split, f"policies/{name}"): count for (split, name), count in SIZES.items()}
    ids = [record.id for rows in records.values() for record in rows]
    assert len(set(ids)) == len(ids)
    for split, rows in records.items():
        names = {re.sub(r"@p\d$", "", record.id): conversation(record) for record in rows}
        assert len(set(names.values())) == len(names)
        for record in rows:
            assert re.fullmatch(rf"{split}/(shop|school|travel|bank)/c\d{{5}}@p\d", record.id)
            assert conversation(record) == names[record.id[:-3]]
        assert len({record.content_key() for record in rows}) == len(rows)


def test_the_corpus_is_deterministic_and_a_smaller_one_is_a_prefix(records: dict[str, list[Record]]) -> None:
    assert EmbeddedPolicies(train=10, test=30).records("test") == records["test"][:30]
    assert EmbeddedPolicies(train=10).records("train") == records["train"][:10]
    assert EmbeddedPolicies(train=10, seed=1).records("train") != records["train"][:10]
    assert EmbeddedPolicies(validation=0).records("validation") == []


def test_the_row_in_the_docstring_is_a_record(records: dict[str, list[Record]]) -> None:
    lines = [" ".join(line.split()) for line in (policies.__doc__ or "").splitlines()]
    row = next(record for record in records["train"] if f"id: {record.id}" in lines)
    first, *rules = (row.policy or "").splitlines()
    assert {f"policy: {first}", *rules, f"labels: {', '.join(row.labels.values())}"} <= set(lines)  # type: ignore[arg-type]
    assert {f"{message.role}: {message.content}" for message in row.messages} <= set(lines)


def test_splits_share_no_message_of_a_user(records: dict[str, list[Record]]) -> None:
    texts = {
        split: {
            message.content
            for record in (*records[split], *EmbeddedPolicies(seed=1).records(split))
            for message in record.messages
            if message.role == "user"
        }
        for split in SPLITS
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]


def test_splits_own_different_sets_of_rules(cases: dict[str, list[Case]]) -> None:
    def sets(split: Split, source: str, seed: int = 0) -> set[frozenset[Rule]]:
        rows = cases[split] if seed == 0 else EmbeddedPolicies(seed=seed).cases(split)
        return {frozenset(case.policy) for case in rows if case.source == f"policies/{source}"}

    train = sets("train", "training") | sets("train", "training", seed=1)
    validation = sets("validation", "new-combinations")
    assert not train & sets("test", "new-combinations")
    assert not train & validation
    assert not validation & sets("test", "new-combinations")
    assert sets("test", "seen") <= sets("train", "training")


def test_new_rules_are_only_in_their_source(cases: dict[str, list[Case]]) -> None:
    assert {*KNOWN_RULES, *NEW_RULES} == set(RULES)
    for case in (case for rows in cases.values() for case in rows):
        new = [rule for rule in case.policy if rule in NEW_RULES]
        assert len(new) == (case.source == "policies/new-rules")
        if new:  # it decides
            others = [rule for rule in case.policy if rule not in new]
            assert not any(rule.is_broken(case.dialogue.facts) for rule in others)
    assert {rule for case in cases["train"] for rule in case.policy} == set(KNOWN_RULES)
    assert {rule for case in cases["test"] for rule in case.policy} == set(RULES)


def test_a_policy_has_two_to_four_rules_about_different_behaviours(cases: dict[str, list[Case]]) -> None:
    for case in (case for rows in cases.values() for case in rows):
        assert len({rule.behaviour for rule in case.policy}) == len(case.policy)
    assert {len(case.policy) for case in cases["train"]} == {2, 3, 4}


def test_opposite_policies_are_frequent(cases: dict[str, list[Case]]) -> None:
    opposite = 0
    for violated, kept in zip(cases["train"][::2], cases["train"][1::2], strict=True):
        changed = [(one, other) for one, other in zip(violated.policy, kept.policy, strict=False) if one != other]
        opposite += len(violated.policy) == len(kept.policy) and [one.opposite() for one, _ in changed] == [
            other for _, other in changed
        ]
    assert opposite > 0.3 * len(cases["train"]) / 2


def test_labels_follow_from_the_text(records: dict[str, list[Record]]) -> None:
    """Recover facts and rules from the text alone and apply the rules of the docstring."""
    for record in (record for rows in records.values() for record in rows):
        facts = facts_in_text(record)
        rules = [rule_in_text(line.split(" ", 1)[1]) for line in (record.policy or "").splitlines()]
        broken = [number for number, rule in enumerate(rules, start=1) if is_broken(rule, facts)]
        assert record.labels == {
            "rule": f"rule {broken[0]}" if broken else "no rule",
            "policy": "violates" if broken else "complies",
        }, record


def facts_in_text(record: Record) -> set[str]:
    said = " ".join(message.content for message in record.messages if message.role == "user")
    answered = " ".join(message.content for message in record.messages if message.role == "assistant")
    facts = {one.name for one in BEHAVIOURS if any(sentence in answered for sentence in one.sentences)}
    facts |= {one.name for one in CIRCUMSTANCES if any(sentence in said for sentence in one.sentences)}
    called = any(call.name == TOOL for message in record.messages for call in message.tool_calls)
    return facts | ({"checked"} if called else set())


def rule_in_text(text: str) -> tuple[str, str, str]:
    """Return form, behaviour and circumstance of a written rule."""
    act, behaviour = next((act, one.name) for one in BEHAVIOURS for act in one.acts if f" {act}" in text)
    clause, circumstance = next(
        ((clause, one.name) for one in CIRCUMSTANCES for clause in one.clauses if f" {clause}" in text), ("", "")
    )
    forms = [form for form, wordings in WORDINGS.items() for w in wordings if w.format(act=act, clause=clause) == text]
    assert len(forms) == 1, text
    return forms[0], behaviour, circumstance


def is_broken(rule: tuple[str, str, str], facts: set[str]) -> bool:
    form, behaviour, circumstance = rule
    done, given = behaviour in facts, circumstance in facts
    return {
        "forbid": done,
        "require": not done,
        "only_if": done and not given,
        "if_require": given and not done,
        "if_forbid": given and done,
    }[form]


def test_a_conversation_alone_says_nothing(records: dict[str, list[Record]]) -> None:
    """Whatever reads only the messages has exactly half of the labels right."""
    for rows in records.values():
        labels: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for record in rows:
            labels[record.source, conversation(record)][record.labels["policy"] or ""] += 1
        assert all(counts["violates"] == counts["complies"] for counts in labels.values())


@pytest.mark.parametrize("with_conversation", [False, True])
def test_a_bag_of_words_is_near_chance(records: dict[str, list[Record]], with_conversation: bool) -> None:
    def text(record: Record) -> str:
        return f"{record.policy} {conversation(record) if with_conversation else ''}"

    counts: dict[str, Counter[str]] = {"violates": Counter(), "complies": Counter()}
    for record in records["train"]:
        counts[record.labels["policy"] or ""].update(words(text(record)))
    totals = {label: counter.total() + 1000 for label, counter in counts.items()}

    def log_likelihood(record: Record, label: str) -> float:
        return sum(math.log((counts[label][word] + 1) / totals[label]) for word in words(text(record)))

    for source in ("policies/seen", "policies/new-combinations", "policies/new-rules"):
        rows = [record for record in records["test"] if record.source == source]
        guesses = [max(counts, key=lambda label, record=record: log_likelihood(record, label)) for record in rows]
        right = sum(guess == record.labels["policy"] for guess, record in zip(guesses, rows, strict=True))
        assert right / len(rows) < 0.65


def words(text: str, lower: bool = True) -> Sequence[str]:
    return re.findall(r"[\w']+", text.lower() if lower else text)


def test_training_has_every_word(records: dict[str, list[Record]]) -> None:
    known = {split: set(words(" ".join(map(prompt_and_target, rows)))) for split, rows in records.items()}
    assert known["validation"] <= known["train"]
    new_wordings = set(words(" ".join(act for rule in NEW_RULES for act in BEHAVIOUR[rule.behaviour].acts)))
    assert known["test"] - known["train"] <= new_wordings


def prompt_and_target(record: Record) -> str:
    return prompts.render(record, POLICY_TASKS, "") + prompts.target(record, POLICY_TASKS)


def test_records_are_short_and_targets_parse_back(records: dict[str, list[Record]]) -> None:
    for record in (record for rows in records.values() for record in rows):
        assert len(words(prompt_and_target(record))) < 250
        assert prompts.parse(record.reasoning or "", POLICY_TASKS) == {"policy": None, "rule": None}
        assert prompts.parse(prompts.target(record, POLICY_TASKS), POLICY_TASKS) == record.labels


def test_reasoning_repeats_the_rules_and_quotes_the_conversation(records: dict[str, list[Record]]) -> None:
    for record in (record for rows in records.values() for record in rows):
        *lines, verdict = (record.reasoning or "").splitlines()
        rules = (record.policy or "").splitlines()
        for rule, line in zip(rules, lines, strict=True):
            assert line.startswith(f"{rule} Search: ")
            for result in re.findall(r"Search: ([^.,]+)", line):
                assert result.endswith(" not found") or result in prompts.conversation(record)
        broken = [line.split(".")[0] for line in lines if line.endswith(" Broken.")]
        assert verdict == (f"Rule {broken[0]} is the first broken." if broken else "No rule is broken.")


def test_a_sign_is_in_the_sentences_of_its_fact_alone() -> None:
    def sentences(one: Behaviour | Circumstance) -> tuple[str, ...]:
        return (*one.sentences, *(one.against if isinstance(one, Circumstance) else ()))

    facts: tuple[Behaviour | Circumstance, ...] = (*BEHAVIOURS, *CIRCUMSTANCES)
    others = [text for platform in PLATFORMS for text in (*platform.things, *platform.questions, *platform.answers)]
    others += [text for one in facts for text in (one.acts if isinstance(one, Behaviour) else one.clauses)]
    for one in facts:
        assert all(one.sign in words(sentence, lower=False)[1:] for sentence in sentences(one))
        elsewhere = [*others, *(sentence for other in facts if other is not one for sentence in sentences(other))]
        assert not any(one.sign.lower() in words(text) for text in elsewhere), one.sign


def test_hidden_policies_leave_ids_labels_and_conversations(records: dict[str, list[Record]]) -> None:
    hidden = EmbeddedPolicies(hide_policy=True).records("test")
    assert {record.policy for record in hidden} == {HIDDEN_POLICY}
    for one, other in zip(hidden, records["test"], strict=True):
        assert (one.id, one.labels, one.messages) == (other.id, other.labels, other.messages)


def test_the_identity_is_that_of_the_arguments() -> None:
    assert EmbeddedPolicies().identity() == EmbeddedPolicies(seed=0).identity()
    identities = [
        str(one.identity())
        for one in (EmbeddedPolicies(), EmbeddedPolicies(seed=1), EmbeddedPolicies(hide_policy=True))
    ]
    assert len(set(identities)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, "train must be a number of records"),
        ({"test": True}, "test must be"),
        ({"validation": 2.5}, "validation must be"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"hide_policy": "yes"}, "hide_policy must be true or false"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        EmbeddedPolicies(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="no split 'dev'"):
        EmbeddedPolicies().records("dev")  # type: ignore[arg-type]


def test_the_corpus_is_the_one_that_figures_were_measured_on(records: dict[str, list[Record]]) -> None:
    content = [record.as_json() for split in SPLITS for record in records[split]]
    assert fingerprint(content)[:16] == "4b5d553f33ca365e"
