/*
 * innkeeper-guest: runs inside a guest and lets the host start commands in it and ask how it is.
 *
 * One loop, no threads. Input is obeyed only when an answer has room, output is read from commands only when the host granted
 * credit and the line has room: so nothing queues without a bound, and nobody who does not read stops anybody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

static struct port port;
static struct inbox in;
static struct outbox out;
static bool attached; /* a host has said RESET; until then nothing else is obeyed */
static bool waiting;  /* frames have come in whose answers have no room yet */

/* A program that serves a test's socket runs on somebody's machine: it touches who that is only in a place made for it, and told so. */
static bool offers_identity = true, keeps_clock;

static void say_hello(const uint8_t nonce[8])
{
	uint8_t *payload = outbox_payload(&out);
	memcpy(payload, nonce, 8);
	put16(payload + 8, PROTOCOL_VERSION);
	put16(payload + 10, SESSIONS_MAX);
	put32(payload + 12, FEATURE_EXEC | FEATURE_PTY | FEATURE_STATUS | (offers_identity ? FEATURE_IDENTITY : 0));
	put32(payload + 16, STDIN_WINDOW);
	memcpy(payload + 20, PROGRAM_VERSION, sizeof PROGRAM_VERSION - 1);
	outbox_commit(&out, T_HELLO, 0, 20 + sizeof PROGRAM_VERSION - 1);
}

static void host_left(void)
{
	attached = false;
	in.start = in.end = out.length = 0;
	sessions_hang_up();
}

static void obey_identity(const struct frame *frame)
{
	uint8_t *payload = outbox_payload(&out);
	struct text faults = {(char *)payload, ANSWER_ROOM - FRAME_HEAD - FRAME_TAIL};
	if (frame->type == T_PREPARE)
		prepare(&faults);
	else
		identity(frame, keeps_clock, &faults);
	uint8_t type = frame->type == T_PREPARE ? T_PREPARED : T_IDENTIFIED;
	outbox_commit(&out, type, frame->stream, (uint32_t)((uint8_t *)faults.at - payload));
}

static void obey(const struct frame *frame)
{
	if (frame->type == T_RESET && frame->length >= 8) {
		sessions_hang_up();
		attached = true;
		say_hello(frame->payload);
	} else if (!attached) {
		return;
	} else if (frame->type == T_STATUS) {
		uint32_t length = facts(outbox_payload(&out), ANSWER_ROOM - FRAME_HEAD - FRAME_TAIL);
		outbox_commit(&out, T_FACTS, frame->stream, length);
	} else if (offers_identity && (frame->type == T_PREPARE || frame->type == T_IDENTITY)) {
		obey_identity(frame);
	} else if (frame->type == T_OPEN) {
		session_open(frame, &out);
	} else {
		session_frame(frame, &out);
	}
}

static void obey_all(void)
{
	struct frame frame;
	for (waiting = true; waiting && outbox_room(&out) >= ANSWER_ROOM;)
		if (inbox_next(&in, &frame))
			obey(&frame);
		else
			waiting = false;
	inbox_settle(&in);
}

static void receive(void)
{
	obey_all();
	if (waiting || !port.readable)
		return;
	if (port_read(&port, &in))
		obey_all();
	else
		host_left();
}

static void take_signals(int signals)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == sizeof info)
		;
	sessions_children();
}

static void serve(int signals)
{
	static struct pollfd polls[3 + SESSION_POLLS];
	bool crowded = false;
	for (;;) {
		polls[0] = (struct pollfd){.fd = port.edges, .events = POLLIN};
		polls[1] = (struct pollfd){.fd = signals, .events = POLLIN};
		polls[2] = (struct pollfd){.fd = announce_descriptor(), .events = POLLIN};
		int count = sessions_poll(polls + 3, &out);
		bool more = (crowded || port.readable || waiting) && outbox_room(&out) >= ANSWER_ROOM;
		if (poll(polls, (nfds_t)(3 + count), more ? 0 : sessions_wait_ms()) < 0 && errno != EINTR)
			die("cannot wait", errno);
		if (polls[0].revents && !port_events(&port))
			host_left();
		if (polls[1].revents)
			take_signals(signals);
		if (polls[2].revents)
			announce_serve();
		/* Input first: output alone could fill the line for ever, and nobody could interrupt the command that makes it. */
		receive();
		sessions_serve(polls + 3, count, &out);
		/* Somebody may have had an end or a grant to tell and no room for it; nothing but our writing wakes it. */
		crowded = outbox_room(&out) < ANSWER_ROOM;
		port_write(&port, &out);
	}
}

/* Commands get descriptors 0 to 2; ours must never sit there. */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			die("/dev/null", errno);
}

int main(int argc, char **argv)
{
	static const uint8_t unasked[8];
	const char *name = PORT_NAME;
	int fd = -1;
	if (argc == 2 && !strcmp(argv[1], "--version"))
		return printf("innkeeper-guest %s protocol %d\n", PROGRAM_VERSION, PROTOCOL_VERSION) < 0;
	bool told = argc == 4 && !strcmp(argv[1], "--identity");
	if (argc == 3 + told && !strcmp(argv[1 + told], "--fd")) {
		fd = atoi(argv[2 + told]);
		offers_identity = told;
		keeps_clock = true;
	} else if (argc == 3 && !strcmp(argv[1], "--port")) {
		name = argv[2];
	} else if (argc != 1) {
		die("usage: innkeeper-guest [--port NAME | [--identity] --fd NUMBER | --version]", EINVAL);
	}

	fill_standard_descriptors();
	umask(022);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signals < 0)
		die("cannot hear of children", errno);
	port_watch(&port, fd >= 0 ? fd : port_find(name), fd < 0);
	/* Unasked, so that a host which stayed attached learns that the sessions of our predecessor are over. */
	say_hello(unasked);
	serve(signals);
}
