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
    printf("%s memory, freed by %s\n",
           hpb_backing_name(hpb_memory_backing(mem)),
           hpb_method_name(hpb_memory_method(mem)));
    return 0;
}
