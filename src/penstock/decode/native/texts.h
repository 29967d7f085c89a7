/* STRING, BYTEA, HEX, BASE64, UUID, JSON: texts as they are, and hexadecimal ones. */
#ifndef PENSTOCK_TEXTS_H
#define PENSTOCK_TEXTS_H

#include "buffer.h"

#define MOST_VARINT 10

/* The value of a hexadecimal digit, 0xFF for another character. Filled by texts_start. */
static uint8_t hex_value[256];

static void texts_start(void) {
    int i;
    memset(hex_value, 0xFF, sizeof hex_value);
    for (i = 0; i < 10; i++) {
        hex_value['0' + i] = (uint8_t)i;
    }
    for (i = 0; i < 6; i++) {
        hex_value['a' + i] = hex_value['A' + i] = (uint8_t)(10 + i);
    }
}

static inline int encode_string(const uint8_t *s, size_t n, buffer *out) {
    uint8_t *p;
    if (n > (size_t)PTRDIFF_MAX - MOST_VARINT || !buffer_reserve(out, n + MOST_VARINT)) {
        return NO_MEMORY;
    }
    p = store_varint(out->data + out->len, n);
    if (n) {
        memcpy(p, s, n);
    }
    out->len = (size_t)(p + n - out->data);
    return OK;
}

/* `count` bytes from twice as many digits; 0 when one is none. */
static inline int unhex(const uint8_t *s, size_t count, uint8_t *out) {
    unsigned bad = 0;
    for (; count; count--, s += 2) {
        unsigned high = hex_value[s[0]], low = hex_value[s[1]];
        bad |= high | low;
        *out++ = (uint8_t)(high << 4 | low);
    }
    return bad <= 0x0F;
}

static inline int encode_bytea(const uint8_t *s, size_t n, buffer *out) {
    uint8_t *p;
    if (n < 2 || n % 2 || s[0] != '\\' || s[1] != 'x') {
        return MALFORMED;
    }
    n = (n - 2) / 2;
    if (!buffer_reserve(out, n + MOST_VARINT)) {
        return NO_MEMORY;
    }
    p = store_varint(out->data + out->len, n);
    if (!unhex(s + 2, n, p)) {
        return MALFORMED;
    }
    out->len = (size_t)(p + n - out->data);
    return OK;
}

/* A bytea's digits. */
static inline int encode_hex(const uint8_t *s, size_t n, buffer *out) {
    static const char digits[] = "0123456789abcdef";
    size_t i, mark = out->len;
    if (n < 2 || n % 2 || s[0] != '\\' || s[1] != 'x') {
        return MALFORMED;
    }
    if (encode_string(s + 2, n - 2, out) != OK) {
        return NO_MEMORY;
    }
    for (i = 0; i < n - 2; i++) {
        uint8_t *digit = out->data + out->len - (n - 2) + i;
        if (hex_value[*digit] > 0x0F) {
            out->len = mark;
            return MALFORMED;
        }
        *digit = (uint8_t)digits[hex_value[*digit]];
    }
    return OK;
}

/* A bytea in base64: the raw bytes stand behind the room for the text, and are overtaken by it. */
static inline int encode_base64(const uint8_t *s, size_t n, buffer *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *p, *raw;
    size_t i, count, length;
    if (n < 2 || n % 2 || s[0] != '\\' || s[1] != 'x') {
        return MALFORMED;
    }
    count = (n - 2) / 2;
    length = (count + 2) / 3 * 4;
    if (!buffer_reserve(out, length + count + MOST_VARINT)) {
        return NO_MEMORY;
    }
    p = store_varint(out->data + out->len, length);
    raw = p + length;
    if (!unhex(s + 2, count, raw)) {
        return MALFORMED;
    }
    for (i = 0; i < count; i += 3) {
        uint32_t three = (uint32_t)raw[i] << 16 | (i + 1 < count ? (uint32_t)raw[i + 1] << 8 : 0) | (i + 2 < count ? raw[i + 2] : 0);
        *p++ = (uint8_t)letters[three >> 18];
        *p++ = (uint8_t)letters[three >> 12 & 63];
        *p++ = i + 1 < count ? (uint8_t)letters[three >> 6 & 63] : '=';
        *p++ = i + 2 < count ? (uint8_t)letters[three & 63] : '=';
    }
    out->len = (size_t)(p - out->data);
    return OK;
}

/* JSON, if an object is at its top: ClickHouse's type holds nothing else. */
static inline int encode_json(const uint8_t *s, size_t n, buffer *out) {
    size_t i = 0;
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) {
        i++;
    }
    if (i < n && s[i] == '{') {
        return encode_string(s, n, out);
    }
    return encode_string((const uint8_t *)"{}", 2, out) == OK ? UNFIT_OBJECT : NO_MEMORY;
}

static inline int encode_uuid(const uint8_t *s, size_t n, buffer *out) {
    uint8_t raw[16], *p;
    int i, good;
    if (n != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-') {
        return MALFORMED;
    }
    good = unhex(s, 4, raw) & unhex(s + 9, 2, raw + 4) & unhex(s + 14, 2, raw + 6) & unhex(s + 19, 2, raw + 8) &
           unhex(s + 24, 6, raw + 10);
    if (!good) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 16)) {
        return NO_MEMORY;
    }
    p = out->data + out->len;
    for (i = 0; i < 8; i++) {
        p[i] = raw[7 - i];
        p[8 + i] = raw[15 - i];
    }
    out->len += 16;
    return OK;
}

#endif
