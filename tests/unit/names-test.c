/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unit tests of helper/lib/names.c: words and outcomes. */
#include <errno.h>
#include "support.h"

/* Known, and not used for anything else. */
static void check_word(GHashTable *seen, const char *word)
{
    g_assert_cmpstr(word, !=, "unknown");
    g_assert_true(g_hash_table_add(seen, g_strdup(word)));
}

static void test_words(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal,
                                                        g_free, NULL);

    for (int i = 0; i <= HPB_BACKING_HUGETLB_ANONYMOUS; i++) {
        check_word(seen, hpb_backing_name(i));
    }
    for (int i = 0; i <= HPB_METHOD_PUNCH_HOLE; i++) {
        check_word(seen, hpb_method_name(i));
    }
    for (int i = 0; i <= HPB_SCAN_BY_PAGEMAP; i++) {
        check_word(seen, hpb_scan_method_name(i));
    }
    for (int i = 0; i <= HPB_OUTCOME_IO; i++) {
        check_word(seen, hpb_outcome_name(i));
    }
    g_assert_cmpstr(hpb_backing_name(1000), ==, "unknown");
    g_assert_cmpstr(hpb_method_name(1000), ==, "unknown");
    g_assert_cmpstr(hpb_scan_method_name(1000), ==, "unknown");
    g_assert_cmpstr(hpb_outcome_name(1000), ==, "unknown");
}

static void test_outcomes(void)
{
    static const struct {
        int error;
        HpbOutcome outcome;
    } table[] = {
        { 0, HPB_OUTCOME_OK },
        { -EINVAL, HPB_OUTCOME_INVALID },
        { -ERANGE, HPB_OUTCOME_INVALID },
        { -ECANCELED, HPB_OUTCOME_CANCELED },
        { -EPERM, HPB_OUTCOME_DENIED },
        { -EROFS, HPB_OUTCOME_DENIED },
        { -ENOTSUP, HPB_OUTCOME_DENIED },
        { -ENOMEM, HPB_OUTCOME_NO_MEMORY },
        { -ENOSPC, HPB_OUTCOME_NO_MEMORY },
        { -EBUSY, HPB_OUTCOME_BUSY },
        { -EAGAIN, HPB_OUTCOME_BUSY },
        { -EIO, HPB_OUTCOME_IO },
        { -12345, HPB_OUTCOME_IO },
        { EPERM, HPB_OUTCOME_IO },      /* positive: not an answer of ours */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpint(hpb_outcome_from_error(table[i].error), ==,
                        table[i].outcome);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/names/words", test_words);
    g_test_add_func("/names/outcomes", test_outcomes);
    return g_test_run();
}
