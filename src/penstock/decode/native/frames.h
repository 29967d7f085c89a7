/* The stream of one connection: pgoutput's messages in the walsender's frames (PostgreSQL manual, Streaming Replication
 * Protocol, Logical Replication Message Formats). Every length is checked before it is trusted.
 *
 * What is rare is only recognised here and told in Python: Relation messages, and the words of an error.
 */
#ifndef PENSTOCK_FRAMES_H
#define PENSTOCK_FRAMES_H

#include "change.h"

#define POSTGRES_EPOCH INT64_C(946684800000000) /* 2000-01-01 in microseconds since 1970 */
#define LSN_BITS 56
#define RECORD_BITS 8 /* of an ordinal, below the LSN */
#define HEADER_BYTES 25
#define KEEPALIVE_BYTES 18

enum step {
    STEP_IDLE,  /* the frames are used up */
    STEP_EVENT, /* something is ready */
    STEP_NO_MEMORY,
    STEP_CUT,    /* the last frame is cut off */
    STEP_LAYOUT, /* `frame` is not what the protocol says */
    STEP_BEGIN_WITHIN,
    STEP_COMMIT_WITHOUT,
    STEP_OUTSIDE,     /* message `culprit` */
    STEP_UNANNOUNCED, /* relation `oid` */
    STEP_WIDTH,       /* relation `oid`: `found` columns instead of `expected` */
    STEP_KEYLESS,     /* a row of `shape` */
    STEP_NAMELESS,    /* its column `found` */
};

enum event_kind { EVENT_NONE, EVENT_RELATION, EVENT_TRUNCATE, EVENT_BATCH, EVENT_REJECTED };

typedef struct {
    int kind;
    const uint8_t *frame; /* EVENT_RELATION, EVENT_TRUNCATE, EVENT_REJECTED: its payload */
    size_t len;
    uint64_t version_high, ordinal; /* EVENT_TRUNCATE */
    block *full;                    /* EVENT_BATCH */
    layout *shape;                  /* EVENT_REJECTED */
    refusal why;
} event;

typedef struct {
    int64_t oid;
    block *rows; /* NULL, or without rows: none are pending */
    block *next; /* of another plan, while its first rows are appended */
} table;

#define MOST_EPOCHS 255 /* 8 bits of a version, less the first */

typedef struct {
    size_t max_rows;
    uint64_t max_bytes;
    uint64_t starts[MOST_EPOCHS]; /* commit LSNs at which the epochs after the first begin */
    size_t epochs;                /* how many of them */
    uint64_t position, received, changes, transactions;
    int64_t committed_at;
    int reply_requested;
    int within; /* a transaction */
    stamp now;  /* of the transaction's current message */
    const uint8_t *at, *end;
    buffer ready; /* event */
    size_t ready_at;
    relation **relations; /* hash table by oid */
    size_t relation_count, relation_places;
    relation *last;
    table *tables;
    size_t table_count, table_places;
    size_t spare_bytes; /* in blocks that wait to be used again */
    field *old_tuple, *new_tuple;
    size_t tuple_places;
    /* for the words of an error */
    const uint8_t *frame;
    size_t frame_len;
    uint8_t culprit;
    uint32_t oid;
    size_t found, expected;
    layout *shape;
} stream;

static void relation_free(relation *r) {
    if (r != NULL) {
        free(r->place);
        free(r);
    }
}

static void stream_free(stream *s) {
    size_t i;
    for (i = 0; i < s->relation_places; i++) {
        relation_free(s->relations[i]);
    }
    for (i = 0; i < s->table_count; i++) {
        block_free(s->tables[i].rows);
        block_free(s->tables[i].next);
    }
    for (i = s->ready_at; i < s->ready.len / sizeof(event); i++) {
        event *e = (event *)s->ready.data + i;
        block_free(e->kind == EVENT_BATCH ? e->full : NULL);
    }
    buffer_free(&s->ready);
    free(s->relations);
    free(s->tables);
    free(s->old_tuple);
    free(s->new_tuple);
    memset(s, 0, sizeof *s);
}

static relation **relation_place(relation **places, size_t count, uint32_t oid) {
    size_t at = ((uint64_t)oid * 0x9E3779B97F4A7C15u >> 32) & (count - 1);
    while (places[at] && places[at]->oid != oid) {
        at = (at + 1) & (count - 1);
    }
    return &places[at];
}

static inline relation *find_relation(stream *s, uint32_t oid) {
    if (s->last == NULL || s->last->oid != oid) {
        s->last = s->relation_places ? *relation_place(s->relations, s->relation_places, oid) : NULL;
    }
    return s->last;
}

/* A Relation message came: its rows go nowhere until it is bound. */
static int announce(stream *s, uint32_t oid, uint32_t width) {
    relation **place, *r;
    size_t i;
    if (2 * (s->relation_count + 1) > s->relation_places) {
        size_t count = s->relation_places ? s->relation_places * 2 : 64;
        relation **grown = calloc(count, sizeof *grown);
        if (grown == NULL) {
            return 0;
        }
        for (i = 0; i < s->relation_places; i++) {
            if (s->relations[i]) {
                *relation_place(grown, count, s->relations[i]->oid) = s->relations[i];
            }
        }
        free(s->relations);
        s->relations = grown;
        s->relation_places = count;
    }
    place = relation_place(s->relations, s->relation_places, oid);
    if (*place == NULL) {
        r = calloc(1, sizeof *r);
        if (r == NULL) {
            return 0;
        }
        r->oid = oid;
        *place = r;
        s->relation_count++;
        s->last = NULL;
    }
    (*place)->width = width;
    (*place)->shape = NULL;
    return 1;
}

static void unbind_shape(stream *s, const layout *shape) {
    size_t i;
    for (i = 0; i < s->relation_places; i++) {
        if (s->relations[i] && s->relations[i]->shape == shape) {
            s->relations[i]->shape = NULL;
        }
    }
}

static int push(stream *s, const event *e) {
    return buffer_append(&s->ready, e, sizeof *e);
}

static event *next_event(stream *s) {
    if (s->ready_at == s->ready.len / sizeof(event)) {
        s->ready_at = s->ready.len = 0;
        return NULL;
    }
    return (event *)s->ready.data + s->ready_at++;
}

/* The slot of a table's pending rows; NO_SLOT when there is no memory. */
#define NO_SLOT SIZE_MAX

static size_t table_slot(stream *s, int64_t oid) {
    size_t i;
    for (i = 0; i < s->table_count; i++) {
        if (s->tables[i].oid == oid) {
            return i;
        }
    }
    if (s->table_count == s->table_places) {
        size_t places = s->table_places ? s->table_places * 2 : 16;
        table *grown = realloc(s->tables, places * sizeof *grown);
        if (grown == NULL) {
            return NO_SLOT;
        }
        s->tables = grown;
        s->table_places = places;
    }
    memset(&s->tables[i], 0, sizeof s->tables[i]);
    s->tables[i].oid = oid;
    s->table_count++;
    return i;
}

static int hand_out(stream *s, table *t) {
    event e = {EVENT_BATCH, NULL, 0, 0, 0, t->rows, NULL, {OK, 0}};
    if (!push(s, &e)) {
        return 0;
    }
    t->rows = NULL;
    return 1;
}

/* Bytes still to be read of a message. */
typedef struct {
    const uint8_t *p, *end;
} reader;

static inline int has(const reader *r, size_t bytes) {
    return (size_t)(r->end - r->p) >= bytes;
}

static inline int skip_text(reader *r) {
    const uint8_t *zero = r->p < r->end ? memchr(r->p, 0, (size_t)(r->end - r->p)) : NULL;
    if (zero == NULL) {
        return 0;
    }
    r->p = zero + 1;
    return 1;
}

static int grow_tuples(stream *s, size_t count) {
    field *grown = realloc(s->old_tuple, count * sizeof *grown);
    if (grown == NULL) {
        return 0;
    }
    s->old_tuple = grown;
    grown = realloc(s->new_tuple, count * sizeof *grown);
    if (grown == NULL) {
        return 0;
    }
    s->new_tuple = grown;
    s->tuple_places = count;
    return 1;
}

/* TupleData. The fields point into the frame. */
static inline int read_tuple(reader *r, int old, field *out, size_t *count) {
    const uint8_t *p = r->p + 2, *end = r->end;
    size_t i, n = load_be16(r->p);
    *count = n;
    for (i = 0; i < n; i++, out++) {
        if (p == end) {
            return 0;
        }
        switch (*p++) {
        case 't': {
            size_t len;
            if (end - p < 4) {
                return 0;
            }
            len = load_be32(p);
            p += 4;
            if ((size_t)(end - p) < len) {
                return 0;
            }
            out->data = p;
            out->len = len;
            out->kind = FIELD_TEXT;
            p += len;
            break;
        }
        case 'n':
            *out = null_field;
            break;
        case 'u':
            if (old) {
                return 0;
            }
            out->data = NULL;
            out->len = 0;
            out->kind = FIELD_UNCHANGED;
            break;
        default:
            return 0;
        }
    }
    r->p = p;
    return 1;
}

static inline int tuple_fits(stream *s, const reader *r, int *status) {
    if (!has(r, 2)) {
        *status = STEP_LAYOUT;
        return 0;
    }
    if (load_be16(r->p) > s->tuple_places && !grow_tuples(s, (size_t)load_be16(r->p) + 16)) {
        *status = STEP_NO_MEMORY;
        return 0;
    }
    return 1;
}

/* What a row message says. */
typedef struct {
    uint32_t oid;
    int marked_full, has_old, has_new;
    size_t old_count, new_count;
} change;

/* Insert, Update, Delete. */
static inline int read_change(stream *s, reader *r, uint8_t kind, change *out) {
    int status = STEP_LAYOUT;
    uint8_t marker;
    if (!has(r, 5)) {
        return STEP_LAYOUT;
    }
    out->oid = load_be32(r->p);
    marker = r->p[4];
    r->p += 5;
    out->has_old = kind != 'I' && (marker == 'K' || marker == 'O');
    out->has_new = kind != 'D';
    out->marked_full = marker == 'O';
    if (out->has_old) {
        if (!tuple_fits(s, r, &status) || !read_tuple(r, 1, s->old_tuple, &out->old_count)) {
            return status;
        }
        if (out->has_new) {
            if (!has(r, 1)) {
                return STEP_LAYOUT;
            }
            marker = *r->p++;
        }
    }
    if (out->has_new) {
        if (marker != 'N' || !tuple_fits(s, r, &status) || !read_tuple(r, 0, s->new_tuple, &out->new_count)) {
            return status;
        }
    } else if (!out->has_old) {
        return STEP_LAYOUT;
    }
    return r->p == r->end ? STEP_IDLE : STEP_LAYOUT;
}

/* An empty block, if possible one that was used before. */
static block *take_block(stream *s, layout *shape) {
    block *b = shape->spare;
    if (b == NULL) {
        return block_new(shape);
    }
    shape->spare = NULL;
    s->spare_bytes -= block_capacity(b);
    return b;
}

#define SPARE_BYTES ((size_t)32 << 20)

/* Keep a block whose rows were handed out for the next rows, unless much memory waits like this already. */
static void give_back(stream *s, block *b) {
    size_t bytes;
    block_reset(b);
    bytes = block_capacity(b);
    if (b->shape->spare != NULL || bytes > SPARE_BYTES - s->spare_bytes) {
        block_free(b);
        return;
    }
    s->spare_bytes += bytes;
    b->shape->spare = b;
}

static void drop_spare(stream *s, layout *shape) {
    if (shape->spare != NULL) {
        s->spare_bytes -= block_capacity(shape->spare);
        block_free(shape->spare);
        shape->spare = NULL;
    }
}

/* Whether anything here still points to a shape, its spare block aside. */
static int shape_used(const stream *s, const layout *shape) {
    const table *t = &s->tables[shape->slot];
    size_t i;
    if ((t->rows != NULL && t->rows->shape == shape) || (t->next != NULL && t->next->shape == shape)) {
        return 1;
    }
    for (i = s->ready_at; i < s->ready.len / sizeof(event); i++) {
        const event *e = (const event *)s->ready.data + i;
        if (e->shape == shape || (e->full != NULL && e->full->shape == shape)) {
            return 1;
        }
    }
    for (i = 0; i < s->relation_places; i++) {
        if (s->relations[i] && s->relations[i]->shape == shape) {
            return 1;
        }
    }
    return 0;
}

/* The block for the next rows of a shape. Rows of another plan of the same table stay until a row has been appended. */
static inline block *rows_for(stream *s, layout *shape, table **found) {
    table *t = &s->tables[shape->slot];
    block **b = t->rows != NULL && t->rows->shape != shape && t->rows->rows ? &t->next : &t->rows;
    *found = t;
    if (*b != NULL && (*b)->shape != shape) {
        give_back(s, *b);
        *b = NULL;
    }
    if (*b == NULL) {
        *b = take_block(s, shape);
    }
    if (*b != NULL && (*b)->rows == 0) {
        (*b)->floor = s->position;
    }
    return *b;
}

/* Rows have been appended: hand out what is full, and rows of the table's plan before. */
static inline int rows_appended(stream *s, table *t) {
    if (__builtin_expect(t->next != NULL && t->next->rows != 0, 0)) {
        if (!hand_out(s, t)) {
            return 0;
        }
        t->rows = t->next;
        t->next = NULL;
    }
    return (t->rows->rows < s->max_rows && t->rows->text_bytes < s->max_bytes) || hand_out(s, t);
}

static int reject(stream *s, layout *shape, refusal why) {
    event e = {EVENT_REJECTED, s->frame, s->frame_len, 0, 0, NULL, shape, why};
    unbind_shape(s, shape);
    return push(s, &e) ? STEP_IDLE : STEP_NO_MEMORY;
}

/* A row could not be appended. */
static int stopped(stream *s, layout *shape, outcome out) {
    s->shape = shape;
    s->found = out.refused.column;
    switch (out.status) {
    case CHANGE_KEYLESS:
        return STEP_KEYLESS;
    case CHANGE_NAMELESS:
        return STEP_NAMELESS;
    default:
        return out.refused.status == NO_MEMORY ? STEP_NO_MEMORY : reject(s, shape, out.refused);
    }
}

#endif
