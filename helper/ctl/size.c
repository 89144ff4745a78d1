/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: sizes, as people write and read them
 *
 * Not a step of the data path. Exact where it can be: whole numbers are
 * computed in integers, a fraction counts up to nine digits and is rounded
 * down to the byte. Rejected: strtod(), which is inexact for large
 * sizes, depends on the locale, and takes "0x1p30", "inf" and "nan".
 */
#include <string.h>
#include "ctl.h"

#define FRACTION_DIGITS 9
#define FRACTION_SCALE 1000000000ULL

/* Bits that the unit shifts by, or -1 */
static int unit_shift(const char *text)
{
    static const char letters[] = "KMGT";
    const char *found;

    if (!g_ascii_strcasecmp(text, "B")) {
        return 0;
    }
    found = text[0] ? strchr(letters, g_ascii_toupper(text[0])) : NULL;
    if (!found || (text[1] && g_ascii_strcasecmp(text + 1, "iB"))) {
        return -1;
    }
    return 10 * (int)(found - letters + 1);
}

/* Digits behind the point, in units of 1 / FRACTION_SCALE */
static guint64 parse_fraction(const char **text)
{
    guint64 value = 0, weight = FRACTION_SCALE / 10;

    for (int i = 0; g_ascii_isdigit(**text); (*text)++, i++) {
        if (i < FRACTION_DIGITS) {
            value += (guint64)(**text - '0') * weight;
            weight /= 10;
        }
    }
    return value;
}

gboolean hpbctl_size_parse(const char *text, guint64 *size, GError **err)
{
    const char *at = text;
    guint64 whole, fraction = 0;
    char *end;
    int shift;

    if (!g_ascii_isdigit(*at)) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE,
                    "'%s' is not a size; write one like 2G, 1.5G or 1500M",
                    text);
        return FALSE;
    }
    whole = g_ascii_strtoull(at, &end, 10);
    at = end;
    if (*at == '.') {
        at++;
        if (!g_ascii_isdigit(*at)) {
            g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE,
                        "'%s' has no digit behind the point; write a size "
                        "like 1.5G", text);
            return FALSE;
        }
        fraction = parse_fraction(&at);
    }
    if (!*at) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE,
                    "'%s' has no unit; write %sM for mebibytes, %sG for "
                    "gibibytes or %sB for bytes", text, text, text, text);
        return FALSE;
    }
    shift = unit_shift(at);
    if (shift < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE,
                    "'%s' has an unknown unit '%s'; there are B, K, M, G, T",
                    text, at);
        return FALSE;
    }
    /* QEMU's sizes are signed */
    if (whole > (guint64)G_MAXINT64 >> shift) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE,
                    "'%s' is more than a machine can have", text);
        return FALSE;
    }
    *size = (whole << shift) +
            (guint64)((__uint128_t)fraction * ((guint64)1 << shift) /
                      FRACTION_SCALE);
    return TRUE;
}

char *hpbctl_size_format(guint64 size)
{
    static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    unsigned unit = 0;

    while (unit + 1 < G_N_ELEMENTS(names) && size >> (10 * (unit + 1))) {
        unit++;
    }
    /* A mebibyte more or less is what people look for, so not 1023.5 GiB */
    if (unit > 2 && size & (((guint64)1 << (10 * unit)) - 1) &&
        !(size & ((1 << 20) - 1)) && size >> 20 < 100000) {
        unit = 2;
    }
    if (!(size & (((guint64)1 << (10 * unit)) - 1))) {
        return g_strdup_printf("%" G_GUINT64_FORMAT " %s", size >> (10 * unit),
                               names[unit]);
    }
    return g_strdup_printf("%.2f %s",
                           (double)size / (double)((guint64)1 << (10 * unit)),
                           names[unit]);
}
