"""
Types as a Rust programmer would write them, for people.

`u64`, `Option<Pubkey>`, `Vec<Order>`, `[u8; 32]`: what tables and sentences show of a type. Nothing is parsed back from
it; how an IDL spells types is in `idl_types.py`.
"""

from indexer.chain.types import (
    F32,
    F64,
    Alias,
    Array,
    Bool,
    Bytes,
    Const,
    COption,
    Defined,
    Definition,
    Enum,
    Fields,
    Generic,
    Integer,
    Option,
    Pubkey,
    String,
    Tuple,
    Type,
    Variant,
    Vec,
)

_WORDS: dict[type, str] = {F32: "f32", F64: "f64", Bool: "bool", Bytes: "bytes", String: "string", Pubkey: "pubkey"}


def type_text(type_: Type | Const) -> str:
    """Return `type_` in one line: generics in angle brackets, definitions by their name."""
    match type_:
        case Integer():
            return f"{'i' if type_.signed else 'u'}{type_.bits}"
        case Option(inner):
            return f"Option<{type_text(inner)}>"
        case COption(inner):
            return f"COption<{type_text(inner)}>"
        case Vec(element):
            return f"Vec<{type_text(element)}>"
        case Array(element, length):
            return f"[{type_text(element)}; {length.name if isinstance(length, Generic) else length}]"
        case Tuple(elements):
            return f"({', '.join(map(type_text, elements))})"
        case Defined(name, arguments, _):
            return f"{name}<{', '.join(map(type_text, arguments))}>" if arguments else name
        case Generic(name):
            return name
        case Const(value):
            return value
        case _:
            return _WORDS[type(type_)]


def fields_text(fields: Fields) -> str:
    """Return `{name: type, ...}`, `(type, ...)` for a tuple, and nothing for no fields."""
    if isinstance(fields, Tuple):
        return type_text(fields)
    return f"{{{', '.join(f'{field.name}: {type_text(field.type)}' for field in fields)}}}" if fields else ""


def definition_text(definition: Definition) -> str:
    """Return a definition in one line, with everything that decides its layout."""
    parameters = f"<{', '.join(definition.parameters)}>" if definition.parameters else ""
    match definition.body:
        case Alias(target):
            text = f"type{parameters} = {type_text(target)}"
        case Enum(variants):
            text = f"enum{parameters} {{{', '.join(map(_variant_text, variants))}}}"
        case body:
            text = f"struct{parameters} {fields_text(body.fields)}".rstrip()
    if definition.serialization != "borsh":
        text += f" [{definition.serialization}]"
    if definition.repr is not None:
        kind = definition.repr
        words = [kind.kind, *(["packed"] if kind.packed else []), *([f"align({kind.align})"] if kind.align > 1 else [])]
        text += f" [repr({', '.join(words)})]"
    return text


def _variant_text(variant: Variant) -> str:
    text = fields_text(variant.fields)
    return f"{variant.name}{text}" if text.startswith("(") else f"{variant.name} {text}".rstrip()
