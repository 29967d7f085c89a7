/* A plan made ready: which codec writes which column, which columns are compared and which are the identity. It does not change. */
#ifndef PENSTOCK_LAYOUT_H
#define PENSTOCK_LAYOUT_H

#include "buffer.h"
#include "decimal.h"
#include "floats.h"
#include "geometry.h"
#include "integers.h"
#include "moments.h"
#include "texts.h"

/* The numbers of typemap.Kind. */
enum kind {
    KIND_INT16 = 1,
    KIND_INT32 = 2,
    KIND_INT64 = 3,
    KIND_UINT32 = 4,
    KIND_FLOAT32 = 5,
    KIND_FLOAT64 = 6,
    KIND_BOOL = 7,
    KIND_DECIMAL = 8,
    KIND_STRING = 9,
    KIND_BYTEA = 10,
    KIND_UUID = 11,
    KIND_DATE32 = 12,
    KIND_DATETIME64 = 13,
    KIND_TIME64 = 14,
    KIND_HEX = 15,
    KIND_BASE64 = 16,
    KIND_JSON = 17,
    KIND_GEOMETRY = 18,
    KIND_ARRAY = 19,
    KIND_MAP = 20,
    KIND_VECTOR = 21,
};

typedef struct column {
    int kind;
    int width; /* bytes a value, 0 where it varies */
    int precision;
    int scale;
    int64_t minimum;
    int64_t maximum;
    uint8_t nullable;
    uint8_t in_key;
    uint8_t in_identity;
    uint8_t null_is_unfit;
    uint8_t element_nullable; /* from here on: of an array */
    uint8_t delimiter;
    int dimensions;
    struct column *element;
} column;

typedef struct {
    size_t count;
    column *columns;
    size_t compared_count;
    uint32_t *compared;  /* of an UPDATE: one of them changed makes two rows */
    size_t identity_count;
    uint32_t *identity;
    int keyless;
    int history;
    int event_log;
    int named; /* every row, not only those with holes */
    int fail_on_unfit;
    size_t slot;  /* of the table's pending rows in the stream */
    void *spare;  /* a block to use again */
    void *owner;  /* the Python object that holds this */
} layout;

static void column_free(column *c) {
    if (c->element != NULL) {
        column_free(c->element);
        free(c->element);
        c->element = NULL;
    }
}

static void layout_free(layout *l) {
    size_t i;
    for (i = 0; l->columns != NULL && i < l->count; i++) {
        column_free(&l->columns[i]);
    }
    free(l->columns);
    free(l->compared);
    free(l->identity);
    memset(l, 0, sizeof *l);
}

static int layout_start(layout *l, size_t count, size_t compared, size_t identity) {
    memset(l, 0, sizeof *l);
    l->columns = calloc(count + 1, sizeof *l->columns);
    l->compared = calloc(compared + 1, sizeof *l->compared);
    l->identity = calloc(identity + 1, sizeof *l->identity);
    if (!l->columns || !l->compared || !l->identity) {
        layout_free(l);
        return 0;
    }
    l->count = count;
    l->compared_count = compared;
    l->identity_count = identity;
    return 1;
}

/* In nested.h. */
static int encode_array(const column *c, const uint8_t *s, size_t n, buffer *out);
static int encode_map(const uint8_t *s, size_t n, buffer *out);
static int encode_vector(const uint8_t *s, size_t n, buffer *out);

/* Append one value's encoding, for an unfit one that of the value nearest to it; see enum status. */
static inline int encode_value(const column *c, const uint8_t *s, size_t n, buffer *out) {
    switch (c->kind) {
    case KIND_INT16:
        return encode_int16(s, n, out);
    case KIND_INT32:
        return encode_int32(s, n, out);
    case KIND_INT64:
        return encode_int64(s, n, out);
    case KIND_UINT32:
        return encode_uint32(s, n, out);
    case KIND_FLOAT32:
        return encode_float32(s, n, c->in_key, out);
    case KIND_FLOAT64:
        return encode_float64(s, n, c->in_key, out);
    case KIND_BOOL:
        return encode_bool(s, n, out);
    case KIND_DECIMAL:
        return encode_decimal(s, n, c->precision, c->scale, c->width, out);
    case KIND_STRING:
        return encode_string(s, n, out);
    case KIND_BYTEA:
        return encode_bytea(s, n, out);
    case KIND_UUID:
        return encode_uuid(s, n, out);
    case KIND_DATE32:
        return encode_date32(s, n, c->minimum, c->maximum, out);
    case KIND_DATETIME64:
        return encode_datetime64(s, n, c->minimum, c->maximum, out);
    case KIND_TIME64:
        return encode_time64(s, n, out);
    case KIND_HEX:
        return encode_hex(s, n, out);
    case KIND_BASE64:
        return encode_base64(s, n, out);
    case KIND_JSON:
        return encode_json(s, n, out);
    case KIND_GEOMETRY:
        return encode_geometry(s, n, out);
    case KIND_ARRAY:
        return encode_array(c, s, n, out);
    case KIND_MAP:
        return encode_map(s, n, out);
    case KIND_VECTOR:
        return encode_vector(s, n, out);
    default:
        return MALFORMED;
    }
}

/* Dates have a bound to stand in for what does not fit; a numeric becomes NULL where it can, and so does JSON. */
static inline int unfit_is_null(const column *c) {
    return c->nullable && (c->kind == KIND_DECIMAL || c->kind == KIND_JSON);
}

/* Bytes of the type's zero, which stands for NULL and in a hole: all of them 0. */
static inline size_t zero_width(const column *c) {
    return c->width ? (size_t)c->width : 1;
}

#endif
