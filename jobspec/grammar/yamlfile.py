"""Read one strict YAML 1.2 document into a tree that knows the line and column of everything.

Only events come from ruamel.yaml; the tree is made here, because the limits (size, depth, number of nodes
with aliases expanded), the two lines of a duplicate key and the core schema's types are ours to promise.
No object is ever constructed from a tag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jobspec.errors import SpecError

MAX_BYTES = 384 * 1024  # the pure Python scanner takes up to two microseconds for a character
MAX_DEPTH = 64
MAX_NODES = 12_000  # about 50 microseconds each; room for a list of 10,000 column names
MAX_DIGITS = 400

Path: TypeAlias = Sequence[Any]
Problem: TypeAlias = "tuple[Mark, str]"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A string, number, boolean or null."""

    mark: Mark
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    mark: Mark
    items: list[TreeNode] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping in the order of the file, with the place of each key."""

    mark: Mark
    items: dict[Any, TreeNode] = field(default_factory=dict)
    key_marks: dict[Any, Mark] = field(default_factory=dict)


TreeNode: TypeAlias = ScalarNode | SequenceNode | MappingNode


def to_plain(node: TreeNode) -> Any:
    """Turn a tree into Python's own dicts, lists and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [to_plain(item) for item in node.items]
    return {key: to_plain(item) for key, item in node.items.items()}


@dataclass(frozen=True, slots=True)
class Locations:
    """Tell where in the file a value stands."""

    name: str
    root: TreeNode

    def of(self, path: Path) -> str:
        """Return ``file:line:column`` of a value, or of its nearest ancestor that stands in the file."""
        return self.text(self._walk(path)[0])

    def of_key(self, path: Path) -> str:
        """Return ``file:line:column`` of the key that the path ends in, or as `of`."""
        parent = self._walk(path[:-1])[1]
        if isinstance(parent, MappingNode) and path and path[-1] in parent.key_marks:
            return self.text(parent.key_marks[path[-1]])
        return self.of(path)

    def text(self, mark: Mark) -> str:
        """Write a place as ``file:line:column``."""
        return f"{self.name}:{mark.line}:{mark.column}"

    def _walk(self, path: Path) -> tuple[Mark, TreeNode]:
        node, mark = self.root, self.root.mark
        for step in path:
            if isinstance(node, MappingNode) and _is_key(step, node):
                key_mark, node = node.key_marks[step], node.items[step]
                # An empty value has no place of its own: its key is what a person looks for.
                mark = key_mark if isinstance(node, ScalarNode) and node.value is None else node.mark
            elif isinstance(node, SequenceNode) and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
                mark = node.mark
        return mark, node


def _is_key(step: Any, node: MappingNode) -> bool:
    return isinstance(step, str | int | float | bool | None) and step in node.items


# --- reading ----------------------------------------------------------------------------------------------


def read_yaml(content: bytes, name: str) -> Locations:
    """Parse a spec's bytes.

    Args:
        content: the whole file.
        name: how messages call the file.

    Returns:
        The tree (``.root``) with its locations.

    Raises:
        SpecError: not UTF-8, not YAML 1.2, a duplicate key, a tag, or larger or deeper than allowed.
    """
    text = _decode_text(content, name)
    _refuse_by_text(text, name)
    return Locations(name, _Composer(text, name).compose())


def _decode_text(content: bytes, name: str) -> str:
    if len(content) > MAX_BYTES:
        raise SpecError(
            f"{name}:1:1: the file holds {len(content):,} bytes; a spec may hold {MAX_BYTES:,}. "
            "Put long lists of values into a generator (range, linspace, logspace)."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise SpecError(
            f"{name}:{line}:{column}: the file is not UTF-8 (byte 0x{content[error.start]:02x}); "
            "save the spec as UTF-8."
        ) from None
    return text.replace("\r\n", "\n")


_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(?: .*)?$", re.MULTILINE)
_TAB = re.compile(r"^ *(?:- *)*\t[ \t]*(?=[^\s#])", re.MULTILINE)
_DEEP = re.compile(rf"(?:[\[{{]\s*){{{MAX_DEPTH + 1}}}")
_LONG_TAG = re.compile(r"![^\s,\[\]{}]{200}")  # ruamel.yaml takes quadratic time over them
_ODD_CHARACTER = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _refuse_by_text(text: str, name: str) -> None:
    """Refuse what reads better, or faster, without a parser."""
    for pattern, message in (
        (_ODD_CHARACTER, "a control character, which YAML does not allow; remove it."),
        (_CONFLICT, "a merge-conflict marker; keep one side of the conflict and remove the markers."),
        (_DEEP, f"nested more than {MAX_DEPTH} levels deep; a spec needs fewer than ten."),
        (_LONG_TAG, "a YAML tag (`!`); a spec uses none. Quote the text if the `!` belongs to it."),
        (_TAB, "a tab; YAML indents with spaces only. Replace each tab by two spaces."),
    ):
        if found := pattern.search(text):
            # A tab is named where it stands, behind the spaces before it.
            start = text.find("\t", found.start()) if pattern is _TAB else found.start()
            line = text.count("\n", 0, start) + 1
            column = start - (text.rfind("\n", 0, start) + 1) + 1
            raise SpecError(f"{name}:{line}:{column}: {message}")


class _Composer:
    """Turn the events of one document into a tree, within the limits."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._events = read_events(text, name)
        self._anchors: dict[str, tuple[TreeNode, int, int] | None] = {}  # node, size and height of the subtree
        self._num_nodes = 0

    def compose(self) -> TreeNode:
        """Return the root of the only document."""
        next(self._events)  # the stream's start
        event = next(self._events)
        if type(event).__name__ == "StreamEndEvent":
            raise SpecError(f"{self._name}:1:1: the file is empty; `submit init` writes a spec to begin with.")
        version = getattr(event, "version", None)
        if version is not None and tuple(version) != (1, 2):
            raise self._fail(event, "a spec is YAML 1.2; remove the %YAML line.")
        root, _, _ = self._node(next(self._events), 1)
        next(self._events)  # the document's end
        event = next(self._events)
        if type(event).__name__ != "StreamEndEvent":
            raise self._fail(event, "a second document begins here (`---`); a spec is one document.")
        return root

    def _node(self, event: Any, depth: int) -> tuple[TreeNode, int, int]:
        """Return a node, the number of its nodes with aliases expanded, and its height."""
        if type(event).__name__ == "AliasEvent":
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise self._fail(event, f"nested more than {MAX_DEPTH} levels deep; a spec needs fewer than ten.")
        self._count(event, 1)
        if event.tag is not None:
            raise self._fail(event, f"a YAML tag ({str(event.tag)[:60]}); a spec uses none. Remove it.")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # known, not finished: an alias to it now would be endless
        kind = type(event).__name__
        if kind == "ScalarEvent":
            made: tuple[TreeNode, int, int] = (self._scalar(event), 1, 1)
        elif kind == "SequenceStartEvent":
            made = self._sequence(event, depth)
        else:
            made = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = made
        return made

    def _alias(self, event: Any, depth: int) -> tuple[TreeNode, int, int]:
        if event.anchor not in self._anchors:
            raise self._fail(event, f"the alias *{event.anchor} names no anchor above it (&{event.anchor}).")
        made = self._anchors[event.anchor]
        if made is None:
            raise self._fail(event, f"the alias *{event.anchor} stands inside its own anchor.")
        self._count(event, made[1])
        if depth + made[2] - 1 > MAX_DEPTH:
            raise self._fail(event, f"nested more than {MAX_DEPTH} levels deep through aliases.")
        return made

    def _sequence(self, event: Any, depth: int) -> tuple[TreeNode, int, int]:
        node, size, height = SequenceNode(_mark(event)), 1, 1
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            item, item_size, item_height = self._node(event, depth + 1)
            node.items.append(item)
            size, height = size + item_size, max(height, item_height + 1)
        return node, size, height

    def _mapping(self, event: Any, depth: int) -> tuple[TreeNode, int, int]:
        node, size, height = MappingNode(_mark(event)), 1, 1
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key = self._key(event, node, depth)
            item, item_size, item_height = self._node(next(self._events), depth + 1)
            node.items[key] = item
            size, height = size + item_size + 1, max(height, item_height + 1)
        return node, size, height

    def _key(self, event: Any, node: MappingNode, depth: int) -> Any:
        key_node, _, _ = self._node(event, depth + 1)
        if not isinstance(key_node, ScalarNode):
            raise self._fail(event, "a list or mapping as a key; keys are names or numbers.")
        key, mark = key_node.value, _mark(event)
        if key == "<<" and getattr(event, "style", None) is None:
            raise self._fail(event, "a merge key (`<<`), which YAML 1.2 does not have; write the keys out.")
        if key in node.key_marks:
            first = node.key_marks[key]
            raise self._fail(
                event,
                f"the key {key!r} stands twice in one mapping: line {first.line} and line {mark.line}; keep one.",
            )
        node.key_marks[key] = mark
        return key

    def _scalar(self, event: Any) -> ScalarNode:
        mark = _mark(event)
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            raise self._fail(event, "half of a surrogate pair (\\ud800 to \\udfff), which is no character.")
        if event.style is not None:  # quoted, literal or folded: always a string
            return ScalarNode(mark, event.value)
        if len(event.value) > MAX_DIGITS and _INTEGER.fullmatch(event.value):
            raise self._fail(event, f"a number of more than {MAX_DIGITS} digits; quote it if it is text.")
        value = resolve_scalar(event.value)
        if isinstance(value, float) and math.isinf(value) and "inf" not in event.value.lower():
            raise self._fail(event, f"{event.value[:60]} is too large for a float; write .inf for infinity.")
        return ScalarNode(mark, value)

    def _count(self, event: Any, number: int) -> None:
        self._num_nodes += number
        if self._num_nodes > MAX_NODES:
            raise self._fail(
                event,
                f"more than {MAX_NODES:,} values (aliases counted each time they are used); "
                "use a generator (range, linspace, logspace) for long lists.",
            )

    def _fail(self, event: Any, message: str) -> SpecError:
        mark = _mark(event)
        return SpecError(f"{self._name}:{mark.line}:{mark.column}: {message}")


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def read_events(text: str, name: str) -> Iterator[Any]:
    """Yield ruamel.yaml's events of a text without carriage returns; its errors become ours."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(f"{name}:{place}: not YAML: {' '.join(told.split())}.{_remedy(told)}") from None
    except (YAMLError, ValueError) as error:
        raise SpecError(f"{name}:1:1: not YAML: {' '.join(str(error).split())[:200]}.") from None


def _remedy(told: str) -> str:
    if "mapping values are not allowed" in told:
        return " Quote a text that holds `: `, and indent keys of one mapping alike."
    if "cannot start any token" in told:
        return " Quote a text that begins with @, ` or %."
    return " Check the indentation and the quotes and brackets before this place."


# --- the core schema of YAML 1.2 (section 10.3.2) ----------------------------------------------------------

_INTEGER = re.compile(r"[-+]?[0-9]+")
_TYPES: tuple[tuple[re.Pattern[str], Callable[[str], bool | int | float | None]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (_INTEGER, int),
    (re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), lambda text: float(text.replace(".", "", 1))),
)


def resolve_scalar(text: str) -> bool | int | float | str | None:
    """Give a plain scalar its type: ``no`` and ``12:30`` are strings, ``1e-3`` is a float."""
    for pattern, convert in _TYPES:
        if pattern.fullmatch(text):
            return convert(text)
    return text
