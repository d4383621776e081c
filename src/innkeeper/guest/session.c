/*
 * The table of running commands.
 *
 *     OPEN -> starting -(report pipe ends)-> running -(child dies)-> draining -(output delivered)-> EXIT, slot free
 *                 `-(report has words)-> FAILED        any -(CLOSE, RESET, host away)-> closing -(child dies)-> slot free
 *
 * A dead child stays unreaped until its slot is freed: so its process id, which is also its group's, cannot come to mean somebody
 * else while we may still signal it.
 *
 * EXIT follows the last output. All that the command itself wrote is in its pipes when it dies; a relative that keeps a pipe open
 * may add to it for EXIT_GRACE_MS, then what the pipes hold at that moment is delivered, and EXIT. The relative lives on, unheard.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

struct session {
	uint32_t id; /* 0: the host no longer knows it */
	struct child child;
	uint8_t *ring; /* what the host sent for stdin, STDIN_WINDOW bytes */
	uint32_t ring_at, ring_length;
	uint32_t taken;  /* stdin bytes gone from the ring that we have not granted again */
	uint32_t credit; /* output bytes that the host has room for */
	bool pty, eof, exited, draining;
	int code, signal;
	int64_t deadline_ms; /* 0: none. After the child's death: end of grace. While closing: when SIGKILL follows */
	int left[2];         /* while draining: bytes still to deliver from `out` and `err` */
};

static struct session table[SESSIONS_MAX];
static unsigned first; /* whose turn it is: rotates, so that a talker does not starve those behind it */

int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static struct session *find(uint32_t id)
{
	for (int i = 0; i < SESSIONS_MAX; i++)
		if (id && table[i].id == id)
			return &table[i];
	return NULL;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void let_go(struct session *s)
{
	s->id = 0;
	shut(&s->child.report);
	shut(&s->child.in);
	shut(&s->child.out);
	shut(&s->child.err);
	if (s->ring)
		munmap(s->ring, STDIN_WINDOW);
	s->ring = NULL;
}

static void reap(struct session *s)
{
	waitpid(s->child.pid, NULL, 0);
	memset(s, 0, sizeof *s);
}

/* To the whole group; to the child alone in the moment before it has made its group. */
static void signal_group(const struct session *s, int number)
{
	if (kill(-s->child.pid, number) && errno == ESRCH)
		kill(s->child.pid, number);
}

static void close_session(struct session *s)
{
	let_go(s);
	if (s->exited) {
		kill(-s->child.pid, SIGKILL);
		reap(s);
		return;
	}
	signal_group(s, SIGHUP);
	signal_group(s, SIGCONT);
	s->deadline_ms = now_ms() + CLOSE_GRACE_MS;
}

static void fail(struct session *s, struct outbox *box, int error, const char *words)
{
	outbox_fail(box, s->id, error, words);
	close_session(s);
}

void sessions_hang_up(void)
{
	for (int i = 0; i < SESSIONS_MAX; i++)
		if (table[i].id)
			close_session(&table[i]);
}

void session_open(const struct frame *frame, struct outbox *box)
{
	static struct order order;
	struct session *s = find(frame->stream);
	if (s) {
		fail(s, box, EPROTO, "the host opened a stream twice");
		return;
	}
	for (s = table; s < table + SESSIONS_MAX && s->child.pid; s++)
		;
	if (!frame->stream || !order_read(&order, frame)) {
		outbox_fail(box, frame->stream, EPROTO, "the order to run a command cannot be read");
		return;
	}
	if (s == table + SESSIONS_MAX) {
		outbox_fail(box, frame->stream, EAGAIN, "this guest already runs as many sessions as it can; end some first");
		return;
	}
	void *ring = mmap(NULL, STDIN_WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int error = ring == MAP_FAILED ? errno : spawn(&order, &s->child);
	if (error) {
		if (ring != MAP_FAILED)
			munmap(ring, STDIN_WINDOW);
		memset(s, 0, sizeof *s);
		outbox_fail(box, frame->stream, error, strerror(error));
		return;
	}
	s->id = frame->stream;
	s->ring = ring;
	s->pty = order.pty;
	s->credit = get32(frame->payload);
}

/* Grants in quarters: one small frame for many bytes, and never an empty window. */
static void grant(struct session *s, struct outbox *box)
{
	if (s->taken < STDIN_WINDOW / 4 || outbox_room(box) < 4)
		return;
	put32(outbox_payload(box), s->taken);
	outbox_commit(box, T_GRANT, s->id, 4);
	s->taken = 0;
}

static void take_stdin(struct session *s, const struct frame *frame, struct outbox *box)
{
	if (frame->length > STDIN_WINDOW - s->ring_length - s->taken || s->eof) {
		fail(s, box, EPROTO, "the host sent more input than was granted");
		return;
	}
	uint32_t at = (s->ring_at + s->ring_length) % STDIN_WINDOW;
	uint32_t head = STDIN_WINDOW - at < frame->length ? STDIN_WINDOW - at : frame->length;
	memcpy(s->ring + at, frame->payload, head);
	memcpy(s->ring, frame->payload + head, frame->length - head);
	s->ring_length += frame->length;
}

static void resize(const struct session *s, const struct frame *frame)
{
	struct winsize window = {.ws_row = get16(frame->payload), .ws_col = get16(frame->payload + 2)};
	if (s->pty && s->child.out >= 0)
		ioctl(s->child.out, TIOCSWINSZ, &window);
}

/* On a terminal the command in the foreground is in a group of its own, as after a key press. */
static void pass_signal(const struct session *s, int number)
{
	if (number < 1 || number > SIGRTMAX)
		return;
	pid_t front = s->pty && s->child.out >= 0 ? tcgetpgrp(s->child.out) : -1;
	signal_group(s, number);
	if (front > 0 && front != s->child.pid)
		kill(-front, number);
}

/* Frames for a stream that has just ended cross our EXIT on the line: no error. Unknown types are a newer host's. */
void session_frame(const struct frame *frame, struct outbox *box)
{
	struct session *s = find(frame->stream);
	if (!s)
		return;
	if (frame->type == T_STDIN)
		take_stdin(s, frame, box);
	else if (frame->type == T_STDIN_EOF)
		s->eof = true;
	else if (frame->type == T_CLOSE)
		close_session(s);
	else if (frame->length >= 4 && frame->type == T_SIGNAL)
		pass_signal(s, (int)get32(frame->payload));
	else if (frame->length >= 4 && frame->type == T_WINCH)
		resize(s, frame);
	else if (frame->length >= 4 && frame->type == T_CREDIT && s->credit + get32(frame->payload) >= s->credit)
		s->credit += get32(frame->payload);
}

void sessions_children(void)
{
	for (struct session *s = table; s < table + SESSIONS_MAX; s++) {
		siginfo_t info = {.si_pid = 0};
		if (!s->child.pid || s->exited || waitid(P_PID, (id_t)s->child.pid, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
			continue;
		s->exited = true;
		s->code = info.si_code == CLD_EXITED ? info.si_status : -1;
		s->signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
		s->deadline_ms = now_ms() + EXIT_GRACE_MS;
		if (!s->id)
			close_session(s);
	}
}

/* Four places for each slot. What nobody can take now is left out (fd -1): its end would wake us without need. */
int sessions_poll(struct pollfd *polls, const struct outbox *box)
{
	int last = 0;
	for (int i = 0; i < SESSIONS_MAX; i++) {
		const struct session *s = &table[i];
		const int fds[4] = {s->child.report, s->child.in, s->child.out, s->child.err};
		bool output = s->credit && outbox_room(box);
		bool wanted[4] = {outbox_room(box) >= ANSWER_ROOM, s->ring_length || s->eof, output, output};
		for (int k = 0; k < 4; k++)
			polls[i * 4 + k] = (struct pollfd){.fd = s->id && wanted[k] ? fds[k] : -1, .events = k == 1 ? POLLOUT : POLLIN};
		if (s->id)
			last = i + 1;
	}
	return last * 4;
}

static void serve_report(struct session *s, struct outbox *box)
{
	struct failure failure;
	ssize_t got = read(s->child.report, &failure, sizeof failure);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	shut(&s->child.report);
	if (got == sizeof failure)
		fail(s, box, failure.error, failure.words);
}

/* A command that closed its stdin loses what is sent to it, as from a pipe; the host is granted on, so its writer gets to the end. */
static void serve_stdin(struct session *s, struct outbox *box)
{
	while (s->ring_length) {
		uint32_t run = STDIN_WINDOW - s->ring_at < s->ring_length ? STDIN_WINDOW - s->ring_at : s->ring_length;
		ssize_t put = s->child.in < 0 ? (ssize_t)run : write(s->child.in, s->ring + s->ring_at, run);
		if (put < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (put < 0) {
			shut(&s->child.in);
			continue;
		}
		s->ring_at = (s->ring_at + (uint32_t)put) % STDIN_WINDOW;
		s->ring_length -= (uint32_t)put;
		s->taken += (uint32_t)put;
	}
	grant(s, box);
	if (!s->eof || s->ring_length || s->child.in < 0)
		return;
	/* A terminal has no end of input but the character for it. */
	if (s->pty && write(s->child.in, "\004", 1) < 0 && errno == EAGAIN)
		return;
	shut(&s->child.in);
}

static void serve_output(struct session *s, int which, struct outbox *box)
{
	int *fd = which ? &s->child.err : &s->child.out;
	uint32_t room = outbox_room(box);
	if (*fd < 0 || !room || !s->credit)
		return;
	if (room > s->credit)
		room = s->credit;
	if (s->draining && room > (uint32_t)s->left[which])
		room = (uint32_t)s->left[which];
	ssize_t got = room ? read(*fd, outbox_payload(box), room) : 0;
	if (got > 0) {
		outbox_commit(box, which ? T_STDERR : T_STDOUT, s->id, (uint32_t)got);
		s->credit -= (uint32_t)got;
		s->left[which] -= s->draining ? (int)got : 0;
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR) || (s->draining && errno == EAGAIN)) {
		/* A terminal whose last user left says EIO. */
		shut(fd);
	}
}

static void start_draining(struct session *s)
{
	const int fds[2] = {s->child.out, s->child.err};
	for (int i = 0; i < 2; i++)
		if (fds[i] < 0 || ioctl(fds[i], FIONREAD, &s->left[i]))
			s->left[i] = 0;
	s->draining = true;
	s->deadline_ms = 0;
}

static void serve_end(struct session *s, struct outbox *box)
{
	bool out = s->child.out >= 0 && !(s->draining && !s->left[0]), err = s->child.err >= 0 && !(s->draining && !s->left[1]);
	if (!s->exited || s->child.report >= 0 || out || err || outbox_room(box) < 8)
		return;
	put32(outbox_payload(box), (uint32_t)s->code);
	put32(outbox_payload(box) + 4, (uint32_t)s->signal);
	outbox_commit(box, T_EXIT, s->id, 8);
	let_go(s);
	reap(s);
}

static void keep_deadline(struct session *s, int64_t now)
{
	if (!s->deadline_ms || now < s->deadline_ms)
		return;
	if (s->id)
		start_draining(s);
	else
		kill(-s->child.pid, SIGKILL);
	s->deadline_ms = 0;
}

static void serve_one(struct session *s, const struct pollfd *polls, struct outbox *box)
{
	if (s->id && s->child.report >= 0 && polls[0].revents && outbox_room(box) >= sizeof(struct failure))
		serve_report(s, box);
	if (s->id)
		serve_stdin(s, box);
	for (int which = 0; which < 2; which++)
		if (s->id && (polls[2 + which].revents || s->draining))
			serve_output(s, which, box);
	if (s->id)
		serve_end(s, box);
}

void sessions_serve(const struct pollfd *polls, int count, struct outbox *box)
{
	static const struct pollfd idle[4];
	int64_t now = now_ms();
	first = (first + 1) % SESSIONS_MAX;
	for (unsigned n = 0; n < SESSIONS_MAX; n++) {
		unsigned i = (first + n) % SESSIONS_MAX;
		keep_deadline(&table[i], now);
		serve_one(&table[i], (int)i * 4 < count ? polls + i * 4 : idle, box);
	}
}

int sessions_wait_ms(void)
{
	int64_t soonest = 0, now = now_ms();
	for (int i = 0; i < SESSIONS_MAX; i++)
		if (table[i].deadline_ms && (!soonest || table[i].deadline_ms < soonest))
			soonest = table[i].deadline_ms;
	if (!soonest)
		return -1;
	return soonest <= now ? 0 : (int)(soonest - now);
}
