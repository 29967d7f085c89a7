/* Growable buffers, status codes, and little-endian stores: what every codec builds on. */
#ifndef PENSTOCK_BUFFER_H
#define PENSTOCK_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* 1 to 8 are the numbers of batch.REASONS: such a value has been replaced by the nearest one. */
enum status {
    OK = 0,
    UNFIT_NAN = 1,
    UNFIT_INFINITY = 2,
    UNFIT_DIGITS = 3,
    UNFIT_RANGE = 4,
    UNFIT_DIMENSIONS = 5,
    UNFIT_BOUND = 6,
    UNFIT_NULL = 7,
    UNFIT_OBJECT = 8,
    MALFORMED = 9,  /* nothing was written */
    NO_MEMORY = 10, /* nothing was written */
};

#define REASON_COUNT 8

typedef struct {
    uint8_t *data;
    size_t len;
    size_t cap;
} buffer;

/* A buffer that grew beyond this for one large batch is given back after it. */
#define KEPT_BYTES ((size_t)32 << 20)

static int buffer_grow(buffer *b, size_t extra) {
    size_t wanted, cap;
    uint8_t *data;
    if (extra > (size_t)PTRDIFF_MAX - b->len) {
        return 0;
    }
    wanted = b->len + extra;
    cap = b->cap < 256 ? 256 : b->cap;
    while (cap < wanted) {
        cap = cap > (size_t)PTRDIFF_MAX / 2 ? (size_t)PTRDIFF_MAX : cap * 2;
    }
    data = realloc(b->data, cap);
    if (data == NULL) {
        return 0;
    }
    b->data = data;
    b->cap = cap;
    return 1;
}

/* Make room for `extra` more bytes; 0 when there is no memory. */
static inline int buffer_reserve(buffer *b, size_t extra) {
    return b->cap - b->len >= extra || buffer_grow(b, extra);
}

static inline int buffer_append(buffer *b, const void *data, size_t len) {
    if (!buffer_reserve(b, len)) {
        return 0;
    }
    if (len) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
    return 1;
}

static inline int buffer_append_zeros(buffer *b, size_t len) {
    if (!buffer_reserve(b, len)) {
        return 0;
    }
    if (len) {
        memset(b->data + b->len, 0, len);
    }
    b->len += len;
    return 1;
}

static inline int buffer_append_byte(buffer *b, uint8_t byte) {
    if (!buffer_reserve(b, 1)) {
        return 0;
    }
    b->data[b->len++] = byte;
    return 1;
}

static inline void buffer_free(buffer *b) {
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

static inline void buffer_reset(buffer *b) {
    if (b->cap > KEPT_BYTES) {
        buffer_free(b);
    }
    b->len = 0;
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BIG_ENDIAN_HOST 1
#define TO_LE16(v) __builtin_bswap16(v)
#define TO_LE32(v) __builtin_bswap32(v)
#define TO_LE64(v) __builtin_bswap64(v)
#else
#define BIG_ENDIAN_HOST 0
#define TO_LE16(v) (v)
#define TO_LE32(v) (v)
#define TO_LE64(v) (v)
#endif

static inline void store16(uint8_t *p, uint16_t v) {
    v = TO_LE16(v);
    memcpy(p, &v, 2);
}

static inline void store32(uint8_t *p, uint32_t v) {
    v = TO_LE32(v);
    memcpy(p, &v, 4);
}

static inline void store64(uint8_t *p, uint64_t v) {
    v = TO_LE64(v);
    memcpy(p, &v, 8);
}

static inline uint64_t load_le64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return TO_LE64(v);
}

/* The protocol's integers are big-endian. */
static inline uint16_t load_be16(const uint8_t *p) {
    return (uint16_t)((uint16_t)p[0] << 8 | p[1]);
}

static inline uint32_t load_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t load_be64(const uint8_t *p) {
    return (uint64_t)load_be32(p) << 32 | load_be32(p + 4);
}

/* A Native string's length: unsigned LEB128. Takes up to 10 bytes; returns where it ended. */
static inline uint8_t *store_varint(uint8_t *p, uint64_t v) {
    while (v > 0x7F) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* The same, read from our own output, which is known to be whole. */
static inline const uint8_t *load_varint(const uint8_t *p, uint64_t *v) {
    uint64_t out = 0;
    int shift = 0;
    while (*p & 0x80) {
        out |= (uint64_t)(*p++ & 0x7F) << shift;
        shift += 7;
    }
    *v = out | (uint64_t)*p++ << shift;
    return p;
}

#endif
