"""PostgreSQL's text of one value → the bytes of one value in a ClickHouse Native column. A file a family of types.

The texts are exactly what PostgreSQL prints under the session settings of ``postgres/connection.py``: no blanks, no plus
sign, no underscores. Anything else raises ValueError ("malformed"). A value that is well written but has no place in its
type raises UnfitError, which carries what stands in for it:

* dates and timestamps: the bound of the server's range on that side, whether the column is Nullable or not;
* numerics: NULL in a Nullable column. Elsewhere zero for NaN, the nearest bound for ±Infinity and for too many integer
  digits, and the value with its last digits cut off (towards zero) for too many digits after the point;
* JSON that is no object: NULL in a Nullable column, elsewhere an empty object;
* arrays: empty, when they have other dimensions than declared; else their elements, each by the rule of its type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.batch import Value
from penstock.decode.codecs import geometry, moments, nested, numbers, texts
from penstock.decode.codecs.unfit import UnfitError
from penstock.errors import BadDataError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Encoder = Callable[[bytes], bytes]

__all__ = ["UnfitError", "encode", "encoder_of", "zero_of"]


def zero_of(codec: Codec) -> bytes:
    """The encoding of the type's zero: what stands for NULL, and in a hole."""
    return bytes(codec.width or 1)


def encode(codec: Codec, text: bytes | None) -> Value:
    """Encode a single value, None for NULL.

    An unfit numeric comes back as NULL, with the value that a column without NULL takes as its data. Raises BadDataError for a
    text that PostgreSQL does not print.
    """
    if text is None:
        return Value(null=True, data=zero_of(codec))
    try:
        return Value(null=False, data=encoder_of(codec)(text))
    except UnfitError as error:
        return Value(null=not error.bounded, data=error.nearest, unfit=error.reason)
    except ValueError:
        raise BadDataError(
            f"a text is not a {codec.kind.name.lower()} as PostgreSQL prints it",
            hint="Check DateStyle, IntervalStyle and bytea_output of the source's session.",
        ) from None


def encoder_of(codec: Codec, *, in_key: bool = False) -> Encoder:
    """The function that encodes texts of this type. Floats of a key are made equal where PostgreSQL calls them equal: -0 is 0."""
    match codec.kind:
        case Kind.INT16 | Kind.INT32 | Kind.INT64 | Kind.UINT32:
            return numbers.integer_encoder(codec.width, signed=codec.kind is not Kind.UINT32)
        case Kind.FLOAT32 | Kind.FLOAT64:
            return numbers.float_encoder(codec.kind, in_key=in_key)
        case Kind.DECIMAL:
            return numbers.decimal_encoder(codec)
        case Kind.DATE32 | Kind.DATETIME64:
            return moments.bounded_encoder(codec)
        case Kind.ARRAY:
            return nested.array_encoder(codec, _element(codec))
        case _:
            return _PLAIN[codec.kind]


def _element(codec: Codec) -> nested.Element:
    if codec.element is None:
        raise ValueError("an array's codec has an element")
    return nested.Element(encoder_of(codec.element), zero_of(codec.element), nullable=codec.element_nullable)


_PLAIN: dict[Kind, Encoder] = {
    Kind.BOOL: numbers.boolean,
    Kind.STRING: texts.string,
    Kind.BYTEA: texts.bytea,
    Kind.HEX: texts.hexadecimal,
    Kind.BASE64: texts.base_64,
    Kind.JSON: texts.json,
    Kind.GEOMETRY: geometry.geometry,
    Kind.UUID: texts.uuid,
    Kind.TIME64: moments.time_of_day,
    Kind.MAP: nested.pairs,
    Kind.VECTOR: nested.vector,
}
