/* DATE32, DATETIME64, TIME64: PostgreSQL's ISO texts → days or microseconds, held within the server's range. */
#ifndef PENSTOCK_MOMENTS_H
#define PENSTOCK_MOMENTS_H

#include "buffer.h"

#define SECOND INT64_C(1000000)
#define DAY_SECONDS INT64_C(86400)
/* Beyond these days microseconds no longer fit 64 bits, so they are out of every range. */
#define DAYS_OF_MICROSECONDS INT64_C(106000000)

/* Days since 1970-01-01 of a day in the Gregorian calendar, carried on before its start; the year 0 is 1 BC. */
static inline int64_t days_of(int64_t year, unsigned month, unsigned day) {
    int64_t era;
    unsigned in_era, in_year;
    year -= month <= 2; /* years begin in March: leap days come last */
    era = (year >= 0 ? year : year - 399) / 400;
    in_era = (unsigned)(year - era * 400);
    in_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + (int64_t)(in_era * 365 + in_era / 4 - in_era / 100 + in_year) - 719468;
}

static inline int month_days(int64_t year, unsigned month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : days[month - 1];
}

/* Two digits; 100 or more when they are none. */
static inline unsigned two_digits(const uint8_t *s) {
    unsigned tens = (unsigned)s[0] - '0', ones = (unsigned)s[1] - '0';
    return tens > 9 || ones > 9 ? 100 : tens * 10 + ones;
}

typedef struct {
    int64_t year;
    unsigned month, day;
} calendar_day;

/* YYYY-MM-DD with 4 to 7 digits of year; where it ends, NULL when it is none. The day itself is judged by day_number. */
static inline const uint8_t *scan_day(const uint8_t *s, const uint8_t *end, calendar_day *out) {
    const uint8_t *first = s;
    int64_t year = 0;
    for (; s < end && *s >= '0' && *s <= '9' && s - first < 8; s++) {
        year = year * 10 + (*s - '0');
    }
    if (s - first < 4 || s - first > 7 || end - s < 6 || s[0] != '-' || s[3] != '-') {
        return NULL;
    }
    out->year = year;
    out->month = two_digits(s + 1);
    out->day = two_digits(s + 4);
    return s + 6;
}

static inline int day_number(const calendar_day *day, int before_christ, int64_t *out) {
    int64_t year = before_christ ? 1 - day->year : day->year;
    if (day->year < 1 || day->month < 1 || day->month > 12 || day->day < 1 || (int)day->day > month_days(year, day->month)) {
        return 0;
    }
    *out = days_of(year, day->month, day->day);
    return 1;
}

/* HH:MM:SS[.f{1,6}] in microseconds; hours are not judged. Where it ends, NULL when it is none. */
static inline const uint8_t *scan_clock(const uint8_t *s, const uint8_t *end, unsigned *hours, int64_t *out) {
    unsigned minutes, seconds, fraction = 0;
    int digits = 0;
    if (end - s < 8 || s[2] != ':' || s[5] != ':') {
        return NULL;
    }
    *hours = two_digits(s);
    minutes = two_digits(s + 3);
    seconds = two_digits(s + 6);
    if (*hours > 99 || minutes > 59 || seconds > 59) {
        return NULL;
    }
    s += 8;
    if (s < end && *s == '.') {
        for (s++; s < end && *s >= '0' && *s <= '9'; s++) {
            fraction = fraction * 10 + (*s - '0');
            if (++digits > 6) {
                return NULL;
            }
        }
        if (digits == 0) {
            return NULL;
        }
        for (; digits < 6; digits++) {
            fraction *= 10;
        }
    }
    *out = ((int64_t)*hours * 3600 + minutes * 60 + seconds) * SECOND + fraction;
    return s;
}

/* [+-]HH[:MM[:SS]] or nothing, in microseconds ahead of UTC. */
static inline const uint8_t *scan_offset(const uint8_t *s, const uint8_t *end, int64_t *out) {
    unsigned part[3] = {0, 0, 0};
    int behind, i;
    *out = 0;
    if (s == end || (*s != '+' && *s != '-')) {
        return s;
    }
    behind = *s++ == '-';
    for (i = 0; i < 3 && (i == 0 || (s < end && *s == ':')); i++) {
        s += i > 0;
        if (end - s < 2) {
            return NULL;
        }
        part[i] = two_digits(s);
        s += 2;
    }
    if (part[0] > 15 || part[1] > 59 || part[2] > 59) {
        return NULL;
    }
    *out = ((int64_t)part[0] * 3600 + part[1] * 60 + part[2]) * (behind ? -SECOND : SECOND);
    return s;
}

/* The end of the text, after " BC" or not. */
static inline int scan_era(const uint8_t *s, const uint8_t *end, int *before_christ) {
    *before_christ = end - s == 3 && !memcmp(s, " BC", 3);
    return *before_christ || s == end;
}

/* 1 for infinity, -1 for -infinity. */
static inline int infinite(const uint8_t *s, size_t n) {
    if (n == 8 && !memcmp(s, "infinity", 8)) {
        return 1;
    }
    return n == 9 && !memcmp(s, "-infinity", 9) ? -1 : 0;
}

static inline int encode_date32(const uint8_t *s, size_t n, int64_t low, int64_t high, buffer *out) {
    const uint8_t *end = s + n, *rest;
    calendar_day day;
    int64_t number;
    int before_christ, side, status = OK;
    rest = scan_day(s, end, &day);
    if (rest == NULL) {
        side = infinite(s, n);
        if (!side) {
            return MALFORMED;
        }
        number = side < 0 ? low : high;
        status = UNFIT_INFINITY;
    } else {
        if (!scan_era(rest, end, &before_christ) || !day_number(&day, before_christ, &number)) {
            return MALFORMED;
        }
        if (number < low || number > high) {
            number = number < low ? low : high;
            status = UNFIT_RANGE;
        }
    }
    if (!buffer_reserve(out, 4)) {
        return NO_MEMORY;
    }
    store32(out->data + out->len, (uint32_t)number);
    out->len += 4;
    return status;
}

/* Microseconds of a timestamp; UNFIT_RANGE with the number's side (±1) when 64 bits cannot hold them. */
static inline int parse_timestamp(const uint8_t *s, const uint8_t *end, int64_t *out) {
    calendar_day day;
    int64_t days, clock, ahead;
    unsigned hours;
    int before_christ;
    s = scan_day(s, end, &day);
    if (s == NULL || s == end || *s != ' ') {
        return MALFORMED;
    }
    s = scan_clock(s + 1, end, &hours, &clock);
    if (s == NULL || hours > 23) {
        return MALFORMED;
    }
    s = scan_offset(s, end, &ahead);
    if (s == NULL || !scan_era(s, end, &before_christ) || !day_number(&day, before_christ, &days)) {
        return MALFORMED;
    }
    if (days < -DAYS_OF_MICROSECONDS || days > DAYS_OF_MICROSECONDS) {
        *out = days < 0 ? -1 : 1;
        return UNFIT_RANGE;
    }
    *out = days * DAY_SECONDS * SECOND + clock - ahead;
    return OK;
}

static inline int encode_datetime64(const uint8_t *s, size_t n, int64_t low, int64_t high, buffer *out) {
    int64_t number;
    int status = parse_timestamp(s, s + n, &number);
    if (status == OK) {
        if (number < low || number > high) {
            number = number < low ? low : high;
            status = UNFIT_RANGE;
        }
    } else {
        if (status == MALFORMED) {
            number = infinite(s, n);
            if (!number) {
                return MALFORMED;
            }
            status = UNFIT_INFINITY;
        }
        number = number < 0 ? low : high;
    }
    if (!buffer_reserve(out, 8)) {
        return NO_MEMORY;
    }
    store64(out->data + out->len, (uint64_t)number);
    out->len += 8;
    return status;
}

/* 00:00:00 to 24:00:00, which PostgreSQL allows. */
static inline int encode_time64(const uint8_t *s, size_t n, buffer *out) {
    int64_t number = 0;
    unsigned hours;
    if (scan_clock(s, s + n, &hours, &number) != s + n || number > DAY_SECONDS * SECOND) {
        return MALFORMED;
    }
    if (!buffer_reserve(out, 8)) {
        return NO_MEMORY;
    }
    store64(out->data + out->len, (uint64_t)number);
    out->len += 8;
    return OK;
}

#endif
