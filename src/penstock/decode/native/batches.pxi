# From a plan to its layout, and from a block of C buffers to a Batch.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef class _Layout:
    """Owns the layout of one plan."""

    cdef layout shape
    cdef object plan

    def __cinit__(self, plan):
        if not layout_start(&self.shape, len(plan.columns), len(plan.compared), len(plan.identity)):
            raise MemoryError
        self.plan = plan
        self.shape.owner = <void *>self
        self.shape.keyless = plan.keyless
        self.shape.history = plan.shape is Shape.HISTORY
        self.shape.event_log = plan.event_log
        self.shape.named = bool(plan.moving)
        self.shape.fail_on_unfit = plan.fail_on_unfit
        for index, each in enumerate(plan.columns):
            _set_column(&self.shape.columns[index], each.codec)
            self.shape.columns[index].nullable = each.nullable
            self.shape.columns[index].null_is_unfit = each.null_is_unfit
            self.shape.columns[index].in_key = index in plan.key
            self.shape.columns[index].in_identity = index in plan.identity
        for place, index in enumerate(plan.compared):
            self.shape.compared[place] = index
        for place, index in enumerate(plan.identity):
            self.shape.identity[place] = index

    def __dealloc__(self):
        block_free(<block *>self.shape.spare)
        layout_free(&self.shape)


cdef int _set_column(column *c, codec) except -1:
    c.kind, c.width, c.precision, c.scale = codec.kind, codec.width, codec.precision, codec.scale
    c.minimum, c.maximum = codec.minimum, codec.maximum
    if codec.kind is not Kind(codec.kind) or c.width != _WIDTHS.get(codec.kind, c.width):
        raise ValueError(f"no codec writes {codec}")
    if codec.kind is Kind.DECIMAL and not (0 <= c.scale <= c.precision <= 76 and c.width == _decimal_width(c.precision)):
        raise ValueError(f"no codec writes {codec}")
    if codec.kind is Kind.ARRAY:
        _set_element(c, codec)
    return 0


cdef int _set_element(column *c, codec) except -1:
    if not 1 <= codec.dimensions <= MOST_LEVELS:
        raise ValueError(f"no codec writes {codec}")
    c.element = <column *>calloc(1, sizeof(column))
    if c.element == NULL:
        raise MemoryError
    c.dimensions, c.delimiter, c.element_nullable = codec.dimensions, ord(codec.delimiter), codec.element_nullable
    c.element.nullable = codec.element_nullable
    _set_column(c.element, codec.element)
    return 0


cdef class _Spread:
    """Makes Native columns of the cells of one column, without the interpreter."""

    cdef _Layout layout
    cdef size_t index

    def __init__(self, _Layout layout, size_t index):
        self.layout, self.index = layout, index

    def __call__(self, bytes values):
        cdef const uint8_t *start = values
        cdef size_t length = len(values)
        cdef buffer out
        cdef int status
        out.data, out.len, out.cap = NULL, 0, 0
        with nogil:
            status = spread_cells(&self.layout.shape.columns[self.index], start, length, &out)
        try:
            if status == MALFORMED:
                raise cut_off()
            if status != OK:
                raise MemoryError
            return PyBytes_FromStringAndSize(<char *>out.data, out.len) if out.len else b""
        finally:
            buffer_free(&out)


_WIDTHS = {
    Kind.INT16: 2, Kind.INT32: 4, Kind.INT64: 8, Kind.UINT32: 4, Kind.FLOAT32: 4, Kind.FLOAT64: 8, Kind.BOOL: 1,
    Kind.STRING: 0, Kind.BYTEA: 0, Kind.UUID: 16, Kind.DATE32: 4, Kind.DATETIME64: 8, Kind.TIME64: 8,
    Kind.HEX: 0, Kind.BASE64: 0, Kind.JSON: 0, Kind.GEOMETRY: 0, Kind.ARRAY: 0, Kind.MAP: 0, Kind.VECTOR: 0,
}


cdef int _decimal_width(int precision):
    return 4 if precision <= 9 else 8 if precision <= 18 else 16 if precision <= 38 else 32


cdef struct piece:
    char *to
    const uint8_t *source
    size_t len


cdef object _batch(block *b):
    """The block's rows as a Batch. Folding and copying need no interpreter."""
    cdef layout *shape = b.shape
    cdef object plan = (<_Layout>shape.owner).plan
    cdef size_t i, count = 0
    cdef int good
    cdef piece *pieces
    with nogil:
        good = block_fold(b)
    if not good:
        raise MemoryError
    pieces = <piece *>calloc(2 * shape.count + 4, sizeof(piece))
    if pieces == NULL:
        raise MemoryError
    try:
        columns = []
        for i in range(shape.count):
            nulls = _reserved(&b.columns[i].nulls, pieces, &count) if shape.columns[i].nullable else None
            spread = _Spread(<_Layout>shape.owner, i) if plan.columns[i].codec.nested else spreading(plan.columns[i])
            columns.append(EncodedColumn(nulls, _reserved(&b.columns[i].values, pieces, &count), spread))
        columns.append(EncodedColumn(None, _reserved(&b.versions, pieces, &count)))
        columns.append(EncodedColumn(None, _reserved(&b.deleted, pieces, &count)))
        if shape.history:
            columns.append(EncodedColumn(None, _reserved(&b.operations, pieces, &count)))
            columns.append(EncodedColumn(None, _reserved(&b.committed, pieces, &count)))
        with nogil:
            for i in range(count):
                memcpy(pieces[i].to, pieces[i].source, pieces[i].len)
    finally:
        free(pieces)
    return Batch(
        plan=plan,
        rows=b.rows,
        floor=b.floor,
        committed_at=b.committed_at,
        columns=columns,
        holes=_holes(b) if b.hole_rows.len else (),
        folded=b.folded,
        from_old=b.from_old,
        unfit=_unfit(b, plan),
        text_bytes=b.text_bytes,
    )


cdef bytes _reserved(buffer *source, piece *pieces, size_t *count):
    """Room for a copy of the buffer, which is filled when all of a batch's are there."""
    cdef bytes room = PyBytes_FromStringAndSize(NULL, source.len)
    if source.len:
        pieces[count[0]] = piece(PyBytes_AS_STRING(room), source.data, source.len)
        count[0] += 1
    return room


cdef tuple _unfit(block *b, plan):
    cdef size_t i
    cdef int reason
    found = []
    for i in range(b.shape.count):
        for reason in range(REASON_COUNT):
            if b.columns[i].unfit[reason]:
                key = _name(b, b.columns[i].example[reason])
                found.append(Unfit(plan.columns[i].name, REASONS[reason + 1], b.columns[i].unfit[reason], key))
    return tuple(found)


cdef extern from "Python.h":
    int PyObject_GenericSetAttr(object, object, object) except -1


cdef tuple _holes(block *b):
    """What folding left: in row order, each with its columns in the plan's order.

    A table whose updates never touch a long text makes a hole of every row, so this sets the fields of a frozen Hole
    itself, as its own ``__init__`` would, and shares what is equal.
    """
    cdef hole_row *rows = <hole_row *>b.hole_rows.data
    cdef hole *holes = <hole *>b.holes.data
    cdef size_t i, j
    cdef list found = [], columns, offsets
    cdef tuple shared = ()
    for i in range(b.hole_rows.len // sizeof(hole_row)):
        columns, offsets = [], []
        for j in range(rows[i].first, rows[i].first + rows[i].count):
            if not holes[j].filled:
                columns.append(holes[j].column)
                offsets.append(holes[j].offset)
        if columns or b.shape.named:
            if columns != list(shared):
                shared = tuple(columns)
            found.append(_hole(b, &rows[i], shared, tuple(offsets)))
    return tuple(found)


cdef object _hole(block *b, hole_row *row, tuple columns, tuple offsets):
    made = Hole.__new__(Hole)
    cdef tuple identity = _name(b, row.name)
    PyObject_GenericSetAttr(made, "row", row.row)
    PyObject_GenericSetAttr(made, "columns", columns)
    PyObject_GenericSetAttr(made, "offsets", offsets)
    PyObject_GenericSetAttr(made, "identity", identity)
    cdef tuple old = () if row.old_name == NO_NAME else identity if row.old_name == row.name else _name(b, row.old_name)
    PyObject_GenericSetAttr(made, "old_identity", old)
    PyObject_GenericSetAttr(made, "version", <object>load_le64(b.versions.data + 16 * row.row + 8) << 64 | load_le64(b.versions.data + 16 * row.row))
    PyObject_GenericSetAttr(made, "xid", row.xid)
    PyObject_GenericSetAttr(made, "after", row.after)
    return made


cdef tuple _name(block *b, size_t at):
    cdef size_t i, length
    texts = []
    for i in range(b.shape.identity_count):
        memcpy(&length, b.names.data + at, sizeof(length))
        at += sizeof(length)
        texts.append(b.names.data[at : at + length])
        at += length
    return tuple(texts)


cdef object _rejected(layout *shape, refusal why, key):
    plan = (<_Layout>shape.owner).plan
    reason = "malformed" if why.status == MALFORMED else REASONS[why.status]
    return Rejected(plan, plan.columns[why.column].name, reason, bool(shape.columns[why.column].in_identity), key)
