/* ARRAY, MAP, VECTOR: values that hold others. The cells they become are described at typemap.NESTED, their texts in codecs/nested.py. */
#ifndef PENSTOCK_NESTED_H
#define PENSTOCK_NESTED_H

#include "layout.h"

#define MOST_LEVELS 6
#define MOST_SPARSE ((uint64_t)1 << 20)

/* A text that is read from left to right. */
typedef struct {
    const uint8_t *s;
    size_t n, place;
} reading;

static inline int at(const reading *r, uint8_t mark) {
    return r->place < r->n && r->s[r->place] == mark;
}

/* A text in double quotes with backslashes: in place where it has none, else in `room`. */
static int quoted_text(reading *r, buffer *room, const uint8_t **text, size_t *len) {
    size_t start, i;
    int escaped = 0;
    if (!at(r, '"')) {
        return MALFORMED;
    }
    start = ++r->place;
    while (r->place < r->n && r->s[r->place] != '"') {
        escaped |= r->s[r->place] == '\\';
        r->place += 1 + (r->s[r->place] == '\\');
    }
    if (r->place >= r->n) {
        return MALFORMED;
    }
    *text = r->s + start;
    *len = r->place++ - start;
    if (escaped) {
        room->len = 0;
        if (!buffer_reserve(room, *len)) {
            return NO_MEMORY;
        }
        for (i = 0; i < *len; i++) {
            i += (*text)[i] == '\\';
            room->data[room->len++] = (*text)[i];
        }
        *text = room->data;
        *len = room->len;
    }
    return OK;
}

/* A cell is begun: its length is not known yet. */
static inline size_t cell_begin(buffer *out) {
    return buffer_append_zeros(out, 1) ? out->len : 0;
}

/* Put the length before what was written since. */
static int cell_end(buffer *out, size_t start) {
    uint8_t prefix[MOST_VARINT];
    size_t len = out->len - start, width = (size_t)(store_varint(prefix, len) - prefix);
    if (!buffer_reserve(out, width - 1)) {
        return 0;
    }
    if (width > 1) {
        memmove(out->data + start + width - 1, out->data + start, len);
    }
    memcpy(out->data + start - 1, prefix, width);
    out->len += width - 1;
    return 1;
}

typedef struct {
    const column *c;
    reading r;
    buffer *out;
    buffer room; /* for unescaped texts */
    int unfit;   /* the first reason */
    int writes;  /* 0: only the syntax is looked at */
} array_reading;

static int array_element(array_reading *a) {
    const uint8_t *text = a->r.s + a->r.place;
    size_t len = 0, mark = a->out->len;
    const column *e = a->c->element;
    int status = OK, is_null = 0;
    if (at(&a->r, '"')) {
        status = quoted_text(&a->r, &a->room, &text, &len);
        if (status != OK) {
            return status;
        }
    } else {
        for (; a->r.place < a->r.n; a->r.place++, len++) {
            uint8_t byte = a->r.s[a->r.place];
            if (byte == a->c->delimiter || byte == '}' || byte == '{' || byte == '"' || byte == '\\') {
                break;
            }
        }
        if (len == 0) {
            return MALFORMED;
        }
        is_null = len == 4 && !memcmp(text, "NULL", 4);
    }
    if (!a->writes) {
        return OK;
    }
    if (a->c->element_nullable && !buffer_append_byte(a->out, (uint8_t)is_null)) {
        return NO_MEMORY;
    }
    if (is_null) {
        if (!a->c->element_nullable && a->unfit == OK) {
            a->unfit = UNFIT_NULL;
        }
        return buffer_append_zeros(a->out, zero_width(e)) ? OK : NO_MEMORY;
    }
    status = encode_value(e, text, len, a->out);
    if (status == OK || status >= MALFORMED) {
        return status;
    }
    if (a->unfit == OK) {
        a->unfit = status;
    }
    if (a->c->element_nullable && unfit_is_null(e)) {
        a->out->len = mark + 1;
        a->out->data[mark] = 1;
        return buffer_append_zeros(a->out, zero_width(e)) ? OK : NO_MEMORY;
    }
    return OK;
}

static int array_list(array_reading *a, int depth) {
    size_t count_at = a->out->len;
    uint32_t count = 0;
    int status;
    if (!at(&a->r, '{')) {
        return MALFORMED;
    }
    a->r.place++;
    if (a->writes && !buffer_append_zeros(a->out, 4)) {
        return NO_MEMORY;
    }
    for (;;) {
        status = depth > 1 ? array_list(a, depth - 1) : array_element(a);
        if (status != OK) {
            return status;
        }
        count++;
        if (at(&a->r, '}')) {
            break;
        }
        if (!at(&a->r, a->c->delimiter)) {
            return MALFORMED;
        }
        a->r.place++;
    }
    a->r.place++;
    if (a->writes) {
        store32(a->out->data + count_at, count);
    }
    return OK;
}

/* "[0:2][-1:1]=" in front of an array that does not begin at 1: where it ends, 0 where there is none. */
static size_t array_bounds(const uint8_t *s, size_t n) {
    size_t i = 0, digits;
    int side;
    while (i < n && s[i] == '[') {
        i++;
        for (side = 0; side < 2; side++) {
            i += i < n && s[i] == '-';
            for (digits = i; i < n && s[i] >= '0' && s[i] <= '9'; i++) {
            }
            if (i == digits || i >= n || s[i++] != (side ? ']' : ':')) {
                return 0;
            }
        }
    }
    return i > 0 && i < n && s[i] == '=' ? i + 1 : 0;
}

/* The text after its bounds. */
static int array_items(array_reading *a) {
    int depth = 0, status;
    size_t start = a->r.place;
    if (a->r.n - start == 2 && !memcmp(a->r.s + start, "{}", 2)) {
        return buffer_append_zeros(a->out, 4) ? OK : NO_MEMORY;
    }
    while (start + (size_t)depth < a->r.n && a->r.s[start + (size_t)depth] == '{') {
        depth++;
    }
    if (depth < 1 || depth > MOST_LEVELS) {
        return MALFORMED;
    }
    a->writes = depth == a->c->dimensions;
    status = array_list(a, depth);
    if (status == OK && a->r.place != a->r.n) {
        status = MALFORMED;
    }
    return status == OK && !a->writes ? UNFIT_DIMENSIONS : status;
}

static int encode_array(const column *c, const uint8_t *s, size_t n, buffer *out) {
    size_t bounds = array_bounds(s, n), mark = out->len, start = cell_begin(out);
    array_reading a = {c, {s, n, bounds}, out, {NULL, 0, 0}, OK, 1};
    int status;
    if (start == 0) {
        return NO_MEMORY;
    }
    status = array_items(&a);
    buffer_free(&a.room);
    if (status == UNFIT_DIMENSIONS) {
        out->len = start; /* the cell of length 0 */
        return status;
    }
    if (status != OK || !cell_end(out, start)) {
        out->len = mark;
        return status == OK ? NO_MEMORY : status;
    }
    return a.unfit == OK && bounds ? UNFIT_BOUND : a.unfit;
}

/* hstore: "a"=>"1", "b"=>NULL */
static int map_pairs(reading *r, buffer *room, buffer *out, uint32_t *count) {
    const uint8_t *text;
    size_t len;
    int status;
    for (*count = 0; r->place < r->n; ++*count) {
        if (*count) {
            if (r->n - r->place < 2 || memcmp(r->s + r->place, ", ", 2) != 0) {
                return MALFORMED;
            }
            r->place += 2;
        }
        status = quoted_text(r, room, &text, &len);
        if (status != OK || (status = encode_string(text, len, out)) != OK) {
            return status;
        }
        if (r->n - r->place < 2 || memcmp(r->s + r->place, "=>", 2) != 0) {
            return MALFORMED;
        }
        r->place += 2;
        if (r->n - r->place >= 4 && !memcmp(r->s + r->place, "NULL", 4)) {
            r->place += 4;
            if (!buffer_append(out, "\1\0", 2)) {
                return NO_MEMORY;
            }
            continue;
        }
        status = quoted_text(r, room, &text, &len);
        if (status != OK) {
            return status;
        }
        if (!buffer_append_byte(out, 0) || encode_string(text, len, out) != OK) {
            return NO_MEMORY;
        }
    }
    return OK;
}

static int encode_map(const uint8_t *s, size_t n, buffer *out) {
    size_t mark = out->len, start = cell_begin(out);
    reading r = {s, n, 0};
    buffer room = {NULL, 0, 0};
    uint32_t count = 0;
    int status = start && buffer_append_zeros(out, 4) ? OK : NO_MEMORY;
    if (status == OK) {
        status = map_pairs(&r, &room, out, &count);
    }
    buffer_free(&room);
    if (status == OK) {
        store32(out->data + start, count);
        status = cell_end(out, start) ? OK : NO_MEMORY;
    }
    if (status != OK) {
        out->len = mark;
    }
    return status;
}

static int dense_values(const uint8_t *s, size_t n, buffer *out, uint32_t *count) {
    size_t i = 1, end;
    int status;
    for (*count = 0; i < n; ++*count, i = end + 1) {
        for (end = i; end < n - 1 && s[end] != ','; end++) {
        }
        status = encode_float32(s + i, end - i, 0, out);
        if (status != OK) {
            return status;
        }
        if (end == n - 1) {
            ++*count;
            return OK;
        }
    }
    return MALFORMED;
}

/* Up to ten digits. */
static int sparse_number(reading *r, uint64_t *out) {
    size_t start = r->place;
    for (*out = 0; r->place < r->n && r->s[r->place] >= '0' && r->s[r->place] <= '9'; r->place++) {
        if (r->place - start == 10) {
            return 0;
        }
        *out = *out * 10 + (uint64_t)(r->s[r->place] - '0');
    }
    return r->place > start;
}

/* {1:0.5,3:2}/5, its values where `out` is given; without it only `dimensions`, once all is well formed. */
static int sparse_values(const uint8_t *s, size_t n, buffer *out, size_t base, uint64_t *dimensions) {
    reading r = {s, n, 1};
    buffer one = {NULL, 0, 0};
    uint64_t place;
    int status = OK;
    while (status == OK && !at(&r, '}')) {
        size_t start;
        if (!sparse_number(&r, &place) || !at(&r, ':')) {
            status = MALFORMED;
            break;
        }
        for (start = ++r.place; r.place < r.n && !at(&r, ',') && !at(&r, '}'); r.place++) {
        }
        one.len = 0;
        status = encode_float32(s + start, r.place - start, 0, &one);
        if (status == OK && (place < 1 || (out && place > *dimensions))) {
            status = MALFORMED;
        }
        if (status == OK && out) {
            memcpy(out->data + base + (place - 1) * 4, one.data, 4);
        }
        if (status == OK && at(&r, ',')) {
            r.place++;
            status = at(&r, '}') ? MALFORMED : OK;
        }
    }
    buffer_free(&one);
    if (status != OK) {
        return status;
    }
    r.place++;
    if (!at(&r, '/')) {
        return MALFORMED;
    }
    r.place++;
    return sparse_number(&r, dimensions) && r.place == n ? OK : MALFORMED;
}

/* A sparse vector too large to be expanded must be well formed too: every place within its dimensions. */
static int sparse_within(const uint8_t *s, size_t n, uint64_t dimensions) {
    reading r = {s, n, 1};
    uint64_t place;
    while (!at(&r, '}')) {
        if (!sparse_number(&r, &place) || place > dimensions) {
            return 0;
        }
        while (!at(&r, ',') && !at(&r, '}')) {
            r.place++;
        }
        r.place += at(&r, ',');
    }
    return 1;
}

static int encode_vector(const uint8_t *s, size_t n, buffer *out) {
    size_t mark = out->len, start;
    uint64_t dimensions;
    uint32_t count;
    int status;
    if (n < 3) {
        return MALFORMED;
    }
    start = cell_begin(out);
    if (!start || !buffer_append_zeros(out, 4)) {
        return NO_MEMORY;
    }
    if (s[0] == '[' && s[n - 1] == ']') {
        status = dense_values(s, n, out, &count);
    } else if (s[0] == '{') {
        status = sparse_values(s, n, NULL, 0, &dimensions);
        if (status == OK && !sparse_within(s, n, dimensions)) {
            status = MALFORMED;
        }
        if (status == OK && dimensions > MOST_SPARSE) {
            out->len = start;
            return UNFIT_DIMENSIONS;
        }
        if (status == OK) {
            count = (uint32_t)dimensions;
            status = buffer_append_zeros(out, dimensions * 4) ? sparse_values(s, n, out, start + 4, &dimensions) : NO_MEMORY;
        }
    } else {
        status = MALFORMED;
    }
    if (status == OK) {
        store32(out->data + start, count);
        status = cell_end(out, start) ? OK : NO_MEMORY;
    }
    if (status != OK) {
        out->len = mark;
    }
    return status;
}

#endif
