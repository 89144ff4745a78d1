// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-agent: runs commands in the guest for the test harness
 *
 * Talks over a serial line of its own (the second one), so that kernel
 * messages and shell prompts cannot get between an answer's bytes:
 *
 *   harness:  ID COMMAND\n             COMMAND is a line for sh
 *   agent:    D ID LEN\n<LEN bytes>    output as it comes, any bytes
 *             E ID STATUS\n            exit status, 128 + N for a signal
 *
 * Prints "A 1\n" when it starts (protocol version). One command at a time.
 * qemu-guest-agent was rejected: it is not in the initrd's few megabytes.
 *
 *   hpb-agent TTY
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			exit(1);
		buf += n;
		len -= n;
	}
}

static int open_raw(const char *path)
{
	struct termios tio;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &tio)) {
		fprintf(stderr, "hpb-agent: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	cfmakeraw(&tio);
	cfsetspeed(&tio, B115200);
	tcsetattr(fd, TCSANOW, &tio);
	return fd;
}

static void run(int tty, const char *id, const char *command)
{
	char buf[4096], head[64];
	int pipefd[2], status, n;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC))
		exit(1);
	pid = fork();
	if (pid == 0) {
		setsid();
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(pipefd[1], 1);
		dup2(pipefd[1], 2);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	close(pipefd[1]);
	while ((n = read(pipefd[0], buf, sizeof(buf))) > 0) {
		write_all(tty, head, snprintf(head, sizeof(head), "D %s %d\n", id, n));
		write_all(tty, buf, n);
	}
	close(pipefd[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		status = 127 << 8;
	n = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	write_all(tty, head, snprintf(head, sizeof(head), "E %s %d\n", id, n));
}

int main(int argc, char **argv)
{
	static char line[65536];
	size_t len = 0;
	int tty;

	if (argc != 2) {
		fputs("usage: hpb-agent TTY\n", stderr);
		return 2;
	}
	tty = open_raw(argv[1]);
	write_all(tty, "A 1\n", 4);
	for (;;) {
		char *command;
		ssize_t n = read(tty, line + len, 1);

		if (n <= 0) {
			if (n < 0 && errno == EINTR)
				continue;
			return 1;
		}
		if (line[len] != '\n') {
			len = (len + 1) % (sizeof(line) - 1);
			continue;
		}
		line[len] = '\0';
		len = 0;
		command = strchr(line, ' ');
		/* an id is short; anything else is noise on the line */
		if (!command || command - line > 16)
			continue;
		*command++ = '\0';
		run(tty, line, command);
	}
}
