/* Filling unchanged values from earlier rows of the same block.
 *
 * Rows are gone through in order, with a hash table from the identity, as encoded, to its newest row. A row with holes takes what
 * it lacks from the newest row of its key before it; a row that follows its own tombstone had that key before. Nothing
 * is carried over any other tombstone or a TRUNCATE. So each hole is settled by one look at the row before.
 */
#ifndef PENSTOCK_FOLD_H
#define PENSTOCK_FOLD_H

#include "block.h"

#define NO_ROW SIZE_MAX

typedef struct {
    block *b;
    hole *holes;
    hole_row *hole_rows;
    size_t hole_row_count;
    size_t **starts; /* by column: where each row's value begins; only of varying width, and only where asked for */
    size_t *table;   /* row + 1 of the newest row of a key, 0 for a free place */
    size_t mask;
    size_t *hole_row_of; /* by row: index + 1 into hole_rows */
} folding;

static void folding_free(folding *f) {
    size_t i;
    for (i = 0; f->starts != NULL && i < f->b->shape->count; i++) {
        free(f->starts[i]);
    }
    free(f->starts);
    free(f->table);
    free(f->hole_row_of);
}

/* Where each row's value begins, and the end of the last one. */
static size_t *row_starts(const cells *v, size_t rows) {
    size_t *starts = malloc((rows + 1) * sizeof *starts);
    const uint8_t *p = v->values.data;
    size_t i;
    uint64_t len;
    if (starts == NULL) {
        return NULL;
    }
    for (i = 0; i < rows; i++) {
        starts[i] = (size_t)(p - v->values.data);
        p = load_varint(p, &len) + len;
    }
    starts[rows] = (size_t)(p - v->values.data);
    return starts;
}

static int need_starts(folding *f, uint32_t index) {
    if (f->b->shape->columns[index].width == 0 && f->starts[index] == NULL) {
        f->starts[index] = row_starts(&f->b->columns[index], f->b->rows);
        return f->starts[index] != NULL;
    }
    return 1;
}

static inline const uint8_t *cell_at(const folding *f, uint32_t index, size_t row, size_t *len) {
    const column *c = &f->b->shape->columns[index];
    const uint8_t *values = f->b->columns[index].values.data;
    if (c->width) {
        *len = (size_t)c->width;
        return values + row * (size_t)c->width;
    }
    *len = f->starts[index][row + 1] - f->starts[index][row];
    return values + f->starts[index][row];
}

static inline uint8_t null_at(const folding *f, uint32_t index, size_t row) {
    return f->b->shape->columns[index].nullable ? f->b->columns[index].nulls.data[row] : 0;
}

static uint64_t identity_hash(const folding *f, size_t row) {
    uint64_t h = 0x9E3779B97F4A7C15u, word;
    size_t i, len;
    for (i = 0; i < f->b->shape->identity_count; i++) {
        uint32_t index = f->b->shape->identity[i];
        const uint8_t *p = cell_at(f, index, row, &len);
        h ^= null_at(f, index, row) + len;
        for (; len >= 8; p += 8, len -= 8) {
            memcpy(&word, p, 8);
            h = (h ^ word) * 0xFF51AFD7ED558CCDu;
            h ^= h >> 32;
        }
        word = 0;
        memcpy(&word, p, len);
        h = (h ^ word) * 0xC4CEB9FE1A85EC53u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

static int identity_equal(const folding *f, size_t a, size_t b) {
    size_t i, a_len, b_len;
    for (i = 0; i < f->b->shape->identity_count; i++) {
        uint32_t index = f->b->shape->identity[i];
        const uint8_t *a_cell = cell_at(f, index, a, &a_len), *b_cell = cell_at(f, index, b, &b_len);
        if (null_at(f, index, a) != null_at(f, index, b) || a_len != b_len || memcmp(a_cell, b_cell, a_len) != 0) {
            return 0;
        }
    }
    return 1;
}

/* The place of a row's key in the table: the newest row of the key stands there, or nothing. */
static size_t *find_key(folding *f, size_t row) {
    size_t at = (size_t)identity_hash(f, row) & f->mask;
    while (f->table[at] && !identity_equal(f, f->table[at] - 1, row)) {
        at = (at + 1) & f->mask;
    }
    return &f->table[at];
}

static int folding_start(folding *f, block *b) {
    size_t i, places = 16;
    memset(f, 0, sizeof *f);
    f->b = b;
    f->holes = (hole *)b->holes.data;
    f->hole_rows = (hole_row *)b->hole_rows.data;
    f->hole_row_count = b->hole_rows.len / sizeof(hole_row);
    while (places < b->rows * 2) {
        places *= 2;
    }
    f->mask = places - 1;
    f->table = calloc(places, sizeof *f->table);
    f->hole_row_of = calloc(b->rows + 1, sizeof *f->hole_row_of);
    f->starts = calloc(b->shape->count + 1, sizeof *f->starts);
    if (!f->table || !f->hole_row_of || !f->starts) {
        return 0;
    }
    for (i = 0; i < f->hole_row_count; i++) {
        f->hole_row_of[f->hole_rows[i].row] = i + 1;
    }
    for (i = 0; i < b->shape->identity_count; i++) {
        if (!need_starts(f, b->shape->identity[i])) {
            return 0;
        }
    }
    return 1;
}

/* Settle the holes of one row by the row before it: what that one knows, or got from further up. Both lists ascend by column. */
static void settle(folding *f, hole_row *row, size_t before) {
    size_t i, j = 0, unknown = 0, index = f->hole_row_of[before];
    const hole_row *previous = index ? &f->hole_rows[index - 1] : NULL;
    for (i = 0; i < row->count; i++) {
        hole *h = &f->holes[row->first + i];
        const hole *theirs = NULL;
        while (previous != NULL && j < previous->count && f->holes[previous->first + j].column < h->column) {
            j++;
        }
        if (previous != NULL && j < previous->count && f->holes[previous->first + j].column == h->column) {
            theirs = &f->holes[previous->first + j];
        }
        h->filled = theirs == NULL || theirs->filled;
        h->source = theirs == NULL ? before : theirs->source;
        unknown += !h->filled;
    }
    f->b->folded += row->count - unknown;
    row->after = unknown ? (int64_t)before : -1;
}

static inline int same_version(const block *b, size_t row, size_t other) {
    return memcmp(b->versions.data + 16 * row, b->versions.data + 16 * other, 16) == 0;
}

static void settle_all(folding *f) {
    block *b = f->b;
    size_t row, tombstone = NO_ROW, moved = NO_ROW;
    for (row = 0; row < b->rows; row++) {
        size_t *newest, before;
        if (b->shape->history && b->operations.data[row] == OPERATION_TRUNCATE) {
            memset(f->table, 0, (f->mask + 1) * sizeof *f->table);
            continue;
        }
        newest = find_key(f, row);
        before = *newest && !b->deleted.data[*newest - 1] ? *newest - 1 : NO_ROW;
        *newest = row + 1;
        if (b->deleted.data[row]) {
            tombstone = row;
            moved = before;
            continue;
        }
        if (tombstone != NO_ROW && same_version(b, tombstone, row)) {
            before = moved;
        }
        if (before != NO_ROW && f->hole_row_of[row]) {
            settle(f, &f->hole_rows[f->hole_row_of[row] - 1], before);
        }
    }
}

static void fill_fixed(folding *f, uint32_t index, const hole_row *row, const hole *h) {
    size_t width = (size_t)f->b->shape->columns[index].width;
    cells *v = &f->b->columns[index];
    memcpy(v->values.data + row->row * width, v->values.data + h->source * width, width);
    if (f->b->shape->columns[index].nullable) {
        v->nulls.data[row->row] = v->nulls.data[h->source];
    }
}

/* A hole of a column, in the order of the rows. */
typedef struct {
    size_t hole, hole_row;
} hole_place;

/* Write a column of varying width anew with its holes filled, and tell the others where their placeholder stands. */
static int fill_varying(folding *f, uint32_t index, const hole_place *places, size_t count) {
    cells *v = &f->b->columns[index];
    const size_t *starts;
    buffer out = {NULL, 0, 0};
    size_t i, len, extra = 0, kept = 0;
    if (!need_starts(f, index)) {
        return 0;
    }
    starts = f->starts[index];
    for (i = 0; i < count; i++) {
        hole *h = &f->holes[places[i].hole];
        h->offset = starts[f->hole_rows[places[i].hole_row].row];
        if (h->filled) {
            len = starts[h->source + 1] - starts[h->source];
            if (extra > (size_t)PTRDIFF_MAX - len) {
                return 0;
            }
            extra += len;
        }
    }
    if (extra == 0) { /* every filled value is longer than nothing */
        return 1;
    }
    if (extra > (size_t)PTRDIFF_MAX - v->values.len || !buffer_reserve(&out, v->values.len + extra)) {
        return 0;
    }
    for (i = 0; i < count; i++) {
        hole *h = &f->holes[places[i].hole];
        size_t row = f->hole_rows[places[i].hole_row].row;
        memcpy(out.data + out.len, v->values.data + kept, starts[row] - kept);
        out.len += starts[row] - kept;
        kept = starts[row];
        h->offset = out.len;
        if (h->filled) {
            len = starts[h->source + 1] - starts[h->source];
            memcpy(out.data + out.len, v->values.data + starts[h->source], len);
            out.len += len;
            kept = starts[row + 1];
            if (f->b->shape->columns[index].nullable) {
                v->nulls.data[row] = v->nulls.data[h->source];
            }
        }
    }
    memcpy(out.data + out.len, v->values.data + kept, v->values.len - kept);
    out.len += v->values.len - kept;
    buffer_free(&v->values);
    v->values = out;
    return 1;
}

/* Write what was settled, column by column: a counting sort of the holes by column keeps the order of the rows. */
static int fill_all(folding *f) {
    size_t i, j, total = f->b->holes.len / sizeof(hole), count = f->b->shape->count;
    size_t *ends = calloc(count + 2, sizeof *ends);
    hole_place *places = malloc((total + 1) * sizeof *places);
    int good = ends != NULL && places != NULL;
    for (i = 0; good && i < total; i++) {
        ends[f->holes[i].column + 1]++;
    }
    for (i = 1; good && i <= count; i++) {
        ends[i] += ends[i - 1];
    }
    for (i = 0; good && i < f->hole_row_count; i++) {
        const hole_row *row = &f->hole_rows[i];
        for (j = row->first; j < row->first + row->count; j++) {
            hole_place place = {j, i};
            places[ends[f->holes[j].column]++] = place; /* afterwards ends[c] is the end of column c */
        }
    }
    for (i = 0; good && i < count; i++) {
        size_t start = i ? ends[i - 1] : 0;
        if (start == ends[i]) {
            continue;
        }
        if (f->b->shape->columns[i].width == 0) {
            good = fill_varying(f, (uint32_t)i, places + start, ends[i] - start);
            continue;
        }
        for (j = start; j < ends[i]; j++) {
            hole *h = &f->holes[places[j].hole];
            const hole_row *row = &f->hole_rows[places[j].hole_row];
            h->offset = row->row * (size_t)f->b->shape->columns[i].width;
            if (h->filled) {
                fill_fixed(f, (uint32_t)i, row, h);
            }
        }
    }
    free(ends);
    free(places);
    return good;
}

/* Fill what can be filled of a block with holes; 0 when there is no memory. */
static int block_fold(block *b) {
    folding f;
    int good = 1;
    if (b->hole_rows.len) {
        good = folding_start(&f, b);
        if (good) {
            settle_all(&f);
            good = fill_all(&f);
        }
        folding_free(&f);
    }
    return good;
}

#endif
