"""Strict YAML: words stay words, nothing is silently dropped, and small files cannot expand without end."""

import pytest
import yaml

from guardreasoner.workflow.strict_yaml import line_of, parse_yaml


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ("[yes, no]", ["yes", "no"]),
        ("[Yes, No]", ["Yes", "No"]),
        ("[true, false]", ["true", "false"]),
        ("[0, 1]", ["0", "1"]),
        ("[007, 1.50]", ["007", "1.50"]),
        ("[on, off]", ["on", "off"]),
        ("['yes', \"no\"]", ["yes", "no"]),
    ],
)
def test_labels_are_the_words_that_were_written(written: str, labels: list[str]) -> None:
    task = parse_yaml(f"recipe: {{tasks: [{{labels: {written}, positive: {labels[0]}}}]}}")["recipe"]["tasks"][0]
    assert task == {"labels": labels, "positive": labels[0]}


def test_mapped_labels_are_words_and_what_they_map_from_is_compared_in_every_form() -> None:
    columns = parse_yaml("label_map: {violation: {1: yes, 0: no}}\nlabels: {violation: 7}")
    assert columns == {"label_map": {"violation": {1: "yes", 0: "no"}}, "labels": {"violation": "7"}}


def test_booleans_and_numbers_elsewhere_stay() -> None:
    assert parse_yaml("pool: yes\nkeep: {positive: [true, 1]}\nlr: 1e-3\npositive: null") == {
        "pool": True,
        "keep": {"positive": [True, 1]},
        "lr": 1e-3,
        "positive": None,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", "occurs twice"),
        ("a: {1: x, true: y}", "occurs twice"),
        ("a: .nan", "finite"),
        ("a: [1, -.inf]", "finite"),
        ("a: 1e999", "finite"),
        ("a: " + "9" * 5000, "not a number"),
        ("a: &x [*x]", "contains itself"),
        ("a: " + "[" * 60 + "]" * 60, "levels deep"),
        ("a: " + "[" * 50_000 + "]" * 50_000, "levels deep"),
        ("a0: &a0 [0]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)), "aliases"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as error:
        parse_yaml(text)
    assert problem in str(error.value.problem)


def test_an_alias_that_is_used_twice_is_no_bomb() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_the_line_of_a_key() -> None:
    text = "data:\n  init_args:\n    sources:\n      - init_args: {path: a}\n      - init_args:\n          path: b\n"
    assert line_of(text, ["data", "sources", "path"]) == 6
    assert line_of(text, ["data", "init_args", "sources"]) == 3
    assert line_of(text, ["data", "path"]) is None
