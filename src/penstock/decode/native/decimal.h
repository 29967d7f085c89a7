/* DECIMAL: PostgreSQL's digits → a two's complement number of 4, 8, 16 or 32 bytes, value * 10^scale.
 *
 * A value with more digits than fit is never rounded: it is unfit, and what stands in for it is the largest number of the type
 * (too many before the point) or the value with its last digits cut off (too many after it).
 */
#ifndef PENSTOCK_DECIMAL_H
#define PENSTOCK_DECIMAL_H

#include "buffer.h"
#include "integers.h"

typedef struct {
    uint64_t limb[4]; /* least significant first */
} wide;

static const uint64_t ten_to[20] = {1u,
                                    10u,
                                    100u,
                                    1000u,
                                    10000u,
                                    100000u,
                                    1000000u,
                                    10000000u,
                                    100000000u,
                                    1000000000u,
                                    10000000000u,
                                    100000000000u,
                                    1000000000000u,
                                    10000000000000u,
                                    100000000000000u,
                                    1000000000000000u,
                                    10000000000000000u,
                                    100000000000000000u,
                                    1000000000000000000u,
                                    10000000000000000000u};

/* n = n * factor + addend, over the limbs that a number of `width` bytes has. */
static inline void wide_multiply_add(wide *n, uint64_t factor, uint64_t addend, int width) {
    unsigned __int128 carry = addend;
    int i, limbs = (width + 7) / 8;
    for (i = 0; i < limbs; i++) {
        carry += (unsigned __int128)n->limb[i] * factor;
        n->limb[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

static inline void wide_scale(wide *n, size_t digits, int width) {
    for (; digits > 19; digits -= 19) {
        wide_multiply_add(n, ten_to[19], 0, width);
    }
    wide_multiply_add(n, ten_to[digits], 0, width);
}

/* Append digits to the number; 0 when one of them is no digit. */
static inline int wide_digits(wide *n, const uint8_t *s, size_t count, int width) {
    uint64_t part;
    while (count) {
        size_t taken = count > 19 ? 19 : count;
        if (!parse_digits(s, taken, &part)) {
            return 0;
        }
        wide_multiply_add(n, ten_to[taken], part, width);
        s += taken;
        count -= taken;
    }
    return 1;
}

static inline int wide_store(wide *n, int negative, int width, buffer *out) {
    uint8_t bytes[32];
    uint64_t carry = 1;
    int i, limbs = (width + 7) / 8;
    if (negative) {
        for (i = 0; i < limbs; i++) {
            n->limb[i] = ~n->limb[i] + carry;
            carry = carry && n->limb[i] == 0;
        }
    }
    for (i = 0; i < limbs; i++) {
        store64(bytes + 8 * i, n->limb[i]);
    }
    return buffer_append(out, bytes, (size_t)width);
}

/* The number furthest from zero: as many nines as there are digits. */
static int decimal_bound(int negative, int precision, int width, buffer *out) {
    wide n = {{0, 0, 0, 0}};
    int digits, taken;
    for (digits = precision; digits > 0; digits -= taken) {
        taken = digits > 19 ? 19 : digits;
        wide_multiply_add(&n, ten_to[taken], ten_to[taken] - 1, width);
    }
    return wide_store(&n, negative, width, out);
}

/* NaN and the infinities. */
static int decimal_named(const uint8_t *s, size_t n, int precision, int width, buffer *out) {
    int negative = n == 9 && *s == '-';
    if (n == 3 && !memcmp(s, "NaN", 3)) {
        return buffer_append_zeros(out, (size_t)width) ? UNFIT_NAN : NO_MEMORY;
    }
    if ((n == 8 || negative) && !memcmp(s + negative, "Infinity", 8)) {
        return decimal_bound(negative, precision, width, out) ? UNFIT_INFINITY : NO_MEMORY;
    }
    return MALFORMED;
}

static int all_digits(const uint8_t *s, size_t n) {
    for (; n; s++, n--) {
        if (*s < '0' || *s > '9') {
            return 0;
        }
    }
    return 1;
}

static int encode_decimal(const uint8_t *s, size_t n, int precision, int scale, int width, buffer *out) {
    const uint8_t *text = s, *end = s + n, *point, *fraction, *last;
    size_t whole_digits, fraction_digits;
    wide number = {{0, 0, 0, 0}};
    int negative = n && *s == '-', status = OK;
    s += negative;
    for (point = s; point < end && *point != '.'; point++) {
    }
    fraction = point == end ? end : point + 1;
    if (point == s || (point != end && fraction == end)) {
        return n ? decimal_named(text, n, precision, width, out) : MALFORMED;
    }
    for (; s < point && *s == '0'; s++) {
    }
    for (last = end; last > fraction && last[-1] == '0'; last--) {
    }
    whole_digits = (size_t)(point - s);
    fraction_digits = (size_t)(last - fraction);
    if (whole_digits > (size_t)(precision - scale)) {
        if (!all_digits(s, whole_digits) || !all_digits(fraction, fraction_digits)) {
            return decimal_named(text, n, precision, width, out);
        }
        return decimal_bound(negative, precision, width, out) ? UNFIT_DIGITS : NO_MEMORY;
    }
    if (fraction_digits > (size_t)scale) {
        if (!all_digits(fraction + scale, fraction_digits - (size_t)scale)) {
            return MALFORMED;
        }
        fraction_digits = (size_t)scale;
        status = UNFIT_DIGITS;
    }
    if (width <= 8) { /* at most 18 digits */
        uint64_t whole = 0, part = 0;
        if ((whole_digits && !parse_digits(s, whole_digits, &whole)) || (fraction_digits && !parse_digits(fraction, fraction_digits, &part))) {
            return decimal_named(text, n, precision, width, out);
        }
        whole = whole * ten_to[scale] + part * ten_to[(size_t)scale - fraction_digits];
        if (!buffer_reserve(out, 8)) {
            return NO_MEMORY;
        }
        store64(out->data + out->len, negative ? 0 - whole : whole);
        out->len += (size_t)width;
        return status;
    }
    if (!wide_digits(&number, s, whole_digits, width) || !wide_digits(&number, fraction, fraction_digits, width)) {
        return decimal_named(text, n, precision, width, out);
    }
    wide_scale(&number, (size_t)scale - fraction_digits, width);
    return wide_store(&number, negative, width, out) ? status : NO_MEMORY;
}

#endif
