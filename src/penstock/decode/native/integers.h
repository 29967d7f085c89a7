/* INT16, INT32, INT64, UINT32, BOOL: PostgreSQL's decimal text. */
#ifndef PENSTOCK_INTEGERS_H
#define PENSTOCK_INTEGERS_H

#include "buffer.h"

/* Eight digits at once, as one little-endian word; 0 when one of them is no digit. */
static inline int eight_digits(const uint8_t *s, uint64_t *out) {
    uint64_t v;
    memcpy(&v, s, 8);
    v = TO_LE64(v);
    if ((v & 0xF0F0F0F0F0F0F0F0u) != 0x3030303030303030u ||
        ((v + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u) != 0x3030303030303030u) {
        return 0;
    }
    v &= 0x0F0F0F0F0F0F0F0Fu;
    v = v * 10 + (v >> 8); /* pairs, in the even bytes */
    *out = ((v & 0x000000FF000000FFu) * 0x000F424000000064u + ((v >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >> 32;
    return 1;
}

/* Digits, nothing else; no more than 19 behind leading zeros. */
static inline int parse_digits(const uint8_t *s, size_t n, uint64_t *out) {
    uint64_t v = 0, eight;
    const uint8_t *end = s + n;
    while (n > 19 && *s == '0') {
        s++;
        n--;
    }
    if (n == 0 || n > 19) {
        return 0;
    }
    while (end - s >= 8) {
        if (!eight_digits(s, &eight)) {
            return 0;
        }
        v = v * 100000000u + eight;
        s += 8;
    }
    for (; s < end; s++) {
        unsigned digit = (unsigned)*s - '0';
        if (digit > 9) {
            return 0;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return 1;
}

/* A signed integer no further from zero than `most` (below zero one more). */
static inline int parse_integer(const uint8_t *s, size_t n, uint64_t most, int64_t *out) {
    uint64_t v;
    int negative = n && *s == '-';
    if (!parse_digits(s + negative, n - (size_t)negative, &v) || v > most + (uint64_t)negative) {
        return 0;
    }
    *out = (int64_t)(negative ? 0 - v : v);
    return 1;
}

static inline int encode_int16(const uint8_t *s, size_t n, buffer *out) {
    int64_t v;
    if (!parse_integer(s, n, INT16_MAX, &v)) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 2)) {
        return NO_MEMORY;
    }
    store16(out->data + out->len, (uint16_t)v);
    out->len += 2;
    return OK;
}

static inline int encode_int32(const uint8_t *s, size_t n, buffer *out) {
    int64_t v;
    if (!parse_integer(s, n, INT32_MAX, &v)) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 4)) {
        return NO_MEMORY;
    }
    store32(out->data + out->len, (uint32_t)v);
    out->len += 4;
    return OK;
}

static inline int encode_int64(const uint8_t *s, size_t n, buffer *out) {
    int64_t v;
    if (!parse_integer(s, n, INT64_MAX, &v)) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 8)) {
        return NO_MEMORY;
    }
    store64(out->data + out->len, (uint64_t)v);
    out->len += 8;
    return OK;
}

static inline int encode_uint32(const uint8_t *s, size_t n, buffer *out) {
    uint64_t v;
    if (!parse_digits(s, n, &v) || v > UINT32_MAX) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 4)) {
        return NO_MEMORY;
    }
    store32(out->data + out->len, (uint32_t)v);
    out->len += 4;
    return OK;
}

static inline int encode_bool(const uint8_t *s, size_t n, buffer *out) {
    if (n != 1 || (*s != 't' && *s != 'f')) {
        return MALFORMED;
    }
    return buffer_append_byte(out, *s == 't') ? OK : NO_MEMORY;
}

#endif
