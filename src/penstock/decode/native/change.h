/* What an INSERT, UPDATE or DELETE means for the rows of its table: fills from the old tuple, tombstones, names of holes. */
#ifndef PENSTOCK_CHANGE_H
#define PENSTOCK_CHANGE_H

#include "block.h"

/* A relation of the stream, and where its rows go: nowhere while `shape` is NULL. */
typedef struct {
    uint32_t oid;
    uint32_t width; /* columns announced */
    layout *shape;
    int32_t *place; /* the tuple's column for each of the plan's, -1 for none */
    int old_is_full;
    uint64_t since; /* epoch and commit LSN: what is below came with the copy */
} relation;

enum change_status {
    CHANGE_DONE,
    CHANGE_REFUSED, /* see refusal */
    CHANGE_KEYLESS, /* a hole, and no key to fill it by */
    CHANGE_NAMELESS, /* a hole in the identity, in `column` */
};

typedef struct {
    int status;
    refusal refused;
} outcome;

static const outcome done = {CHANGE_DONE, {OK, 0}};

static inline outcome refused(refusal why) {
    outcome out = {CHANGE_REFUSED, why};
    return out;
}

static inline outcome no_memory(void) {
    refusal why = {NO_MEMORY, 0};
    return refused(why);
}

/* Keep the identity's texts, which must all be there. */
static outcome keep_name(block *b, const field *tuple, const int32_t *place, size_t *name) {
    size_t i;
    for (i = 0; i < b->shape->identity_count; i++) {
        uint32_t index = b->shape->identity[i];
        if (placed(tuple, place, index)->kind == FIELD_UNCHANGED) {
            outcome out = {CHANGE_NAMELESS, {OK, index}};
            return out;
        }
    }
    return keep_key(b, tuple, place, name) ? done : no_memory();
}

/* The row appended last has holes from `first` on, or none and is named all the same. `before` is the tuple with its identity before the change, NULL for a new row. */
static outcome name_holes(block *b, size_t first, const field *tuple, const field *before, const int32_t *place, const stamp *s) {
    hole_row row = {b->rows, first / sizeof(hole), (b->holes.len - first) / sizeof(hole), 0, 0, -1, s->xid};
    outcome out;
    if (b->shape->keyless) {
        outcome keyless = {CHANGE_KEYLESS, {OK, 0}};
        return keyless;
    }
    out = keep_name(b, tuple, place, &row.name);
    row.old_name = before == NULL ? NO_NAME : row.name;
    if (out.status == CHANGE_DONE && before != NULL && before != tuple) {
        out = keep_name(b, before, place, &row.old_name);
    }
    if (out.status == CHANGE_DONE && !buffer_append(&b->hole_rows, &row, sizeof row)) {
        return no_memory();
    }
    return out;
}

/* Append a row that replaces no other key. */
static inline outcome append_row(block *b, const field *tuple, const field *before, const int32_t *place, const stamp *s) {
    uint64_t text_bytes = 0;
    size_t first = b->holes.len;
    refusal why = block_append_columns(b, tuple, place, &text_bytes);
    if (__builtin_expect(why.status != OK, 0)) {
        return refused(why);
    }
    if (__builtin_expect(b->holes.len != first || b->shape->named, 0)) {
        outcome out = name_holes(b, first, tuple, before, place, s);
        if (out.status != CHANGE_DONE) {
            block_take_back(b, b->shape->count);
            b->holes.len = first;
            return out;
        }
    }
    return block_finish_row(b, s, text_bytes) ? done : no_memory();
}

/* Several values of a key may be unfit: the first in the identity's order is named, as that is the order of the key. */
static refusal first_refused(block *b, const field *old, const int32_t *place, refusal why) {
    size_t i;
    for (i = 0; i < b->shape->identity_count && why.status < NO_MEMORY; i++) {
        uint32_t index = b->shape->identity[i];
        const field *f = placed(old, place, index);
        refusal found = {OK, index};
        b->scratch.len = 0;
        if (f->kind == FIELD_TEXT) {
            found.status = encode_value(&b->shape->columns[index], f->data, f->len, &b->scratch);
        }
        if (found.status != OK) {
            return found;
        }
    }
    return why;
}

static outcome append_tombstone(block *b, const relation *r, const field *old, int whole, const stamp *s) {
    stamp deleted = *s;
    uint64_t text_bytes;
    refusal why = block_append_tombstone(b, old, r->place, whole, &text_bytes);
    if (why.status != OK) {
        return refused(whole ? why : first_refused(b, old, r->place, why));
    }
    if (b->shape->named) {
        outcome out = name_holes(b, b->holes.len, old, old, r->place, s);
        if (out.status != CHANGE_DONE) {
            block_take_back(b, b->shape->count);
            return out;
        }
    }
    deleted.is_deleted = 1;
    deleted.operation = OPERATION_DELETE;
    return block_finish_row(b, &deleted, text_bytes) ? done : no_memory();
}

/* Whether the old tuple tells every column: its marker alone lies under publish_via_partition_root. */
static inline int old_is_whole(const relation *r, int marked_full) {
    return r->shape->keyless || (marked_full && r->old_is_full);
}

/* Which columns of those to compare differ from the row appended last: 1 any, 2 one of the identity; *why where it cannot be told. */
static int compare_old(block *b, const relation *r, const field *old, int whole, refusal *why) {
    size_t i;
    int differs = 0;
    for (i = 0; i < b->shape->compared_count; i++) {
        uint32_t index = b->shape->compared[i];
        if (!whole && !b->shape->columns[index].in_identity) {
            continue;
        }
        why->column = index;
        if (block_differs(b, index, placed(old, r->place, index), &why->status)) {
            differs |= b->shape->columns[index].in_identity ? 3 : 1;
        }
        if (why->status != OK) {
            return 0;
        }
    }
    return differs;
}

/* An UPDATE that came with an old tuple. `tuple` is changed: what it leaves out is filled from the old one. */
static outcome update_with_old(block *b, const relation *r, field *tuple, const field *old, int marked_full, const stamp *s) {
    int whole = old_is_whole(r, marked_full), differs;
    uint64_t filled = 0, text_bytes = 0;
    uint32_t i, count = (uint32_t)b->shape->count;
    size_t first = b->holes.len;
    refusal why;
    outcome out;
    for (i = 0; i < count; i++) {
        if ((whole || b->shape->columns[i].in_identity) && r->place[i] >= 0 && tuple[r->place[i]].kind == FIELD_UNCHANGED) {
            tuple[r->place[i]] = old[r->place[i]];
            filled++;
        }
    }
    why = block_append_columns(b, tuple, r->place, &text_bytes);
    if (why.status != OK) {
        return refused(why);
    }
    differs = b->shape->keyless ? 1 : compare_old(b, r, old, whole, &why); /* without a key: always both rows */
    if (why.status != OK || differs) { /* the tombstone comes first */
        block_take_back(b, count);
        b->holes.len = first;
    }
    if (why.status != OK) {
        return refused(why);
    }
    if (differs) {
        out = append_tombstone(b, r, old, whole, s);
        if (out.status == CHANGE_DONE) {
            out = append_row(b, tuple, differs & 2 ? old : tuple, r->place, s);
        }
    } else if ((b->holes.len != first || b->shape->named) && (out = name_holes(b, first, tuple, tuple, r->place, s)).status != CHANGE_DONE) {
        block_take_back(b, count);
        b->holes.len = first;
    } else {
        out = block_finish_row(b, s, text_bytes) ? done : no_memory();
    }
    if (out.status == CHANGE_DONE && whole) {
        b->from_old += filled;
    }
    return out;
}

#endif
