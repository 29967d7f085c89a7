/* COPY's text format: rows end with a newline, values are separated by tabs; both are escaped within a value. */
#ifndef PENSTOCK_COPYTEXT_H
#define PENSTOCK_COPYTEXT_H

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "change.h"

enum copy_status {
    COPY_DONE,
    COPY_NO_MEMORY,
    COPY_WIDTH,     /* `width` columns in a row */
    COPY_BACKSLASH, /* a value ends with a lone one */
    COPY_REFUSED,
};

typedef struct {
    layout *shape;
    block *pending;
    field *fields;
    int32_t *place; /* the tuple's columns are the plan's */
    buffer split;   /* a row's beginning */
    buffer unescaped;
    uint64_t ordinal;
    int escaped; /* the row has values in `unescaped` */
    size_t width;
    refusal why;
    size_t refused_key; /* of its row, in the block's `names` */
} copy_state;

static void copy_free(copy_state *c) {
    block_free(c->pending);
    free(c->fields);
    free(c->place);
    buffer_free(&c->split);
    buffer_free(&c->unescaped);
    memset(c, 0, sizeof *c);
}

static int copy_start(copy_state *c, layout *shape, uint64_t first_ordinal) {
    size_t i;
    memset(c, 0, sizeof *c);
    c->shape = shape;
    c->ordinal = first_ordinal;
    c->pending = block_new(shape);
    c->fields = calloc(shape->count + 1, sizeof *c->fields);
    c->place = calloc(shape->count + 1, sizeof *c->place);
    if (!c->pending || !c->fields || !c->place) {
        copy_free(c);
        return 0;
    }
    for (i = 0; i < shape->count; i++) {
        c->place[i] = (int32_t)i;
    }
    return 1;
}

/* The next tab, newline or backslash, or the end. */
static inline const uint8_t *find_special(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    const __m128i tab = _mm_set1_epi8('\t'), newline = _mm_set1_epi8('\n'), backslash = _mm_set1_epi8('\\');
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i found = _mm_or_si128(_mm_cmpeq_epi8(v, tab), _mm_or_si128(_mm_cmpeq_epi8(v, newline), _mm_cmpeq_epi8(v, backslash)));
        unsigned bits = (unsigned)_mm_movemask_epi8(found);
        if (bits) {
            return p + __builtin_ctz(bits);
        }
    }
#endif
    for (; p < end && *p != '\t' && *p != '\n' && *p != '\\'; p++) {
    }
    return p;
}

static inline int octal(const uint8_t *p, const uint8_t *end) {
    return p < end && *p >= '0' && *p <= '7' ? *p - '0' : -1;
}

/* The byte that an escape stands for; `p` is behind its backslash and moves behind the escape. */
static uint8_t unescape_one(const uint8_t **p, const uint8_t *end) {
    static const char letters[] = "bfnrtv", bytes[] = "\b\f\n\r\t\v";
    const char *letter;
    const uint8_t *s = *p;
    unsigned value, digits;
    if (octal(s, end) >= 0) {
        for (value = 0, digits = 0; digits < 3 && octal(s, end) >= 0; digits++, s++) {
            value = value * 8 + (unsigned)octal(s, end);
        }
        *p = s;
        return (uint8_t)value;
    }
    if (*s == 'x' && end - s > 1 && hex_value[s[1]] != 0xFF) {
        value = hex_value[s[1]];
        s += 2;
        if (s < end && hex_value[*s] != 0xFF) {
            value = value * 16 + hex_value[*s++];
        }
        *p = s;
        return (uint8_t)value;
    }
    *p = s + 1;
    letter = *s ? strchr(letters, *s) : NULL;
    return letter ? (uint8_t)bytes[letter - letters] : *s;
}

/* A value with backslashes: NULL, or its text in `unescaped`, to be found once the row is whole. */
static int unescape_field(copy_state *c, const uint8_t *s, const uint8_t *end, field *out) {
    size_t start = c->unescaped.len;
    const uint8_t *next;
    if (end - s == 2 && s[1] == 'N') {
        *out = null_field;
        return COPY_DONE;
    }
    if (!buffer_reserve(&c->unescaped, (size_t)(end - s))) {
        return COPY_NO_MEMORY;
    }
    while (s < end) {
        next = memchr(s, '\\', (size_t)(end - s));
        if (next == NULL) {
            next = end;
        }
        memcpy(c->unescaped.data + c->unescaped.len, s, (size_t)(next - s));
        c->unescaped.len += (size_t)(next - s);
        s = next;
        if (s < end) {
            if (++s == end) {
                return COPY_BACKSLASH;
            }
            c->unescaped.data[c->unescaped.len++] = unescape_one(&s, end);
        }
    }
    out->kind = FIELD_UNESCAPED;
    out->data = NULL;
    out->len = c->unescaped.len - start;
    return COPY_DONE;
}

/* Give the unescaped values their place, now that the buffer no longer moves. */
static void place_unescaped(copy_state *c) {
    const uint8_t *p = c->unescaped.data;
    size_t i;
    for (i = 0; i < c->shape->count; i++) {
        if (c->fields[i].kind == FIELD_UNESCAPED) {
            c->fields[i].kind = FIELD_TEXT;
            c->fields[i].data = p;
            p += c->fields[i].len;
        }
    }
}

/* Split the row at `s` into fields. *line moves behind its newline; where there is none, *whole is 0. */
static inline int split_row(copy_state *c, const uint8_t **line, const uint8_t *end, int *whole) {
    const uint8_t *s = *line, *start = s;
    size_t count = 0, most = c->shape->count;
    int escaped = 0, status = COPY_DONE;
    c->unescaped.len = 0;
    c->escaped = 0;
    *whole = 0;
    for (;; s++) {
        s = find_special(s, end);
        if (s == end) {
            return COPY_DONE;
        }
        if (*s == '\\') {
            escaped = 1;
            continue;
        }
        if (count < most) {
            field *f = &c->fields[count];
            if (!escaped) {
                f->data = start;
                f->len = (size_t)(s - start);
                f->kind = FIELD_TEXT;
            } else if (status == COPY_DONE) {
                c->escaped = 1;
                status = unescape_field(c, start, s, f);
            }
        }
        count++;
        escaped = 0;
        start = s + 1;
        if (*s == '\n') {
            *line = start;
            *whole = 1;
            c->width = count;
            return count == most || status == COPY_NO_MEMORY ? status : COPY_WIDTH;
        }
    }
}

static int append_copied(copy_state *c) {
    stamp s = {0, 0, 0, 0, OPERATION_COPY, 0};
    uint64_t text_bytes = 0;
    if (c->escaped) {
        place_unescaped(c);
    }
    c->why = block_append_columns(c->pending, c->fields, c->place, &text_bytes);
    if (c->why.status != OK) {
        int named = c->why.status != NO_MEMORY && keep_key(c->pending, c->fields, c->place, &c->refused_key);
        return named ? COPY_REFUSED : COPY_NO_MEMORY;
    }
    if (c->shape->event_log) {
        s.ordinal = c->ordinal++;
    }
    return block_finish_row(c->pending, &s, text_bytes) ? COPY_DONE : COPY_NO_MEMORY;
}

/* Decode the rows that end in these bytes; *line moves behind the last of them. */
static int copy_rows(copy_state *c, const uint8_t **line, const uint8_t *end) {
    int whole, status;
    for (;;) {
        status = split_row(c, line, end, &whole);
        if (status != COPY_DONE || !whole) {
            return status;
        }
        status = append_copied(c);
        if (status != COPY_DONE) {
            return status;
        }
    }
}

/* Decode a chunk. What follows its last newline is kept until the next one. */
static int copy_receive(copy_state *c, const uint8_t *chunk, size_t len) {
    const uint8_t *s = chunk, *end = chunk + len, *newline;
    int status;
    if (c->split.len) {
        newline = len ? memchr(chunk, '\n', len) : NULL;
        s = newline == NULL ? end : newline + 1;
        if (!buffer_append(&c->split, chunk, (size_t)(s - chunk))) {
            return COPY_NO_MEMORY;
        }
        if (newline == NULL) {
            return COPY_DONE;
        }
        chunk = c->split.data;
        status = copy_rows(c, &chunk, c->split.data + c->split.len);
        buffer_reset(&c->split);
        if (status != COPY_DONE) {
            return status;
        }
    }
    status = copy_rows(c, &s, end);
    if (status == COPY_DONE && !buffer_append(&c->split, s, (size_t)(end - s))) {
        return COPY_NO_MEMORY;
    }
    buffer_reset(&c->unescaped);
    return status;
}

#endif
