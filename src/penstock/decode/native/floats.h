/* FLOAT32 and FLOAT64, correctly rounded.
 *
 * A decimal is w * 10^q. Where w and 10^q are both exact in the type, one multiplication or division rounds once (Clinger,
 * "How to read floating point numbers accurately", 1990). Otherwise w is multiplied by 5^q cut off after 128 bits, which leaves an
 * error below two units of the product's upper 128 bits: unless that could change the rounding, the upper bits are the
 * answer. The rest (ties, subnormal numbers, more than 19 digits) goes to the C library, in the C locale.
 */
#ifndef PENSTOCK_FLOATS_H
#define PENSTOCK_FLOATS_H

#include <locale.h>
#include <stdlib.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#include "buffer.h"

#define LEAST_POWER (-342)
#define MOST_POWER 308

/* 5^q * 2^(-power_exponent), its upper 128 bits, the first of which is set. Filled by _native.pyx when it is imported. */
static uint64_t power_high[MOST_POWER - LEAST_POWER + 1];
static uint64_t power_low[MOST_POWER - LEAST_POWER + 1];
static int16_t power_exponent[MOST_POWER - LEAST_POWER + 1];
static locale_t c_locale;

static int floats_start(void) {
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c_locale != (locale_t)0;
}

typedef struct {
    uint64_t digits; /* w */
    int64_t power;   /* q */
    int negative;
    int exact; /* w holds every digit */
} decimal_float;

/* -?D+(.D+)?(e[+-]?D+)? */
static inline int scan_float(const uint8_t *s, size_t n, decimal_float *out) {
    const uint8_t *end = s + n, *first;
    uint64_t w = 0;
    int64_t q = 0, exponent = 0;
    int kept = 0, negative_exponent;
    out->negative = s < end && *s == '-';
    out->exact = 1;
    s += out->negative;
    for (first = s; s < end && *s >= '0' && *s <= '9'; s++) {
        if (kept < 19) {
            w = w * 10 + (*s - '0');
            kept += w != 0;
        } else {
            q++;
            out->exact &= *s == '0';
        }
    }
    if (s == first) {
        return 0;
    }
    if (s < end && *s == '.') {
        for (first = ++s; s < end && *s >= '0' && *s <= '9'; s++) {
            if (kept < 19) {
                w = w * 10 + (*s - '0');
                kept += w != 0;
                q--;
            } else {
                out->exact &= *s == '0';
            }
        }
        if (s == first) {
            return 0;
        }
    }
    if (s < end && *s == 'e') {
        s++;
        negative_exponent = s < end && *s == '-';
        s += s < end && (*s == '-' || *s == '+');
        for (first = s; s < end && *s >= '0' && *s <= '9'; s++) {
            if (exponent < 1000000000) {
                exponent = exponent * 10 + (*s - '0');
            }
        }
        if (s == first) {
            return 0;
        }
        q += negative_exponent ? -exponent : exponent;
    }
    out->digits = w;
    out->power = q;
    return s == end;
}

/* The bits of w * 10^q for a type with `bits` of mantissa and exponents from `least` to `most`; 0 when it is not certain. */
static inline int multiply_float(uint64_t w, int64_t q, int bits, int least, int most, uint64_t *out) {
    unsigned __int128 product, tail, half;
    uint64_t mantissa;
    int zeros, cut, exponent, index;
    if (q < LEAST_POWER || q > MOST_POWER) {
        return 0;
    }
    index = (int)q - LEAST_POWER;
    zeros = __builtin_clzll(w);
    w <<= zeros;
    product = (unsigned __int128)w * power_high[index] + (uint64_t)(((unsigned __int128)w * power_low[index]) >> 64);
    cut = 128 - bits - !(uint64_t)(product >> 127);
    tail = product & (((unsigned __int128)1 << cut) - 1);
    half = (unsigned __int128)1 << (cut - 1);
    if (tail <= half && tail + 2 > half) {
        return 0;
    }
    mantissa = (uint64_t)(product >> cut) + (tail > half);
    exponent = power_exponent[index] + (int)q + 64 - zeros + cut + bits - 1;
    if (mantissa >> bits) {
        mantissa >>= 1;
        exponent++;
    }
    if (exponent < least || exponent > most) {
        return 0;
    }
    *out = (uint64_t)(exponent - least + 1) << (bits - 1) | (mantissa & (((uint64_t)1 << (bits - 1)) - 1));
    return 1;
}

/* The C library's reading of a text that scan_float has accepted: the bits of a double or of a float. */
static int library_float(const uint8_t *s, size_t n, int single, uint64_t *out) {
    char small[128];
    char *text = small;
    if (n >= sizeof small) {
        text = malloc(n + 1);
        if (text == NULL) {
            return NO_MEMORY;
        }
    }
    memcpy(text, s, n);
    text[n] = 0;
    if (single) {
        float f = strtof_l(text, NULL, c_locale);
        uint32_t bits;
        memcpy(&bits, &f, 4);
        *out = bits;
    } else {
        double d = strtod_l(text, NULL, c_locale);
        memcpy(out, &d, 8);
    }
    if (text != small) {
        free(text);
    }
    return OK;
}

static inline int named_float(const uint8_t *s, size_t n, uint64_t nan, uint64_t infinity, uint64_t sign, uint64_t *out) {
    if (n == 3 && !memcmp(s, "NaN", 3)) {
        *out = nan;
    } else if (n == 8 && !memcmp(s, "Infinity", 8)) {
        *out = infinity;
    } else if (n == 9 && !memcmp(s, "-Infinity", 9)) {
        *out = infinity | sign;
    } else {
        return 0;
    }
    return 1;
}

static inline int double_bits(const uint8_t *s, size_t n, uint64_t *out) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    decimal_float number;
    if (!scan_float(s, n, &number)) {
        return MALFORMED;
    }
    if (number.digits == 0 && number.exact) {
        *out = 0;
    } else if (number.exact && number.digits <= (uint64_t)1 << 53 && number.power >= -22 && number.power <= 22) {
        double d = (double)number.digits;
        d = number.power < 0 ? d / powers[-number.power] : d * powers[number.power];
        memcpy(out, &d, 8);
    } else if (!number.exact || !multiply_float(number.digits, number.power, 53, -1022, 1023, out)) {
        int status = library_float(s, n, 0, out);
        *out &= INT64_MAX;
        if (status != OK || *out == 0x7FF0000000000000u) {
            return status == OK ? MALFORMED : status;
        }
    }
    *out |= (uint64_t)number.negative << 63;
    return OK;
}

static inline int single_bits(const uint8_t *s, size_t n, uint64_t *out) {
    static const float powers[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f, 1e7f, 1e8f, 1e9f, 1e10f};
    decimal_float number;
    if (!scan_float(s, n, &number)) {
        return MALFORMED;
    }
    if (number.digits == 0 && number.exact) {
        *out = 0;
    } else if (number.exact && number.digits <= 1u << 24 && number.power >= -10 && number.power <= 10) {
        float f = (float)number.digits;
        uint32_t bits;
        f = number.power < 0 ? f / powers[-number.power] : f * powers[number.power];
        memcpy(&bits, &f, 4);
        *out = bits;
    } else if (!number.exact || !multiply_float(number.digits, number.power, 24, -126, 127, out)) {
        int status = library_float(s, n, 1, out);
        *out &= INT32_MAX;
        if (status != OK || *out == 0x7F800000u) {
            return status == OK ? MALFORMED : status;
        }
    }
    *out |= (uint64_t)number.negative << 31;
    return OK;
}

/* `in_key`: values that PostgreSQL calls equal become the same bytes, so -0 becomes 0. */
static inline int encode_float64(const uint8_t *s, size_t n, int in_key, buffer *out) {
    uint64_t bits;
    if (!named_float(s, n, 0x7FF8000000000000u, 0x7FF0000000000000u, (uint64_t)1 << 63, &bits)) {
        int status = double_bits(s, n, &bits);
        if (status != OK) {
            return status;
        }
    }
    if (!buffer_reserve(out, 8)) {
        return NO_MEMORY;
    }
    store64(out->data + out->len, in_key && bits << 1 == 0 ? 0 : bits);
    out->len += 8;
    return OK;
}

static inline int encode_float32(const uint8_t *s, size_t n, int in_key, buffer *out) {
    uint64_t bits;
    if (!named_float(s, n, 0x7FC00000u, 0x7F800000u, 0x80000000u, &bits)) {
        int status = single_bits(s, n, &bits);
        if (status != OK) {
            return status;
        }
    }
    if (!buffer_reserve(out, 4)) {
        return NO_MEMORY;
    }
    store32(out->data + out->len, in_key && (uint32_t)bits << 1 == 0 ? 0 : (uint32_t)bits);
    out->len += 4;
    return OK;
}

#endif
