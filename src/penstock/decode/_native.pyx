# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled decoders: the same classes as ``reference``, which says what they mean.

Rows are decoded in C without the interpreter (native/*.h); here its results become items. A decoder belongs to one thread at
a time: a second one that comes while it works gets a RuntimeError.

    buffer.h ─ integers.h floats.h decimal.h moments.h texts.h geometry.h     one value's text to its encoding
             └ layout.h ─ nested.h ─ spread.h                                 a plan's codecs, arrays and maps of them
                        └ block.h ─ fold.h                                    rows in columns, holes filled
                                  └ change.h ─ frames.h ─ stream.h            pgoutput
                                             └ copytext.h                     COPY
"""

from penstock.batch import REASONS, Batch, EncodedColumn, Hole, Rejected, Truncate, Unfit, Value
from penstock.decode import codecs as _codecs
from penstock.decode.binding import key_of
from penstock.decode.pgoutput import parse
from penstock.decode.spread import cut_off, spreading
from penstock.errors import FrameError
from penstock.plan import Shape
from penstock.typemap import Kind

include "native/declarations.pxi"
include "native/batches.pxi"
include "native/stream.pxi"
include "native/copytext.pxi"


cdef int _fill_powers() except -1:
    """5^q, cut off after 128 bits (floats.h)."""
    cdef int q
    for q in range(LEAST_POWER, MOST_POWER + 1):
        power = pow(<object>5, <object>abs(q))
        if q >= 0:
            exponent = power.bit_length() - 128
            bits = power >> exponent if exponent > 0 else power << -exponent
        else:
            exponent = -(power.bit_length() + 127)
            bits = (1 << -exponent) // power
        power_high[q - LEAST_POWER] = bits >> 64
        power_low[q - LEAST_POWER] = bits & 0xFFFFFFFFFFFFFFFF
        power_exponent[q - LEAST_POWER] = exponent
    return 0


texts_start()
if not floats_start():
    raise ImportError("the C library has no C locale")
_fill_powers()


def encode(codec, text):
    """Encode a single value, None for NULL; see ``codecs.encode``."""
    cdef column c
    cdef buffer out
    cdef bytes kept
    cdef int status
    if text is None:
        return _codecs.encode(codec, None)
    kept = text
    c.nullable = c.in_key = c.in_identity = 0
    c.element = NULL
    out.data, out.len, out.cap = NULL, 0, 0
    try:
        _set_column(&c, codec)
        status = encode_value(&c, kept, len(kept), &out)
        if status == NO_MEMORY:
            raise MemoryError
        if status == MALFORMED:
            _codecs.encode(codec, text)  # finds the words
            raise ValueError("the compiled decoder refuses a text that the plain one takes")
        return Value(status != OK and codec.kind in (Kind.DECIMAL, Kind.JSON), out.data[: out.len], status)
    finally:
        column_free(&c)
        buffer_free(&out)
