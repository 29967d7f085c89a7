/* Cells to Native columns, see spread.py. Cells also come back from ClickHouse: every length is looked at before it is trusted. */
#ifndef PENSTOCK_SPREAD_H
#define PENSTOCK_SPREAD_H

#include "nested.h"

/* What is left of the cells. */
typedef struct {
    const uint8_t *p, *end;
} remaining;

/* A node takes one value after the other. */
typedef struct node {
    int kind; /* of the values: KIND_ARRAY, KIND_MAP, KIND_VECTOR, 0 for what stays as it is */
    size_t width;
    int levels;
    int nullable;
    uint64_t totals[MOST_LEVELS];
    buffer offsets[MOST_LEVELS];
    buffer nulls;
    buffer values; /* of a map: the keys */
    buffer others; /* of a map: the values */
    struct node *inner;
} node;

static void node_free(node *n) {
    int i;
    if (n == NULL) {
        return;
    }
    for (i = 0; i < MOST_LEVELS; i++) {
        buffer_free(&n->offsets[i]);
    }
    buffer_free(&n->nulls);
    buffer_free(&n->values);
    buffer_free(&n->others);
    node_free(n->inner);
    free(n);
}

static node *node_new(const column *c) {
    node *n = calloc(1, sizeof *n);
    if (n == NULL) {
        return NULL;
    }
    n->width = (size_t)c->width;
    n->kind = c->kind == KIND_ARRAY || c->kind == KIND_MAP || c->kind == KIND_VECTOR ? c->kind : 0;
    n->levels = c->kind == KIND_ARRAY ? c->dimensions : n->kind ? 1 : 0;
    n->nullable = c->kind == KIND_ARRAY ? c->element_nullable : c->kind == KIND_MAP;
    if (c->kind == KIND_ARRAY && (n->inner = node_new(c->element)) == NULL) {
        node_free(n);
        return NULL;
    }
    return n;
}

static inline int take_bytes(buffer *to, uint64_t count, remaining *c) {
    if (count > (uint64_t)(c->end - c->p)) {
        return MALFORMED;
    }
    c->p += count;
    return buffer_append(to, c->p - count, (size_t)count) ? OK : NO_MEMORY;
}

static inline int take_varint(uint64_t *out, remaining *c) {
    int shift;
    for (*out = 0, shift = 0; c->p < c->end && shift < 64; shift += 7) {
        uint8_t byte = *c->p++;
        *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return OK;
        }
    }
    return MALFORMED;
}

/* A value of a fixed width, or behind its length, which stays with it. */
static int take_plain(buffer *to, size_t width, remaining *c) {
    const uint8_t *start = c->p;
    uint64_t len;
    int status;
    if (width) {
        return take_bytes(to, width, c);
    }
    status = take_varint(&len, c);
    if (status != OK || len > (uint64_t)(c->end - c->p)) {
        return MALFORMED;
    }
    len += (uint64_t)(c->p - start);
    c->p = start;
    return take_bytes(to, len, c);
}

static int node_end(node *n, int level, uint64_t count) {
    uint8_t total[8];
    n->totals[level] += count;
    store64(total, n->totals[level]);
    return buffer_append(&n->offsets[level], total, 8) ? OK : NO_MEMORY;
}

static inline uint32_t load_le32(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static int node_take(node *n, remaining *c);

static int node_item(node *n, remaining *c) {
    int status = n->kind == KIND_MAP ? take_plain(&n->values, 0, c) : OK;
    if (status == OK && n->nullable) {
        status = take_bytes(&n->nulls, 1, c);
    }
    if (status != OK) {
        return status;
    }
    return n->kind == KIND_MAP ? take_plain(&n->others, 0, c) : node_take(n->inner, c);
}

static int node_list(node *n, remaining *c, int level) {
    uint32_t i, count;
    int status = OK;
    if (c->end - c->p < 4) {
        return MALFORMED;
    }
    count = load_le32(c->p);
    c->p += 4;
    if (n->kind == KIND_VECTOR) {
        status = take_bytes(&n->values, (uint64_t)count * 4, c);
    } else {
        for (i = 0; i < count && status == OK; i++) {
            status = level + 1 < n->levels ? node_list(n, c, level + 1) : node_item(n, c);
        }
    }
    return status == OK ? node_end(n, level, count) : status;
}

/* A value that holds others must be used up exactly. */
static int node_take(node *n, remaining *c) {
    remaining one = {c->p, c->end};
    uint64_t len;
    int status;
    if (!n->kind) {
        return take_plain(&n->values, n->width, c);
    }
    if (take_varint(&len, &one) != OK || len > (uint64_t)(one.end - one.p)) {
        return MALFORMED;
    }
    one.end = c->p = one.p + len;
    status = len ? node_list(n, &one, 0) : node_end(n, 0, 0);
    return status == OK && one.p != one.end ? MALFORMED : status;
}

static int node_pieces(const node *n, buffer *out) {
    int i;
    for (i = 0; i < n->levels; i++) {
        if (!buffer_append(out, n->offsets[i].data, n->offsets[i].len)) {
            return 0;
        }
    }
    if (n->kind == KIND_MAP) {
        return buffer_append(out, n->values.data, n->values.len) && buffer_append(out, n->nulls.data, n->nulls.len) &&
               buffer_append(out, n->others.data, n->others.len);
    }
    return buffer_append(out, n->nulls.data, n->nulls.len) && buffer_append(out, n->values.data, n->values.len) &&
           (n->inner == NULL || node_pieces(n->inner, out));
}

/* The Native column of cells, in `out`: OK, MALFORMED or NO_MEMORY. */
static int spread_cells(const column *c, const uint8_t *start, size_t len, buffer *out) {
    remaining left = {start, start + len};
    node *n = node_new(c);
    int status = n != NULL ? OK : NO_MEMORY;
    while (status == OK && left.p < left.end) {
        status = node_take(n, &left);
    }
    if (status == OK && !node_pieces(n, out)) {
        status = NO_MEMORY;
    }
    node_free(n);
    return status;
}

#endif
