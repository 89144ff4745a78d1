/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <sys/mman.h>
#include <hpballoon/hpballoon.h>

int main(void)
{
    const uint64_t mib = 1024 * 1024ULL;
    HpbMemoryDesc desc = HPB_MEMORY_DESC_INIT;
    HpbRange ranges[] = { { 2 * mib, 4 * mib }, { 16 * mib, 2 * mib } };
    HpbResult results[G_N_ELEMENTS(ranges)];
    HpbSummary sum;
    g_autoptr(HpbMemory) mem = NULL;
    g_autoptr(GError) err = NULL;

    desc.name = "example";
    desc.length = 64 * mib;
    desc.host = mmap(NULL, desc.length, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mem = hpb_memory_new(&desc, &err);
    if (!mem) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    if (!hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges), results, NULL)) {
        for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
            HpbOutcome outcome = hpb_outcome_from_error(results[i].error);

            fprintf(stderr, "range %zu: %s after %llu bytes\n", i,
                    hpb_outcome_name(outcome),
                    (unsigned long long)results[i].done);
        }
        return 1;
    }
    /* Ask for it before somebody touches it */
    if (!hpb_memory_populate(mem, ranges, G_N_ELEMENTS(ranges), 2 * mib, NULL,
                             NULL) ||
        hpb_memory_summary(mem, &ranges[0], &sum, NULL)) {
        fprintf(stderr, "no memory, or not to be seen\n");
        return 1;
    }
    printf("%s memory, freed by %s, %llu MiB back, %llu of them in huge pages\n",
           hpb_backing_name(hpb_memory_backing(mem)),
           hpb_method_name(hpb_memory_method(mem)),
           (unsigned long long)(sum.held / mib),
           (unsigned long long)(sum.huge / mib));
    return 0;
}
