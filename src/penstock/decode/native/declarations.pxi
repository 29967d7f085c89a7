# What the compiled decoder uses of the headers beside this file.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "native/buffer.h" nogil:
    ctypedef struct buffer:
        uint8_t *data
        size_t len
        size_t cap
    enum:
        OK
        REASON_COUNT
        MALFORMED
        NO_MEMORY
    void buffer_free(buffer *b)
    uint64_t load_le64(const uint8_t *p)

cdef extern from "native/texts.h" nogil:
    void texts_start()

cdef extern from "native/floats.h" nogil:
    int LEAST_POWER
    int MOST_POWER
    uint64_t power_high[]
    uint64_t power_low[]
    short power_exponent[]
    int floats_start()

cdef extern from "native/layout.h" nogil:
    ctypedef struct column:
        int kind
        int width
        int precision
        int scale
        int64_t minimum
        int64_t maximum
        uint8_t nullable
        uint8_t in_key
        uint8_t in_identity
        uint8_t null_is_unfit
        uint8_t element_nullable
        uint8_t delimiter
        int dimensions
        column *element
    ctypedef struct layout:
        size_t count
        column *columns
        uint32_t *compared
        size_t identity_count
        uint32_t *identity
        int keyless
        int history
        int event_log
        int named
        int fail_on_unfit
        size_t slot
        void *spare
        void *owner
    int layout_start(layout *l, size_t count, size_t compared, size_t identity)
    void layout_free(layout *l)
    void column_free(column *c)
    int encode_value(const column *c, const uint8_t *s, size_t n, buffer *out)

cdef extern from "native/spread.h" nogil:
    int MOST_LEVELS
    int spread_cells(const column *c, const uint8_t *cells, size_t len, buffer *out)

cdef extern from "native/block.h" nogil:
    const size_t NO_NAME
    ctypedef struct field:
        pass
    ctypedef struct cells:
        buffer nulls
        buffer values
        uint64_t unfit[8]
        size_t example[8]
    ctypedef struct hole:
        uint32_t column
        int filled
        size_t offset
    ctypedef struct hole_row:
        size_t row
        size_t first
        size_t count
        size_t name
        size_t old_name
        int64_t after
        uint32_t xid
    ctypedef struct block:
        layout *shape
        cells *columns
        buffer versions
        buffer deleted
        buffer operations
        buffer committed
        buffer holes
        buffer hole_rows
        buffer names
        size_t rows
        uint64_t text_bytes
        uint64_t floor
        int64_t committed_at
        uint64_t folded
        uint64_t from_old
    ctypedef struct refusal:
        int status
        uint32_t column
    block *block_new(layout *shape)
    void block_free(block *b)
    void block_reset(block *b)

cdef extern from "native/fold.h" nogil:
    int block_fold(block *b)

cdef extern from "native/copytext.h" nogil:
    enum:
        COPY_DONE
        COPY_NO_MEMORY
        COPY_WIDTH
        COPY_BACKSLASH
        COPY_REFUSED
    ctypedef struct copy_state:
        layout *shape
        block *pending
        field *fields
        int32_t *place
        buffer split
        uint64_t ordinal
        size_t width
        refusal why
        size_t refused_key
    int copy_start(copy_state *c, layout *shape, uint64_t first_ordinal)
    void copy_free(copy_state *c)
    int copy_receive(copy_state *c, const uint8_t *chunk, size_t len)

cdef extern from "native/stream.h" nogil:
    enum:
        STEP_IDLE
        STEP_EVENT
        STEP_NO_MEMORY
        STEP_CUT
        STEP_LAYOUT
        STEP_BEGIN_WITHIN
        STEP_COMMIT_WITHOUT
        STEP_OUTSIDE
        STEP_UNANNOUNCED
        STEP_WIDTH
        STEP_KEYLESS
        STEP_NAMELESS
        EVENT_RELATION
        EVENT_TRUNCATE
        EVENT_BATCH
        EVENT_REJECTED
        NO_SLOT
    ctypedef struct event:
        int kind
        const uint8_t *frame
        size_t len
        uint64_t version_high
        uint64_t ordinal
        block *full
        layout *shape
        refusal why
    ctypedef struct relation:
        uint32_t width
        layout *shape
        int32_t *place
        int old_is_full
        uint64_t since
    ctypedef struct table:
        int64_t oid
        block *rows
        block *next
    ctypedef struct stamp:
        uint64_t version_high
        uint64_t ordinal
        uint32_t xid
    ctypedef struct stream:
        size_t max_rows
        uint64_t max_bytes
        uint64_t starts[255]
        size_t epochs
        uint64_t position
        uint64_t received
        uint64_t changes
        uint64_t transactions
        int64_t committed_at
        int reply_requested
        stamp now
        const uint8_t *at
        const uint8_t *end
        relation **relations
        size_t relation_places
        table *tables
        size_t table_count
        const uint8_t *frame
        size_t frame_len
        uint8_t culprit
        uint32_t oid
        size_t found
        size_t expected
        layout *shape
    void stream_free(stream *s)
    int stream_step(stream *s)
    event *next_event(stream *s)
    int announce(stream *s, uint32_t oid, uint32_t width)
    relation *find_relation(stream *s, uint32_t oid)
    size_t table_slot(stream *s, int64_t oid)
    void give_back(stream *s, block *b)
    int shape_used(const stream *s, const layout *shape)
    void drop_spare(stream *s, layout *shape)
