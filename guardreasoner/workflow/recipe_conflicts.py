"""Find values that a command sets twice: through the recipe, and directly at the key that refers to the recipe."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from guardreasoner.moved import current_argv
from guardreasoner.workflow.config import flags, merge_flag

_REFERENCE = re.compile(r"\$\{recipe\.(\w+)\}")


@dataclass(frozen=True)
class RecipeConflict:
    """A recipe value that has no effect on a key, since the key is also set directly.

    Args:
        key: dotted key that a config had set to ``${recipe.NAME}``.
        value: its value now.
        name: name of the recipe value.
        recipe_value: the value of the recipe.
        by_flags: whether flags set both, so that the command contradicts itself.
    """

    key: str
    value: Any
    name: str
    recipe_value: Any
    by_flags: bool

    def __str__(self) -> str:
        return f"{self.key} is {self.value}, so recipe.{self.name} {self.recipe_value} has no effect on it"


def recipe_conflicts(argv: Sequence[str]) -> list[RecipeConflict]:
    """Return the conflicts of a command.

    A recipe value of the file that holds the reference is a default and conflicts with nothing.

    Args:
        argv: verb and flags.
    """
    config: dict[str, Any] = {}
    references: dict[str, tuple[str, int]] = {}  # name of the recipe value and number of the source, by key
    recipe_set: dict[str, int] = {}
    value_set: dict[str, int] = {}
    given = list(flags(current_argv(argv)))
    for number, (flag, text) in enumerate(given):
        before = dict(_leaves(config))
        recipe_before = dict(config.get("recipe") or {})
        merge_flag(config, flag, text)
        for key, value in _leaves(config):
            if before.get(key) == value:
                continue
            if match := _REFERENCE.fullmatch(str(value)):
                references[key] = match[1], number
                value_set.pop(key, None)
            elif key in references:
                value_set[key] = number
        for name, value in dict(config.get("recipe") or {}).items():
            if recipe_before.get(name) != value:
                recipe_set[name] = number
    now, recipe = dict(_leaves(config)), config.get("recipe") or {}
    return [
        RecipeConflict(
            key,
            now[key],
            name,
            recipe[name],
            given[recipe_set[name]][0] != "config" and given[value_set[key]][0] != "config",
        )
        for key, (name, number) in references.items()
        if key in value_set and recipe_set.get(name, -1) > number and now.get(key) not in (None, recipe[name])
    ]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of a config."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
