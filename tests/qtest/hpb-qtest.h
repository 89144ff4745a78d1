/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of virtio-balloon-hp for qtest
 *
 * Theory of operation: a test plays the guest driver. This library gives it a
 * machine with the device (Hpb), a split ring for each queue and requests
 * (HpbReq) of which every byte and every descriptor can be wrong. It knows the
 * wire header only, nothing of the device's code, so that a misreading
 * in the device is not repeated here.
 *
 * Every answer that is collected goes through the same check of what holds for
 * all answers (used length, untouched bytes behind it, order and sum of
 * exceptions: DEV-8, DEV-16, DEV-17), so that each test proves these too.
 *
 * libqos finds the device on the PCI bus and maps it. Everything above that is
 * done here, because libqos cannot build malformed chains, hands out
 * descriptors it never takes back, and has no modern virtio-mmio.
 *
 * Guest memory: HPB_LOW_START..HPB_LOW_END holds rings, headers and responses;
 * ranges are taken from HPB_RAM_START upwards.
 */
#ifndef HPB_QTEST_H
#define HPB_QTEST_H

#include "libqtest.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"
#include "standard-headers/linux/virtio_balloon_hp.h"

#define HPB_ID              "balloon0"
#define HPB_PATH            "/machine/peripheral/" HPB_ID
#define HPB_SLOT            4
#define HPB_MMIO_BASE       0xfeb00000ULL

#define HPB_LOW_START       (1 * MiB)
#define HPB_LOW_END         (16 * MiB)
#define HPB_RAM_START       (16 * MiB)
#define HPB_QUEUE_MAX       1024
/* Longest time that a test waits for anything; only a broken device needs it */
#define HPB_TIMEOUT_US      (60 * G_USEC_PER_SEC)
/* Exceptions that a request has room for unless the test says otherwise */
#define HPB_ROOM            64

/* -device arguments; the tests add properties with a comma in front */
#define HPB_DEV_PCI         "-device virtio-balloon-hp-pci,id=" HPB_ID \
                            ",addr=04.0"
#define HPB_DEV_MMIO        "-global virtio-mmio.force-legacy=false -device " \
                            "virtio-balloon-hp-device,id=" HPB_ID \
                            ",bus=virtio-mmio-bus.0"
#define HPB_PC              "-machine pc -nodefaults "
#define HPB_Q35             "-machine q35 -nodefaults "
#define HPB_MICROVM         "-machine microvm -nodefaults "

enum { HPB_ISR_QUEUE = 1, HPB_ISR_CONFIG = 2 };

/* One descriptor as it stands in the table; F_NEXT and next are filled in */
typedef struct HpbDesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
} HpbDesc;

typedef struct HpbReq HpbReq;

/* A split virtqueue, and which request each head belongs to */
typedef struct HpbQueue {
    uint16_t size;
    uint64_t desc, avail, used;
    uint64_t notify;
    uint16_t avail_idx, used_idx;
    uint16_t nfree;
    uint16_t free[HPB_QUEUE_MAX];
    uint16_t next[HPB_QUEUE_MAX];
    HpbReq *owner[HPB_QUEUE_MAX];
    uint32_t used_len;          /* of the last chain that came back */
} HpbQueue;

/* A machine with the device, and the state of its driver */
typedef struct Hpb {
    QTestState *qts;
    unsigned refs;              /* one of the test, one of each request */
    bool mmio;
    uint64_t common, isr, cfg;  /* guest-physical register blocks */
    uint64_t notify;
    uint32_t notify_mult;
    uint64_t features;
    int ram_fd;                 /* file of all RAM if it is a memfd, or -1 */
    uint64_t unit;              /* config.unit */
    uint64_t heap;              /* next free byte of low memory */
    uint8_t isr_seen;           /* HPB_ISR_* since last taken */
    HpbQueue vq[VIRTIO_BALLOON_HP_VQ_MAX];
} Hpb;

typedef struct HpbExc {
    uint32_t first, count;
    uint16_t status;
} HpbExc;

/*
 * A request. hpb_req() fills in what a good driver would send; a test then
 * changes what it wants to be wrong, before hpb_submit().
 */
struct HpbReq {
    Hpb *h;
    unsigned vq;
    uint16_t type, flags;
    uint32_t resp_size;         /* as the header says */
    uint32_t resp_len;          /* bytes of the response in the chain */
    uint64_t size;              /* sum of the ranges; a test may lie after */
    bool indirect;              /* table of descriptors of its own */
    uint32_t hdr_len;           /* bytes of the header that are sent */
    uint32_t cut_hdr, cut_resp; /* cut descriptor after so many bytes; 0: not */
    GArray *ranges;             /* HpbDesc */

    bool join;                  /* response and first range: one descriptor */
    uint64_t hdr, resp;         /* where these are; a test may place them */
    uint16_t head;

    bool answered;
    uint32_t used_len;
    uint16_t status, resp_flags;
    uint64_t done;
    GArray *exc;                /* HpbExc */
};

/*
 * hpb_attach: drive the machine @qts, which belongs to the result from now on
 * hpb_start: start QEMU with @fmt as arguments, without touching the device
 * hpb_quit: end it; requests may still be freed after that
 * hpb_put: drop a reference to @h
 */
Hpb *hpb_attach(QTestState *qts);
Hpb *hpb_start(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void hpb_quit(Hpb *h);
void hpb_put(Hpb *h);
/* Find the device at HPB_SLOT of the PCI bus, or at the first mmio transport */
void hpb_probe_pci(Hpb *h);
void hpb_probe_mmio(Hpb *h);
/*
 * hpb_driver_init: reset, negotiate what the device offers of @mask (bits of
 * features besides VERSION_1), set up all queues, DRIVER_OK
 */
void hpb_driver_init(Hpb *h, uint64_t mask);
/* All features of the device's own section, and indirect descriptors */
#define HPB_FEATURES ((1ULL << VIRTIO_RING_F_INDIRECT_DESC) | \
                      (1ULL << VIRTIO_BALLOON_HP_F_STATS) | \
                      (1ULL << VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) | \
                      (1ULL << VIRTIO_BALLOON_HP_F_REPORTING))
/* pc machine of 256 MiB, device with @props (",name=value"...), driver ready */
Hpb *hpb_boot(const char *props);
/* hpb_boot with @mem in place of the memory arguments */
Hpb *hpb_boot_mem(const char *mem, const char *props);

uint64_t hpb_offered(Hpb *h);
uint8_t hpb_status(Hpb *h);
void hpb_set_status(Hpb *h, uint8_t status);
/* Write 0 to the status and forget all requests; the device is then pristine */
void hpb_reset(Hpb *h);
/* Take one queue through its reset (VIRTIO_F_RING_RESET); it stays disabled */
void hpb_queue_reset(Hpb *h, unsigned vq);
void hpb_queue_setup(Hpb *h, unsigned vq);
/* Interrupt causes since the last call */
uint8_t hpb_isr(Hpb *h);
/* Continue on @qts, to which the machine of @h was migrated */
void hpb_migrated(Hpb *h, QTestState *qts);

uint64_t hpb_cfg64(Hpb *h, unsigned offset);
uint32_t hpb_cfg32(Hpb *h, unsigned offset);
#define HPB_CFG(h, field) \
    (sizeof(((struct virtio_balloon_hp_config *)0)->field) == 8 ? \
     hpb_cfg64(h, offsetof(struct virtio_balloon_hp_config, field)) : \
     hpb_cfg32(h, offsetof(struct virtio_balloon_hp_config, field)))

/* @len bytes of low memory, 16-byte aligned; never given back before reset */
uint64_t hpb_alloc(Hpb *h, size_t len);
/*
 * Find the memory file of the machine. From then on fill and compare use it
 * and not the qtest socket, which takes a minute for a gigabyte. Only for
 * RAM that is one piece and in one memfd, from address 0.
 */
void hpb_use_ram_file(Hpb *h);
/* Fill with and compare with one value */
void hpb_fill(Hpb *h, uint64_t addr, uint64_t len, uint8_t value);
bool hpb_filled(Hpb *h, uint64_t addr, uint64_t len, uint8_t value);

/* A well-formed request without ranges; freed with hpb_req_free() */
HpbReq *hpb_req(Hpb *h, unsigned vq, uint16_t type);
#define hpb_inflate(h) \
    hpb_req(h, VIRTIO_BALLOON_HP_VQ_INFLATE, VIRTIO_BALLOON_HP_REQ_INFLATE)
#define hpb_deflate(h) \
    hpb_req(h, VIRTIO_BALLOON_HP_VQ_DEFLATE, VIRTIO_BALLOON_HP_REQ_DEFLATE)
#define hpb_report(h) \
    hpb_req(h, VIRTIO_BALLOON_HP_VQ_REPORTING, VIRTIO_BALLOON_HP_REQ_REPORT)
void hpb_req_free(HpbReq *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbReq, hpb_req_free)
/* Append a range; more than 1 GiB becomes several descriptors. Returns @r */
HpbReq *hpb_range(HpbReq *r, uint64_t addr, uint64_t len);
/* Room for @n exceptions */
HpbReq *hpb_room(HpbReq *r, unsigned n);

/* Make available, without and with telling the device */
void hpb_add(HpbReq *r);
void hpb_kick(Hpb *h, unsigned vq);
void hpb_submit(HpbReq *r);
/* Collect what has been answered; returns the number of new answers */
unsigned hpb_collect(Hpb *h, unsigned vq);
/* Wait for the answer and check what holds for all answers */
void hpb_wait(HpbReq *r);
/* Submit and wait; returns the status */
uint16_t hpb_ask(HpbReq *r);
/* Wait for the next answer (true) or for the device to ask for a reset */
bool hpb_answered(Hpb *h, unsigned vq);
/* Submit, then wait until the device asks for a reset; it must not answer */
void hpb_ask_broken(HpbReq *r);
void hpb_wait_broken(Hpb *h);
/* Ask and compare the whole answer; the list of exceptions ends with count 0 */
void hpb_expect(HpbReq *r, uint16_t status, uint64_t done, const HpbExc *exc);
/* Inflate, deflate one range and expect success */
void hpb_take(Hpb *h, uint64_t addr, uint64_t len);
void hpb_give(Hpb *h, uint64_t addr, uint64_t len);

/* The request with @len bytes of @state behind the header */
HpbReq *hpb_state_req(Hpb *h, const struct virtio_balloon_hp_state *state,
                      size_t len);
/* Tell the device how the guest stands; expects success */
void hpb_tell(Hpb *h, uint16_t stop, uint64_t requested, uint64_t available,
              uint64_t wanted);

/* Raw access to a ring, for chains that no request can have */
void hpb_desc_write(Hpb *h, uint64_t table, unsigned i, uint64_t addr,
                    uint32_t len, uint16_t flags, uint16_t next);
void hpb_avail_push(Hpb *h, unsigned vq, uint16_t head);
/* Make a chain of @n descriptors available, and kick */
void hpb_chain(Hpb *h, unsigned vq, const HpbDesc *desc, unsigned n,
               bool indirect);

/* QMP */
void hpb_qmp_balloon(Hpb *h, int64_t bytes);
uint64_t hpb_qmp_query(Hpb *h);
/* A number in the property "counters"; @path as in "refused.inval" */
uint64_t hpb_counter(Hpb *h, const char *path);
/* Expect @out bytes out: configuration space, query-balloon */
void hpb_check_out(Hpb *h, uint64_t ram, uint64_t out);

/* The groups of tests */
void hpb_add_config_tests(void);
void hpb_add_request_tests(void);
void hpb_add_malformed_tests(void);
void hpb_add_queue_tests(void);
void hpb_add_stats_tests(void);
void hpb_add_guest_tests(void);
void hpb_add_session_tests(void);
void hpb_add_target_tests(void);
void hpb_add_memory_tests(void);
void hpb_add_grow_tests(void);
void hpb_add_machine_tests(void);
void hpb_add_migrate_tests(void);
void hpb_add_live_tests(void);
void hpb_add_load_tests(void);
void hpb_add_nodes_tests(void);
void hpb_add_stress_tests(void);

#endif
