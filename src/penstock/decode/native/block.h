/* Rows of one plan in columns: the pending rows of a table, and how a row of texts gets into them, wholly or not at all. */
#ifndef PENSTOCK_BLOCK_H
#define PENSTOCK_BLOCK_H

#include "nested.h"

enum field_kind {
    FIELD_NULL = 0,
    FIELD_TEXT = 1,
    FIELD_UNCHANGED = 2,
    FIELD_UNESCAPED = 3, /* of COPY: data is not set yet */
};

typedef struct {
    const uint8_t *data;
    size_t len;
    int kind;
} field;

static const field null_field = {NULL, 0, FIELD_NULL};

/* The values of plan.Operation. */
enum operation { OPERATION_COPY = 0, OPERATION_INSERT = 1, OPERATION_UPDATE = 2, OPERATION_DELETE = 3, OPERATION_TRUNCATE = 4 };

typedef struct {
    buffer nulls; /* one byte a row, only where the column is nullable */
    buffer values;
    size_t mark; /* where the last row's value begins, of columns whose width varies */
    uint64_t unfit[REASON_COUNT];
    size_t example[REASON_COUNT]; /* where the key of the first row counted there stands in the block's `names` */
} cells;

/* An unchanged value that its row does not know. */
typedef struct {
    uint32_t column;
    int filled;    /* by folding */
    size_t source; /* the row it was filled from */
    size_t offset; /* of the placeholder, known after folding */
} hole;

#define NO_NAME SIZE_MAX

/* A row with holes, and the names by which it is found: they stand in the block's `names`. */
typedef struct {
    size_t row;
    size_t first, count; /* in the block's `holes` */
    size_t name, old_name; /* NO_NAME for the old one of a new row */
    int64_t after; /* the row with the same hole before, -1 for none */
    uint32_t xid;
} hole_row;

typedef struct {
    uint32_t column;
    uint32_t reason;
} unfit_cell;

typedef struct {
    uint64_t version_high; /* epoch and commit LSN */
    uint64_t ordinal;
    int64_t committed_at;
    uint32_t xid;
    uint8_t operation;
    uint8_t is_deleted;
} stamp;

typedef struct {
    layout *shape;
    size_t count; /* of columns: the shape may be gone when this is freed */
    cells *columns;
    buffer versions, deleted, operations, committed;
    buffer holes, hole_rows, names; /* hole, hole_row, and texts each behind its size_t length */
    buffer unfit_cells;             /* of the row being appended */
    buffer scratch;
    size_t rows;
    uint64_t text_bytes;
    uint64_t floor;
    int64_t committed_at; /* of the first row */
    uint64_t folded;
    uint64_t from_old;
} block;

/* Why a row was not appended. */
typedef struct {
    int status; /* enum status; OK where it was */
    uint32_t column;
} refusal;

static inline const field *placed(const field *tuple, const int32_t *place, uint32_t index) {
    return place[index] < 0 ? &null_field : &tuple[place[index]];
}

static void block_free(block *b) {
    size_t i;
    if (b == NULL) {
        return;
    }
    for (i = 0; b->columns != NULL && i < b->count; i++) {
        buffer_free(&b->columns[i].nulls);
        buffer_free(&b->columns[i].values);
    }
    free(b->columns);
    buffer_free(&b->versions);
    buffer_free(&b->deleted);
    buffer_free(&b->operations);
    buffer_free(&b->committed);
    buffer_free(&b->holes);
    buffer_free(&b->hole_rows);
    buffer_free(&b->names);
    buffer_free(&b->unfit_cells);
    buffer_free(&b->scratch);
    free(b);
}

static block *block_new(layout *shape) {
    block *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return NULL;
    }
    b->shape = shape;
    b->count = shape->count;
    b->columns = calloc(shape->count + 1, sizeof *b->columns);
    if (b->columns == NULL) {
        free(b);
        return NULL;
    }
    return b;
}

/* Empty it for the next rows; large buffers are given back. */
static void block_reset(block *b) {
    size_t i;
    for (i = 0; i < b->shape->count; i++) {
        buffer_reset(&b->columns[i].nulls);
        buffer_reset(&b->columns[i].values);
        memset(b->columns[i].unfit, 0, sizeof b->columns[i].unfit);
    }
    buffer_reset(&b->versions);
    buffer_reset(&b->deleted);
    buffer_reset(&b->operations);
    buffer_reset(&b->committed);
    buffer_reset(&b->holes);
    buffer_reset(&b->hole_rows);
    buffer_reset(&b->names);
    buffer_reset(&b->unfit_cells);
    buffer_reset(&b->scratch);
    b->rows = 0;
    b->text_bytes = b->floor = b->folded = b->from_old = 0;
    b->committed_at = 0;
}

static size_t block_capacity(const block *b) {
    size_t i, sum = b->versions.cap + b->deleted.cap + b->operations.cap + b->committed.cap;
    for (i = 0; i < b->shape->count; i++) {
        sum += b->columns[i].nulls.cap + b->columns[i].values.cap;
    }
    return sum + b->holes.cap + b->hole_rows.cap + b->names.cap + b->scratch.cap;
}

/* Take back the columns before `end` of the row that was being appended. */
static void block_take_back(block *b, size_t end) {
    size_t i;
    for (i = 0; i < end; i++) {
        const column *c = &b->shape->columns[i];
        cells *v = &b->columns[i];
        v->values.len = c->width ? b->rows * (size_t)c->width : v->mark;
        if (c->nullable) {
            v->nulls.len = b->rows;
        }
    }
    b->unfit_cells.len = 0;
}

static inline int append_zero(const column *c, cells *v, int is_null) {
    v->mark = v->values.len;
    return buffer_append_zeros(&v->values, zero_width(c)) && (!c->nullable || buffer_append_byte(&v->nulls, (uint8_t)is_null));
}

/* An unfit value was written: what that means for its row. */
static int judge_unfit(block *b, uint32_t index, int reason) {
    const column *c = &b->shape->columns[index];
    cells *v = &b->columns[index];
    unfit_cell found = {index, (uint32_t)reason};
    if (c->in_identity || b->shape->fail_on_unfit) {
        return reason;
    }
    if (unfit_is_null(c)) {
        v->values.len = v->mark;
        if (!buffer_append_zeros(&v->values, zero_width(c))) {
            return NO_MEMORY;
        }
        v->nulls.data[v->nulls.len - 1] = 1;
    }
    return buffer_append(&b->unfit_cells, &found, sizeof found) ? OK : NO_MEMORY;
}

static inline int append_text(block *b, uint32_t index, const field *f) {
    const column *c = &b->shape->columns[index];
    cells *v = &b->columns[index];
    int status;
    v->mark = v->values.len;
    status = encode_value(c, f->data, f->len, &v->values);
    if (__builtin_expect(status >= MALFORMED, 0)) {
        return status;
    }
    if (c->nullable && !buffer_append_byte(&v->nulls, 0)) {
        return NO_MEMORY;
    }
    return __builtin_expect(status == OK, 1) ? OK : judge_unfit(b, index, status);
}

/* NULL, which is counted where ClickHouse has none. */
static inline int append_null(block *b, uint32_t index) {
    const column *c = &b->shape->columns[index];
    if (!append_zero(c, &b->columns[index], 1)) {
        return NO_MEMORY;
    }
    return __builtin_expect(!c->null_is_unfit, 1) ? OK : judge_unfit(b, index, UNFIT_NULL);
}

static int append_hole(block *b, uint32_t index) {
    hole unknown = {index, 0, 0, 0};
    return append_zero(&b->shape->columns[index], &b->columns[index], 0) && buffer_append(&b->holes, &unknown, sizeof unknown);
}

/* Write the metadata of a row whose columns are all there, and count it. */
static inline int block_finish_row(block *b, const stamp *s, uint64_t text_bytes) {
    uint8_t *version;
    int64_t committed;
    size_t i;
    if (!buffer_reserve(&b->versions, 16) || !buffer_reserve(&b->deleted, 1) ||
        (b->shape->history && (!buffer_reserve(&b->operations, 1) || !buffer_reserve(&b->committed, 8)))) {
        return 0;
    }
    version = b->versions.data + b->versions.len;
    store64(version, s->ordinal);
    store64(version + 8, s->version_high);
    b->versions.len += 16;
    b->deleted.data[b->deleted.len++] = s->is_deleted;
    if (b->shape->history) {
        b->operations.data[b->operations.len++] = s->operation;
        committed = s->committed_at;
        store64(b->committed.data + b->committed.len, (uint64_t)committed);
        b->committed.len += 8;
    }
    for (i = 0; __builtin_expect(i < b->unfit_cells.len, 0); i += sizeof(unfit_cell)) {
        unfit_cell found;
        memcpy(&found, b->unfit_cells.data + i, sizeof found);
        b->columns[found.column].unfit[found.reason - 1]++;
    }
    b->unfit_cells.len = 0;
    if (b->rows++ == 0) {
        b->committed_at = s->committed_at;
    }
    b->text_bytes += text_bytes;
    return 1;
}

/* Keep the identity's texts; where they stand goes to `name`. */
static int keep_key(block *b, const field *tuple, const int32_t *place, size_t *name) {
    size_t i;
    *name = b->names.len;
    for (i = 0; i < b->shape->identity_count; i++) {
        const field *f = placed(tuple, place, b->shape->identity[i]);
        size_t len = f->kind == FIELD_TEXT ? f->len : 0;
        if (!buffer_append(&b->names, &len, sizeof len) || !buffer_append(&b->names, f->data, len)) {
            return 0;
        }
    }
    return 1;
}

/* The row being appended has unfit values: where they are the first of their column and reason, its key is an example. */
static int keep_examples(block *b, const field *tuple, const int32_t *place) {
    size_t i, name = 0;
    int kept = 0;
    for (i = 0; i < b->unfit_cells.len; i += sizeof(unfit_cell)) {
        unfit_cell found;
        memcpy(&found, b->unfit_cells.data + i, sizeof found);
        if (b->columns[found.column].unfit[found.reason - 1] == 0) {
            if (!kept && !keep_key(b, tuple, place, &name)) {
                return 0;
            }
            kept = 1;
            b->columns[found.column].example[found.reason - 1] = name;
        }
    }
    return 1;
}

/* Append the columns of a row: `place[i]` is the tuple's field for column i, -1 for none (NULL). `text_bytes` counts the texts.
 * The row is not counted before block_finish_row. What was appended for a refused row is taken back. */
static inline refusal block_append_columns(block *b, const field *tuple, const int32_t *place, uint64_t *text_bytes) {
    size_t holes = b->holes.len;
    uint32_t i, count = (uint32_t)b->shape->count;
    uint64_t bytes = 0;
    refusal out = {OK, 0};
    for (i = 0; i < count; i++) {
        const field *f = place[i] < 0 ? &null_field : &tuple[place[i]];
        if (__builtin_expect(f->kind == FIELD_TEXT, 1)) {
            bytes += f->len;
            out.status = append_text(b, i, f);
        } else if (f->kind == FIELD_NULL) {
            out.status = append_null(b, i);
        } else {
            out.status = append_hole(b, i) ? OK : NO_MEMORY;
        }
        if (__builtin_expect(out.status != OK, 0)) {
            out.column = i;
            block_take_back(b, i + 1);
            b->holes.len = holes;
            return out;
        }
    }
    if (__builtin_expect(b->unfit_cells.len != 0, 0) && !keep_examples(b, tuple, place)) {
        block_take_back(b, count);
        b->holes.len = holes;
        out.status = NO_MEMORY;
    }
    *text_bytes = bytes;
    return out;
}

/* The same for a tombstone: the identity columns of the old tuple or, where it is `whole`, all of them. */
static refusal block_append_tombstone(block *b, const field *old, const int32_t *place, int whole, uint64_t *text_bytes) {
    uint32_t i, count = (uint32_t)b->shape->count;
    refusal out = {OK, 0};
    *text_bytes = 0;
    for (i = 0; i < count; i++) {
        const column *c = &b->shape->columns[i];
        const field *f = place[i] < 0 || !(whole || c->in_identity) ? &null_field : &old[place[i]];
        if (f->kind == FIELD_TEXT) {
            *text_bytes += f->len;
            out.status = append_text(b, i, f);
        } else {
            out.status = append_zero(c, &b->columns[i], 1) ? OK : NO_MEMORY;
        }
        if (out.status != OK) {
            out.column = i;
            block_take_back(b, i + 1);
            return out;
        }
    }
    if (b->unfit_cells.len && !keep_examples(b, old, place)) {
        block_take_back(b, count);
        out.status = NO_MEMORY;
    }
    return out;
}

/* Whether an old value differs, as encoded, from the row that was appended last and is not counted yet. 1, 0, or in `status`
 * why it cannot be told: an unfit identity, a malformed text. */
static int block_differs(block *b, uint32_t index, const field *old, int *status) {
    const column *c = &b->shape->columns[index];
    const cells *v = &b->columns[index];
    size_t start = c->width ? b->rows * (size_t)c->width : v->mark, len = v->values.len - start;
    int is_null = c->nullable ? v->nulls.data[b->rows] : 0, old_is_null = 0;
    b->scratch.len = 0;
    *status = OK;
    if (old->kind != FIELD_TEXT) {
        old_is_null = c->nullable;
        *status = buffer_append_zeros(&b->scratch, zero_width(c)) ? OK : NO_MEMORY;
    } else {
        *status = encode_value(c, old->data, old->len, &b->scratch);
        if (*status != OK && *status < MALFORMED && !c->in_identity) {
            old_is_null = unfit_is_null(c);
            *status = OK;
        }
    }
    if (*status != OK) {
        return 0;
    }
    if (is_null || old_is_null) {
        return is_null != old_is_null;
    }
    return b->scratch.len != len || memcmp(b->scratch.data, v->values.data + start, len) != 0;
}

#endif
