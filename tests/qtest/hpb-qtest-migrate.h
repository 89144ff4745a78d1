/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of virtio-balloon-hp for qtest: moving the machine
 *
 * Theory of operation: the driver goes on with the same rings on the
 * destination (hpb_migrated()), so that whatever the device forgets shows up
 * as a wrong answer.
 */
#ifndef HPB_QTEST_MIGRATE_H
#define HPB_QTEST_MIGRATE_H

#include "hpb-qtest.h"

/* A directory for sockets and files, gone with its contents at the end */
typedef struct HpbDir {
    char *path, *sock, *file, *log;
    char *uri, *file_uri;
} HpbDir;

void hpb_dir_init(HpbDir *d);
void hpb_dir_done(HpbDir *d);
/* Start a destination with @args; what it says goes to @d->log */
QTestState *hpb_start_incoming(const char *args, HpbDir *d);
void hpb_incoming(QTestState *to, const char *uri);
void hpb_migrate(QTestState *from, const char *uri);
/* As query-migrate has it; the caller frees it */
char *hpb_migration_status(QTestState *qts);
/* Wait until the migration of @qts has ended; true if it worked */
bool hpb_migration_ended(QTestState *qts);
void hpb_wait_running(QTestState *qts, bool running);
/* Live, through a socket; @h continues on the destination */
void hpb_move(Hpb *h, QTestState *to, HpbDir *d);
/*
 * The same in pieces, at most @bandwidth bytes a second until it is finished:
 * begin; wait until @bytes have been sent, and it still goes on; end
 */
void hpb_move_start(Hpb *h, QTestState *to, HpbDir *d, uint64_t bandwidth);
void hpb_wait_sent(Hpb *h, uint64_t bytes);
void hpb_move_finish(Hpb *h, QTestState *to);
/* migrate-set-parameters of one number, migrate-set-capabilities of one */
void hpb_migrate_parameter(QTestState *qts, const char *name, uint64_t value);
void hpb_migrate_capability(QTestState *qts, const char *name);
/* A number of query-migrate's "ram"; 0 as long as there is none */
uint64_t hpb_migrate_stat(QTestState *qts, const char *name);

#endif
