/* The messages' meaning: transactions, positions, rows into their tables' blocks. */
#ifndef PENSTOCK_STREAM_H
#define PENSTOCK_STREAM_H

#include "frames.h"

/* The place of the current message in its transaction: the LSN of its WAL record. Rows of one record count on. A LSN is a multiple
 * of 8, so 2048 rows of a record have room before the next one. What else is in the stream makes no difference. */
static inline void count_message(stream *s) {
    uint64_t at = load_be64(s->frame + 1) << RECORD_BITS;
    s->now.ordinal = at > s->now.ordinal ? at : s->now.ordinal + 1;
}

static inline int apply_change(stream *s, reader *r, uint8_t kind) {
    change c = {0, 0, 0, 0, 0, 0};
    relation *to;
    layout *shape;
    table *t;
    block *b;
    outcome out;
    int status = read_change(s, r, kind, &c);
    if (status != STEP_IDLE) {
        return status;
    }
    if (!s->within) {
        s->culprit = kind;
        return STEP_OUTSIDE;
    }
    count_message(s);
    s->changes++;
    to = find_relation(s, c.oid);
    s->oid = c.oid;
    if (to == NULL) {
        return STEP_UNANNOUNCED;
    }
    if ((c.has_old && c.old_count != to->width) || (c.has_new && c.new_count != to->width)) {
        s->expected = to->width;
        s->found = c.has_old && c.old_count != to->width ? c.old_count : c.new_count;
        return STEP_WIDTH;
    }
    shape = to->shape;
    if (shape == NULL || s->now.version_high < to->since) {
        return STEP_IDLE;
    }
    b = rows_for(s, shape, &t);
    if (b == NULL) {
        return STEP_NO_MEMORY;
    }
    if (kind == 'D') {
        out = append_tombstone(b, to, s->old_tuple, old_is_whole(to, c.marked_full), &s->now);
    } else {
        s->now.operation = kind == 'I' ? OPERATION_INSERT : OPERATION_UPDATE;
        out = c.has_old ? update_with_old(b, to, s->new_tuple, s->old_tuple, c.marked_full, &s->now)
                        : append_row(b, s->new_tuple, kind == 'I' ? NULL : s->new_tuple, to->place, &s->now);
    }
    if (__builtin_expect(out.status != CHANGE_DONE, 0)) {
        return stopped(s, shape, out);
    }
    return rows_appended(s, t) ? STEP_IDLE : STEP_NO_MEMORY;
}

/* A row of a history that says that its table was emptied. */
static int append_truncate(stream *s, layout *shape) {
    stamp now = s->now;
    table *t;
    block *b = rows_for(s, shape, &t);
    uint32_t i;
    if (b == NULL) {
        return 0;
    }
    for (i = 0; i < shape->count; i++) {
        if (!append_zero(&shape->columns[i], &b->columns[i], 1)) {
            return 0;
        }
    }
    now.operation = OPERATION_TRUNCATE;
    now.is_deleted = 1;
    return block_finish_row(b, &now, 0) && rows_appended(s, t);
}

static int truncated_before(stream *s, const uint8_t *oids, size_t count, const layout *shape) {
    size_t i;
    for (i = 0; i < count; i++) {
        relation *r = find_relation(s, load_be32(oids + 4 * i));
        if (r != NULL && r->shape == shape) {
            return 1;
        }
    }
    return 0;
}

static int apply_truncate(stream *s, reader *r) {
    event e = {EVENT_TRUNCATE, s->frame, s->frame_len, 0, 0, NULL, NULL, {OK, 0}};
    const uint8_t *oids = r->p + 5;
    size_t count, i;
    if (!has(r, 5)) {
        return STEP_LAYOUT;
    }
    count = load_be32(r->p);
    if ((size_t)(r->end - oids) / 4 != count || (size_t)(r->end - oids) % 4) {
        return STEP_LAYOUT;
    }
    if (!s->within) {
        s->culprit = 'T';
        return STEP_OUTSIDE;
    }
    count_message(s);
    for (i = 0; i < count; i++) {
        relation *each = find_relation(s, load_be32(oids + 4 * i));
        layout *shape = each && s->now.version_high >= each->since ? each->shape : NULL;
        if (shape && shape->history && !truncated_before(s, oids, i, shape) && !append_truncate(s, shape)) {
            return STEP_NO_MEMORY;
        }
    }
    e.version_high = s->now.version_high;
    e.ordinal = s->now.ordinal;
    return push(s, &e) ? STEP_IDLE : STEP_NO_MEMORY;
}

/* The last epoch that has begun at this commit. A later one may begin before: then what was between never happened. */
static uint64_t epoch_of(const stream *s, uint64_t commit_lsn) {
    size_t epoch = s->epochs;
    while (epoch && commit_lsn < s->starts[epoch - 1]) {
        epoch--;
    }
    return epoch;
}

static int apply_begin(stream *s, reader *r) {
    uint64_t commit_lsn;
    int64_t time;
    if (r->end - r->p != 20) {
        return STEP_LAYOUT;
    }
    commit_lsn = load_be64(r->p);
    time = (int64_t)load_be64(r->p + 8);
    if (commit_lsn >> LSN_BITS || time > INT64_MAX - POSTGRES_EPOCH) {
        return STEP_LAYOUT;
    }
    if (s->within) {
        return STEP_BEGIN_WITHIN;
    }
    s->within = 1;
    s->now.version_high = epoch_of(s, commit_lsn) << LSN_BITS | commit_lsn;
    s->now.ordinal = 0;
    s->now.committed_at = s->committed_at = time + POSTGRES_EPOCH;
    s->now.xid = load_be32(r->p + 16);
    return STEP_IDLE;
}

static int apply_commit(stream *s, reader *r) {
    uint64_t end_lsn;
    if (r->end - r->p != 25) {
        return STEP_LAYOUT;
    }
    end_lsn = load_be64(r->p + 9);
    if (!s->within) {
        return STEP_COMMIT_WITHOUT;
    }
    s->within = 0;
    s->transactions++;
    s->position = s->position > end_lsn ? s->position : end_lsn;
    s->received = s->received > end_lsn ? s->received : end_lsn;
    return STEP_IDLE;
}

/* The rest of it is read in Python, which also judges it. */
static int apply_relation(stream *s) {
    event e = {EVENT_RELATION, s->frame, s->frame_len, 0, 0, NULL, NULL, {OK, 0}};
    return push(s, &e) ? STEP_IDLE : STEP_NO_MEMORY;
}

static int skip_message(reader *r, uint8_t kind) {
    int good;
    if (kind == 'O') {
        good = has(r, 8) && (r->p += 8, skip_text(r));
    } else if (kind == 'Y') {
        good = has(r, 4) && (r->p += 4, skip_text(r)) && skip_text(r);
    } else {
        good = has(r, 9) && (r->p += 9, skip_text(r)) && has(r, 4);
        if (good) {
            size_t len = load_be32(r->p);
            r->p += 4;
            good = has(r, len);
            r->p += good ? len : 0;
        }
    }
    return good && r->p == r->end ? STEP_IDLE : STEP_LAYOUT;
}

static int apply_keepalive(stream *s, const uint8_t *p, size_t len) {
    uint64_t wal_end;
    if (len != KEEPALIVE_BYTES) {
        return STEP_LAYOUT;
    }
    wal_end = load_be64(p + 1);
    s->received = s->received > wal_end ? s->received : wal_end;
    s->reply_requested |= p[17] != 0;
    if (!s->within && wal_end > s->position) { /* within one, it is beyond changes that are still to come */
        s->position = wal_end;
    }
    return STEP_IDLE;
}

static inline int apply_frame(stream *s, const uint8_t *p, size_t len) {
    reader r = {p + HEADER_BYTES + 1, p + len};
    if (len == 0 || *p != 'w') {
        return len && *p == 'k' ? apply_keepalive(s, p, len) : STEP_LAYOUT;
    }
    if (len <= HEADER_BYTES) {
        return STEP_LAYOUT;
    }
    switch (p[HEADER_BYTES]) {
    case 'I':
    case 'U':
    case 'D':
        return apply_change(s, &r, p[HEADER_BYTES]);
    case 'B':
        return apply_begin(s, &r);
    case 'C':
        return apply_commit(s, &r);
    case 'T':
        return apply_truncate(s, &r);
    case 'R':
        return apply_relation(s);
    case 'O':
    case 'Y':
    case 'M':
        return skip_message(&r, p[HEADER_BYTES]);
    default:
        return STEP_LAYOUT;
    }
}

/* Decode until something is ready, the frames are used up, or they are wrong. */
static int stream_step(stream *s) {
    while (s->ready_at == s->ready.len / sizeof(event)) {
        size_t len;
        int status;
        if (s->at == s->end) {
            return STEP_IDLE;
        }
        if (s->end - s->at < 4 || (size_t)(s->end - s->at) - 4 < (len = load_be32(s->at))) {
            return STEP_CUT;
        }
        s->frame = s->at + 4;
        s->frame_len = len;
        s->at += 4 + len;
        status = apply_frame(s, s->frame, len);
        if (status != STEP_IDLE) {
            return status;
        }
    }
    return STEP_EVENT;
}

#endif
