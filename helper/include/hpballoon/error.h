/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: how failures are told
 *
 * Creating things fails with a GError that names the memory, the reason and
 * the remedy. Work on ranges answers each range with 0 or a negative errno,
 * because a request has thousands of ranges and its caller must not allocate
 * for them; HpbOutcome says what such an errno means for what happens next.
 *
 * Rejected: a GError per range (allocates when memory is short), and raw errno
 * alone (every caller would need its own table).
 */
#ifndef HPBALLOON_ERROR_H
#define HPBALLOON_ERROR_H

#include <glib.h>

G_BEGIN_DECLS

#define HPB_ERROR (hpb_error_quark())

/* Codes in the domain HPB_ERROR. Values are ABI: new ones are appended. */
typedef enum HpbError {
    HPB_ERROR_INVALID,      /* the description is wrong or contradicts itself */
    /*
     * a private mapping of a file: freeing it would change the file for
     * others, or bring old file contents back into the guest
     */
    HPB_ERROR_PRIVATE_FILE,
    HPB_ERROR_READ_ONLY,    /* file, seal or mapping does not allow it */
    HPB_ERROR_UNSUPPORTED,  /* kernel, file system or file type cannot do it */
    HPB_ERROR_SYSTEM,       /* a system call failed; the message has errno */
} HpbError;

GQuark hpb_error_quark(void);

/*
 * What a range's error means for its caller. Values are ABI: new ones are
 * appended, so a switch over them needs a default.
 */
typedef enum HpbOutcome {
    HPB_OUTCOME_OK,         /* done */
    HPB_OUTCOME_INVALID,    /* the range is not one of this memory: never retry */
    HPB_OUTCOME_CANCELED,   /* not looked at, the caller asked to stop */
    HPB_OUTCOME_DENIED,     /* host does not allow or cannot do it: never retry */
    HPB_OUTCOME_NO_MEMORY,  /* host lacks memory for it now: retry later */
    HPB_OUTCOME_BUSY,       /* not possible now: retry later */
    HPB_OUTCOME_IO,         /* host failed: contents of the range are unknown */
} HpbOutcome;

/*
 * @error: 0 or a negative errno from HpbResult.error. Every value has an
 * outcome; one that the library never returns is HPB_OUTCOME_IO.
 */
HpbOutcome hpb_outcome_from_error(int error);

/*
 * Stable lower-case word for traces and counters ("ok", "no-memory", ...);
 * "unknown" for a value outside the enum. Never NULL, never freed.
 */
const char *hpb_outcome_name(HpbOutcome outcome);

G_END_DECLS

#endif /* HPBALLOON_ERROR_H */
