"""How parameters are written into a ``vtkMRMLScriptedModuleNode``: the names and texts that Slicer uses."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Iterable, Iterator, MutableSequence
from enum import Enum
from typing import Annotated, Any

import slicer

from .parameter_rules import Rule, check

Node = slicer.vtkMRMLScriptedModuleNode


class Codec:
    """Writes and reads one value under a name; this one is for texts."""

    kinds: tuple[type, ...] = (str,)
    none_allowed = False

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)

    def default(self) -> Any:
        """The value of a parameter that names no default."""
        return ""

    def accept(self, value: Any) -> None:
        """Raise where ``value`` is of another type or breaks a rule."""
        if value is None and not self.none_allowed:
            raise ValueError("None is no value of this parameter")
        if value is not None and not isinstance(value, self.kinds):
            raise TypeError(f"{value!r} is of type {type(value).__name__}, not {self.kinds}")
        check(self.rules, value)

    def has(self, node: Node, name: str) -> bool:
        """Whether the node holds a value of that name."""
        return bool(node.HasParameter(name))

    def write(self, node: Node, name: str, value: Any) -> None:
        """Store ``value``."""
        self.accept(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Node, name: str) -> Any:
        """The stored value."""
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Node, name: str) -> None:
        """Forget the value."""
        node.UnsetParameter(name)

    def to_text(self, value: Any) -> str:
        """The text that is stored."""
        return str(value)

    def from_text(self, text: str) -> Any:
        """The value of a stored text."""
        return text


class BoolCodec(Codec):
    """``True`` or ``False``."""

    kinds = (bool,)

    def default(self) -> bool:
        return False

    def from_text(self, text: str) -> bool:
        return text == "True"


class NumberCodec(Codec):
    """Integers, or real numbers to which integers may be assigned."""

    def __init__(self, kind: type, rules: Iterable[Rule] = ()) -> None:
        super().__init__(rules)
        self.kinds = (int, float) if kind is float else (int,)
        self.from_text = kind

    def default(self) -> int:
        return 0


class PathCodec(Codec):
    """Paths of ``pathlib``."""

    kinds = (pathlib.PurePath,)

    def default(self) -> pathlib.Path:
        return pathlib.Path()

    def from_text(self, text: str) -> pathlib.Path:
        return pathlib.Path(text)


class EnumCodec(Codec):
    """Members of an enumeration, stored by name."""

    def __init__(self, kind: type[Enum], rules: Iterable[Rule] = ()) -> None:
        super().__init__(rules)
        self.kinds = (kind,)

    def default(self) -> Enum:
        return next(iter(self.kinds[0]))

    def to_text(self, value: Enum) -> str:
        return value.name

    def from_text(self, text: str) -> Enum:
        if text not in self.kinds[0].__members__:
            raise ValueError(f"{text!r} is no member of {self.kinds[0].__name__}")
        return self.kinds[0][text]


class NodeCodec(Codec):
    """Nodes of the scene, kept as node references so that they survive save and load."""

    none_allowed = True

    def __init__(self, kind: type, rules: Iterable[Rule] = ()) -> None:
        super().__init__(rules)
        self.kinds = (kind,)

    def default(self) -> None:
        return None

    def write(self, node: Node, name: str, value: Any) -> None:
        self.accept(value)
        # None is a value, too: the empty text says that the parameter is there.
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Node, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Node, name: str) -> None:
        super().remove(node, name)
        node.RemoveNodeReferenceIDs(name)


class ListCodec(Codec):
    """Lists: one parameter for the length and one for each item."""

    kinds = (list, tuple, MutableSequence)

    def __init__(self, item: Codec, rules: Iterable[Rule] = ()) -> None:
        super().__init__(rules)
        self._item = item

    def default(self) -> list[Any]:
        return []

    def has(self, node: Node, name: str) -> bool:
        return bool(node.HasParameter(f"{name}_len"))

    def _length(self, node: Node, name: str) -> int:
        return int(node.GetParameter(f"{name}_len")) if self.has(node, name) else 0

    def write(self, node: Node, name: str, value: Any) -> None:
        self.accept(value)
        items = list(value)
        for item in items:
            self._item.accept(item)
        with slicer.util.NodeModify(node):
            before = self._length(node, name)
            for index, item in enumerate(items):
                self._item.write(node, f"{name}_{index}", item)
            node.SetParameter(f"{name}_len", str(len(items)))
            for index in range(len(items), before):
                self._item.remove(node, f"{name}_{index}")

    def read(self, node: Node, name: str) -> StoredList:
        items = [self._item.read(node, f"{name}_{index}") for index in range(self._length(node, name))]
        return StoredList(items, lambda changed: self.write(node, name, changed))

    def remove(self, node: Node, name: str) -> None:
        for index in range(self._length(node, name)):
            self._item.remove(node, f"{name}_{index}")
        node.UnsetParameter(f"{name}_len")


class OptionalCodec(Codec):
    """``Optional[T]``: another name for a value than for none, as Slicer's unions have it."""

    none_allowed = True

    def __init__(self, inner: Codec, rules: Iterable[Rule] = ()) -> None:
        super().__init__(rules)
        self._inner = inner
        self.kinds = inner.kinds

    def default(self) -> None:
        return None

    def has(self, node: Node, name: str) -> bool:
        return self._inner.has(node, f"{name}_0") or bool(node.HasParameter(f"{name}_1"))

    def write(self, node: Node, name: str, value: Any) -> None:
        if value is not None:
            self._inner.accept(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            if value is None:
                node.SetParameter(f"{name}_1", "True")
            else:
                self._inner.write(node, f"{name}_0", value)

    def read(self, node: Node, name: str) -> Any:
        return self._inner.read(node, f"{name}_0") if self._inner.has(node, f"{name}_0") else None

    def remove(self, node: Node, name: str) -> None:
        self._inner.remove(node, f"{name}_0")
        node.UnsetParameter(f"{name}_1")


class StoredList(MutableSequence):
    """A list that stores itself whenever it is changed."""

    def __init__(self, items: list[Any], store: typing.Callable[[list[Any]], None]) -> None:
        self._items, self._store = items, store

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._items[index] = value
        self._store(self._items)

    def __delitem__(self, index: Any) -> None:
        del self._items[index]
        self._store(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == (other._items if isinstance(other, StoredList) else other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"StoredList({self._items})"

    def insert(self, index: int, value: Any) -> None:
        """Insert ``value`` before ``index`` and store the list."""
        self._items.insert(index, value)
        self._store(self._items)


def split(annotated: Any) -> tuple[Any, list[Any]]:
    """The type and the annotations of ``Annotated[type, …]``."""
    if typing.get_origin(annotated) is Annotated:
        kind, *annotations = typing.get_args(annotated)
        return kind, annotations
    return annotated, []


def codec_for(annotated: Any) -> Codec:
    """The codec of a type; a type that Slicer or this stand-in cannot store raises."""
    kind, annotations = split(annotated)
    rules = [rule for rule in annotations if isinstance(rule, Rule)]
    simple = {str: Codec, bool: BoolCodec, pathlib.Path: PathCodec}
    if kind in simple:
        return simple[kind](rules)
    if kind in (int, float):
        return NumberCodec(kind, rules)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return EnumCodec(kind, rules)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeCodec(kind, rules)
    if typing.get_origin(kind) is list:
        return ListCodec(codec_for(typing.get_args(kind)[0]), rules)
    # Slicer refuses "X | None", too: only typing.Union is looked for.
    if typing.get_origin(kind) is typing.Union and typing.get_args(kind)[1:] == (type(None),):
        return OptionalCodec(codec_for(typing.get_args(kind)[0]), rules)
    raise TypeError(f"no parameter can be of type {kind}")
