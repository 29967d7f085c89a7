/* GEOMETRY: PostGIS's hexadecimal EWKB to WKT behind its SRID, as codecs/geometry.py describes it. */
#ifndef PENSTOCK_GEOMETRY_H
#define PENSTOCK_GEOMETRY_H

#include <math.h>
#include <stdio.h>

#include "floats.h"
#include "texts.h"

#define MOST_SHAPE_LEVELS 32

typedef struct {
    const uint8_t *data;
    size_t place, len;
    int big; /* byte order */
    int width;
    buffer *out;
} ewkb;

static int ewkb_u32(ewkb *e, uint32_t *out) {
    const uint8_t *p = e->data + e->place;
    if (e->len - e->place < 4) {
        return 0;
    }
    *out = e->big ? load_be32(p) : (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
    e->place += 4;
    return 1;
}

static int ewkb_text(ewkb *e, const char *text) {
    return buffer_append(e->out, text, strlen(text));
}

/* The shortest of 15 to 17 digits that comes back as the same number. */
static int ewkb_number(ewkb *e, double number) {
    char text[32];
    int digits;
    for (digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (digits == 17 || strtod_l(text, NULL, c_locale) == number) {
            break;
        }
    }
    return ewkb_text(e, isnan(number) ? "nan" : text);
}

/* The numbers of one point. `empty`: all are NaN, and nothing was written. */
static int ewkb_point(ewkb *e, int *empty) {
    double numbers[4];
    int i, nans = 0;
    if (e->len - e->place < (size_t)e->width * 8) {
        return 0;
    }
    for (i = 0; i < e->width; i++, e->place += 8) {
        uint64_t bits = e->big ? load_be64(e->data + e->place) : load_le64(e->data + e->place);
        memcpy(&numbers[i], &bits, 8);
        nans += isnan(numbers[i]) != 0;
    }
    if (empty != NULL && (*empty = nans == e->width)) {
        return 1;
    }
    for (i = 0; i < e->width; i++) {
        if ((i && !ewkb_text(e, " ")) || !ewkb_number(e, numbers[i])) {
            return 0;
        }
    }
    return 1;
}

static int ewkb_points(ewkb *e, uint32_t *count) {
    uint32_t i;
    if (!ewkb_u32(e, count)) {
        return 0;
    }
    for (i = 0; i < *count; i++) {
        if ((i && !ewkb_text(e, ",")) || !ewkb_point(e, NULL)) {
            return 0;
        }
    }
    return 1;
}

static int ewkb_rings(ewkb *e, uint32_t *count) {
    uint32_t i, points;
    if (!ewkb_u32(e, count)) {
        return 0;
    }
    for (i = 0; i < *count; i++) {
        if (!ewkb_text(e, i ? ",(" : "(") || !ewkb_points(e, &points) || !ewkb_text(e, ")")) {
            return 0;
        }
    }
    return 1;
}

static const char *const shape_names[] = {NULL, "POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON",
                                          "GEOMETRYCOLLECTION", "CIRCULARSTRING", "COMPOUNDCURVE", "CURVEPOLYGON", "MULTICURVE",
                                          "MULTISURFACE", NULL, NULL, "POLYHEDRALSURFACE", "TIN", "TRIANGLE"};
/* The members that stand in a collection without their name. */
static const uint32_t shape_untagged[] = {0, 0, 0, 0, 1, 2, 3, 0, 0, 2, 2, 2, 3, 0, 0, 3, 17, 0};

static int ewkb_shape(ewkb *e, uint32_t untagged, int level, int32_t *srid);

/* What stands between the brackets; `empty` when nothing does. */
static int ewkb_body(ewkb *e, uint32_t kind, int level, int *empty) {
    uint32_t count = 1, i;
    int32_t inner;
    if (kind == 1) {
        return ewkb_point(e, empty);
    }
    if (kind == 2 || kind == 8) {
        if (!ewkb_points(e, &count)) {
            return 0;
        }
    } else if (kind == 3 || kind == 17) {
        if (!ewkb_rings(e, &count)) {
            return 0;
        }
    } else {
        if (!ewkb_u32(e, &count)) {
            return 0;
        }
        for (i = 0; i < count; i++) {
            if ((i && !ewkb_text(e, ",")) || !ewkb_shape(e, shape_untagged[kind], level + 1, &inner)) {
                return 0;
            }
        }
    }
    *empty = count == 0;
    return 1;
}

static int ewkb_shape(ewkb *e, uint32_t untagged, int level, int32_t *srid) {
    uint32_t flags, kind, number = 0;
    size_t start, body;
    int empty = 0, has_z, has_m;
    if (level == MOST_SHAPE_LEVELS || e->place >= e->len || e->data[e->place] > 1) {
        return 0;
    }
    e->big = e->data[e->place++] == 0;
    if (!ewkb_u32(e, &flags)) {
        return 0;
    }
    kind = flags & 0x0FFFFFFFu;
    if (kind >= sizeof shape_names / sizeof *shape_names || shape_names[kind] == NULL ||
        ((flags & 0x20000000u) && !ewkb_u32(e, &number))) {
        return 0;
    }
    *srid = (int32_t)number;
    if (level == 0 && *srid != 0) {
        char text[32];
        snprintf(text, sizeof text, "SRID=%d;", *srid);
        if (!ewkb_text(e, text)) {
            return 0;
        }
    }
    has_z = (flags & 0x80000000u) != 0;
    has_m = (flags & 0x40000000u) != 0;
    e->width = 2 + has_z + has_m;
    start = e->out->len;
    if (kind != untagged && (!ewkb_text(e, shape_names[kind]) || !ewkb_text(e, has_z ? has_m ? " ZM " : " Z " : has_m ? " M " : ""))) {
        return 0;
    }
    body = e->out->len;
    if (!ewkb_text(e, "(") || !ewkb_body(e, kind, level, &empty)) {
        return 0;
    }
    if (!empty) {
        return ewkb_text(e, ")");
    }
    e->out->len = body;
    return ewkb_text(e, body == start || e->out->data[body - 1] == ' ' ? "EMPTY" : " EMPTY");
}

static int encode_geometry(const uint8_t *s, size_t n, buffer *out) {
    buffer raw = {NULL, 0, 0}, text = {NULL, 0, 0};
    ewkb e = {NULL, 0, 0, 0, 2, &text};
    int32_t srid;
    int understood, status;
    locale_t before = uselocale(c_locale);
    understood = n >= 2 && n % 2 == 0 && buffer_reserve(&raw, n / 2) && unhex(s, n / 2, raw.data);
    if (understood) {
        e.data = raw.data;
        e.len = n / 2;
        understood = ewkb_shape(&e, 0, 0, &srid) && e.place == e.len;
    }
    uselocale(before);
    status = understood ? encode_string(text.data, text.len, out) : encode_string(s, n, out);
    buffer_free(&raw);
    buffer_free(&text);
    return status;
}

#endif
