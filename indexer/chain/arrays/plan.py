"""
Types compiled, once, into nodes that read them from many payloads.

Follows `layout.py` step by step: sizes, padding and what is refused come from its codecs, and so does the counting of
depth, which is fixed for every place in a type, as what contains itself is not laid out in columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from indexer.chain.arrays.arrow import (
    ArrowArray,
    ArrowType,
    arrow_schema,
    arrow_type,
    enum_type,
    fields_type,
    holds_text,
    is_text,
)
from indexer.chain.arrays.fixed import Block, BlockWriter, members_of
from indexer.chain.arrays.lanes import Batch, Ints, Node
from indexer.chain.arrays.lists import BlockList, NodeList
from indexer.chain.arrays.variable import (
    Blob,
    Choice,
    FixedValue,
    Maybe,
    Record,
    Refused,
    Text,
)
from indexer.chain.layout import Compiler, Mode
from indexer.chain.types import (
    DEPTH_MAX,
    Alias,
    Array,
    Bytes,
    COption,
    Defined,
    Enum,
    Field,
    Option,
    Repr,
    String,
    Struct,
    Tuple,
    Type,
    Vec,
    fields_of,
)
from indexer.chain.value import json_encoder


@dataclass(frozen=True, slots=True)
class Plan:
    """How the payloads of one event, account or instruction become columns, the fields of `struct`."""

    struct: pa.StructType
    node: Node

    def read(self, batch: Batch, at: Ints) -> tuple[list[ArrowArray], Ints]:
        """Return a column for each field, and the positions behind the last; of dead rows, anything."""
        if isinstance(self.node, Record):
            return self.node.read_fields(batch, None, at)
        values, behind = self.node.read(batch, None, at)
        return values.flatten() if isinstance(values, pa.StructArray) else [values], behind


def compile_plan(compiler: Compiler, type_: Defined) -> Plan:
    """
    Return the plan of an event's, account's or instruction's type.

    Args:
        compiler: the one that has compiled the type.
    """
    writer = _Writer(compiler)
    return Plan(pa.struct(list(arrow_schema(type_))), writer.body(type_, "borsh", 0))


class _Writer:
    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler

    def _node(self, type_: Type, mode: Mode, depth: int) -> Node:
        codec = self._compiler.compile(type_, mode)
        if is_text(type_):
            return Text(codec, json_encoder(type_), depth)
        if codec.size is not None and not holds_text(type_):
            return FixedValue(self._block(type_, mode))
        arrow = arrow_type(type_)
        match type_:
            case String() | Bytes():
                return Blob(isinstance(type_, String))
            case Option(inner):
                return Maybe(self._node(inner, mode, depth + 1), arrow)
            case COption(inner):
                gap = -4 % self._compiler.compile(inner, mode).align if mode == "c" else 0
                return Maybe(self._node(inner, mode, depth + 1), arrow, "<u4", 4 + gap, codec.size)
            case Vec(element):
                return self._vec(element, mode, depth, arrow)
            case Array(element, length):
                assert isinstance(length, int), "generics are replaced before a type is compiled"
                one = self._compiler.compile(element, mode)
                return NodeList(self._node(element, mode, depth + 1), one, depth + 1, arrow, length)
            case Tuple():
                return self._record(fields_of(type_), mode, Repr(), depth, arrow)
            case _:
                assert isinstance(type_, Defined), "every other type has a fixed size"
                return self.body(type_, mode, depth)

    def body(self, type_: Defined, mode: Mode, depth: int) -> Node:
        """Return the node of a definition, even of one that contains itself."""
        definition = type_.definition()
        if definition.serialization != "borsh":
            mode = "c"
        if isinstance(definition.body, Alias):
            target = definition.body.target
            # At the root an alias leads to a definition, which may contain itself.
            if depth == 0 and isinstance(target, Defined):
                return self.body(target, mode, depth)
            return self._node(target, mode, depth)
        if self._compiler.compile(type_, mode).size is None:
            if depth > DEPTH_MAX:
                return Refused(arrow_type(type_))
            depth += 1
        match definition.body:
            case Struct(fields):
                return self._record(fields_of(fields), mode, definition.repr or Repr(), depth, fields_type(fields))
            case Enum():
                return self._enum(type_, definition.body, mode, depth)

    def _enum(self, type_: Defined, body: Enum, mode: Mode, depth: int) -> Node:
        if not any(fields_of(v.fields) for v in body.variants):
            return FixedValue(self._block(type_, mode))
        variants = [
            self._record(fields_of(v.fields), mode, Repr(), depth + 1, fields_type(v.fields))
            if fields_of(v.fields)
            else None
            for v in body.variants
        ]
        names = pa.array([v.name for v in body.variants], pa.utf8())
        return Choice(names, tuple(variants), enum_type(body))

    def _vec(self, element: Type, mode: Mode, depth: int, arrow: ArrowType) -> Node:
        codec = self._compiler.compile(element, mode)
        if codec.size is not None and not holds_text(element):
            return BlockList(self._block(element, mode), codec.parts, arrow)
        return NodeList(self._node(element, mode, depth + 1), codec, depth + 1, arrow)

    def _block(self, type_: Type, mode: Mode) -> Block:
        writer = BlockWriter(self._compiler)
        writer.add(type_, mode)
        return writer.block()

    def _record(self, fields: Sequence[Field], mode: Mode, repr_: Repr, depth: int, arrow: ArrowType) -> Record:
        """Return the node of fields in a row; neighbours of fixed size become one block."""
        steps: list[tuple[int, Block | Node]] = []
        run: BlockWriter | None = None
        members, tail = members_of(self._compiler, fields, mode, repr_)
        for field, member in zip(fields, members, strict=True):
            if member.codec.size is not None and not holds_text(field.type):
                run = run or BlockWriter(self._compiler)
                run.add(field.type, mode, member.padding)
                continue
            if run is not None:
                steps.append((0, run.block()))
                run = None
            steps.append((member.padding, self._node(field.type, mode, depth + 1)))
        if run is not None:
            steps.append((0, run.block()))
        return Record(tuple(steps), arrow, tail)
