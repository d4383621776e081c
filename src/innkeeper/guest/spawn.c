/*
 * One command: from the order on the wire to pipes or a terminal, and a child that becomes the command.
 *
 * The parent does nothing that can wait. Whatever can be slow or fail (users, directories, the file itself) is looked up in the
 * child (run.c), which reports a failure through a pipe that closes by itself when exec succeeds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "guest.h"

/* Payload of OPEN: credit u32, rows u16, columns u16, argc u16, envc u16, then user, cwd, term, argv, env; each ends with NUL. */
bool order_read(struct order *order, const struct frame *frame)
{
	if (frame->length < 13 || frame->payload[frame->length - 1])
		return false;
	unsigned argc = get16(frame->payload + 8), envc = get16(frame->payload + 10);
	if (argc > ARGS_MAX || envc > ARGS_MAX || (frame->flags & OPEN_LOGIN ? argc != 0 : argc == 0))
		return false;
	const char *at = (const char *)frame->payload + 12, *end = (const char *)frame->payload + frame->length;
	const char *strings[3];
	for (unsigned i = 0; i < 3 + argc + envc; i++) {
		if (at >= end)
			return false;
		if (i < 3)
			strings[i] = at;
		else if (i < 3 + argc)
			order->argv[i - 3] = (char *)at;
		else
			order->env[i - 3 - argc] = (char *)at;
		at += strlen(at) + 1;
	}
	order->user = strings[0];
	order->cwd = strings[1];
	order->term = strings[2];
	order->argv[argc] = order->env[envc] = NULL;
	order->pty = frame->flags & OPEN_PTY;
	order->login = frame->flags & OPEN_LOGIN;
	order->rows = get16(frame->payload + 4);
	order->cols = get16(frame->payload + 6);
	return at == end;
}

static int terminal(const struct order *order, char *tty, size_t size)
{
	struct winsize window = {.ws_row = order->rows, .ws_col = order->cols};
	int number, unlock = 0;
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (master < 0)
		return -1;
	if (ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCGPTN, &number) || ioctl(master, TIOCSWINSZ, &window)) {
		int error = errno;
		close(master);
		errno = error;
		return -1;
	}
	snprintf(tty, size, "/dev/pts/%d", number);
	return master;
}

/* Our ends must not make us wait; a command's ends must be as every program expects them, so they are not touched. */
static bool pipe_to(int *reader, int *writer, int *ours)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return false;
	*reader = ends[0];
	*writer = ends[1];
	return !fcntl(*ours, F_SETFL, O_NONBLOCK);
}

static void become(const struct order *order, const int theirs[4], const char *tty)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int number = 1; number <= SIGRTMAX; number++)
		signal(number, SIG_DFL);
	setsid();
	for (int fd = 0; !order->pty && fd < 3; fd++)
		dup2(theirs[fd], fd);
	run(order, theirs[3], order->pty ? tty : NULL);
}

/* Returns 0 or an errno; on failure nothing is left open. */
int spawn(const struct order *order, struct child *child)
{
	int theirs[4] = {-1, -1, -1, -1};
	char tty[32] = "";
	*child = (struct child){.pid = -1, .report = -1, .in = -1, .out = -1, .err = -1};
	bool ready = pipe_to(&child->report, &theirs[3], &child->report);
	if (ready && order->pty) {
		child->out = terminal(order, tty, sizeof tty);
		child->in = child->out < 0 ? -1 : fcntl(child->out, F_DUPFD_CLOEXEC, 3);
		ready = child->in >= 0;
	} else if (ready) {
		ready = pipe_to(&theirs[0], &child->in, &child->in) && pipe_to(&child->out, &theirs[1], &child->out) &&
			pipe_to(&child->err, &theirs[2], &child->err);
	}
	if (ready)
		child->pid = fork();
	if (child->pid == 0)
		become(order, theirs, tty);
	int error = child->pid < 0 ? errno : 0;
	for (int i = 0; i < 4; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	const int ours[] = {child->report, child->in, child->out, child->err};
	for (int i = 0; error && i < 4; i++)
		if (ours[i] >= 0)
			close(ours[i]);
	return error;
}
