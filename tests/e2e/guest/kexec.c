// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-kexec: boot another kernel without going through the firmware
 *
 * The kernel's own shutdown runs (reboot notifiers, drivers' shutdown), the
 * machine is not reset: what devices know of the old kernel is what its drivers
 * left behind. kexec-tools was rejected: this is one system call.
 *
 *   hpb-kexec KERNEL INITRD COMMAND-LINE
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: hpb-kexec KERNEL INITRD COMMAND-LINE\n");
        return 2;
    }
    if (syscall(SYS_kexec_file_load, open_file(argv[1]), open_file(argv[2]),
                strlen(argv[3]) + 1, argv[3], 0UL)) {
        perror("kexec_file_load");
        return 1;
    }
    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
            LINUX_REBOOT_CMD_KEXEC, NULL);
    perror("reboot");
    return 1;
}
