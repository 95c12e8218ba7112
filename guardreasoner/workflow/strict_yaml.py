"""Parse YAML strictly: no duplicate keys, infinite numbers or alias bombs; labels stay as they are written."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

_MAX_NODES = 100_000
"""Largest number of values in a file with its aliases expanded; the largest shipped config has about 100."""

_MAX_DEPTH = 50

_WORDS = {"labels", "positive"}
"""Keys whose values are words of the user's own: ``yes`` below them is a word, not a boolean."""

_MAPS_TO_WORDS = {"label_map", "words"}
"""Keys of mappings to labels. What they map from is compared in every form of a value, so it may be a boolean."""

_COLUMNS = "keep"
"""Key of a mapping from the user's own column names, which are no keys of ours."""

_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_TAGS_OF_WORDS = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}


class NotFinite(yaml.MarkedYAMLError):
    """A number of a YAML text is NaN or infinite."""


def parse_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        yaml.YAMLError: the text is not valid YAML, is nested too deeply, has too many values, contains a key twice or a
            number that is not finite.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _require_bounded(root)
        _keep_words(root)
        return loader.construct_document(root)
    except RecursionError:
        raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_DEPTH} levels deep") from None
    finally:
        loader.dispose()


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Return the line, from 1, of the key at a path of keys; None if the text has none.

    Args:
        text: a YAML text.
        keys: the path; ``init_args`` and lists, whose last element is meant, may be left out.
    """
    try:
        node = yaml.compose(text, _Loader)
    except (yaml.YAMLError, RecursionError):
        return None
    line = None
    for key in keys:
        pair = _pair(node, key)
        if pair is None:
            return None
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


class _Loader(yaml.SafeLoader):
    """Load 1e-3 as a number and a date as text, as the Lightning command line does."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own way of declaring them)
        first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":timestamp", ":float"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            # PyYAML would silently let the last of two equal keys win.
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                same = {key.value, self.construct_object(key)}  # 1 and true are the same key of a dict
                if not seen.isdisjoint(same):
                    raise _at(key, f"key {key.value!r} occurs twice")
                seen |= same
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return the number of a node, which must be finite and short enough for Python."""
        is_float = node.tag.endswith(":float")
        try:
            number = self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)
        except ValueError:
            raise _at(node, f"{node.value[:20]!r} is not a number") from None
        if not math.isfinite(number):
            raise NotFinite(problem=f"expected a finite number, got {node.value[:20]}", problem_mark=node.start_mark)
        return number


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*\.[\d_]*(?:e[-+]?\d+)?|\d[\d_]*e[-+]?\d+|\.\d[\d_]*(?:e[-+]?\d+)?|\.inf)$|\.nan$", re.I
    ),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)


def _at(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _pair(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the key and the value of a mapping, of its ``init_args``, or of the last such element of a list."""
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, (_pair(child, key) for child in reversed(node.value))), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    found = {name.value: (name, value) for name, value in node.value}
    return found.get(key) or (_pair(found["init_args"][1], key) if "init_args" in found else None)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _require_bounded(root: yaml.Node) -> None:
    """Raise an error if the document has too many values, or is too deep, with its aliases expanded.

    PyYAML shares the value of an alias, but what reads the config later does not.
    """
    sizes: dict[int, tuple[int, int]] = {}  # (number of values, depth) of each finished node
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if id(node) in open_nodes:
            raise _at(node, "a value contains itself")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            inner = [measure(child) for child in _children(node)]
            open_nodes.remove(id(node))
            size = 1 + sum(count for count, _ in inner)
            depth = 1 + max((depth for _, depth in inner), default=0)
            if size > _MAX_NODES:
                raise _at(node, f"more than {_MAX_NODES:,} values with aliases expanded")
            if depth > _MAX_DEPTH:
                raise _at(node, f"nested more than {_MAX_DEPTH} levels deep")
            sizes[id(node)] = size, depth
        return sizes[id(node)]

    measure(root)


def _keep_words(node: yaml.Node) -> None:
    """Make each unquoted label of a config a text: YAML would read ``yes`` as true and ``0`` as a number."""
    if not isinstance(node, yaml.MappingNode):
        for child in _children(node):
            _keep_words(child)
        return
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name in _WORDS:
            _as_words(value)
        elif name in _MAPS_TO_WORDS and isinstance(value, yaml.MappingNode):
            for _, inner in value.value:
                _as_words(inner)
        elif name != _COLUMNS:
            _keep_words(value)


def _as_words(node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            _as_words(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _as_words(value)
    elif node.tag in _TAGS_OF_WORDS:
        node.tag = _STRING
