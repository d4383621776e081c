/* innkeeper-guest: shared declarations. README.md beside this file has the protocol and the promises; read it first. */
#ifndef INNKEEPER_GUEST_H
#define INNKEEPER_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROGRAM_VERSION "0.1.0"
#define PORT_NAME "org.innkeeper.guest.0"

/* --- The wire. Numbers here are for ever: frames.py has the same ones. -------------------------------------------- */
#define PROTOCOL_VERSION 1
#define FRAME_MAGIC 0x4b49u /* "IK" on the wire */
#define FRAME_HEAD 12u
#define FRAME_TAIL 4u
#define FRAME_MAX 32768u /* the kernel accepts that much in one write to a virtio port, whole or not at all */
#define PAYLOAD_MAX (FRAME_MAX - FRAME_HEAD - FRAME_TAIL)

enum frame_type {
	/* From the host. 0x20 to 0x3f belong to identity. */
	T_RESET = 0x01,
	T_OPEN = 0x02,
	T_STDIN = 0x03,
	T_STDIN_EOF = 0x04,
	T_SIGNAL = 0x05,
	T_WINCH = 0x06,
	T_CLOSE = 0x07,
	T_CREDIT = 0x08,
	T_STATUS = 0x09,
	T_PREPARE = 0x20,
	T_IDENTITY = 0x21,
	/* From the guest. 0x60 to 0x7f answer identity. */
	T_HELLO = 0x41,
	T_STDOUT = 0x43,
	T_STDERR = 0x44,
	T_EXIT = 0x45,
	T_FAILED = 0x46,
	T_GRANT = 0x48,
	T_FACTS = 0x49,
	T_PREPARED = 0x60,
	T_IDENTIFIED = 0x61,
};

enum open_flag { OPEN_PTY = 1, OPEN_LOGIN = 2 };
enum feature { FEATURE_EXEC = 1, FEATURE_PTY = 2, FEATURE_STATUS = 4, FEATURE_IDENTITY = 8 };

/* --- Limits and waits. Memory is bounded by these alone. ---------------------------------------------------------- */
#define SESSIONS_MAX 64
#define STDIN_WINDOW 131072u /* what the host may send to one session before we grant more */
#define ANSWER_ROOM 16384u   /* a frame is obeyed only when its answer has room: the largest are the facts */
#define ARGS_MAX 4096
#define EXIT_GRACE_MS 300  /* how long a dead command's relatives may still write before EXIT goes out */
#define CLOSE_GRACE_MS 2000 /* from SIGHUP to SIGKILL after CLOSE */

struct frame {
	uint8_t type, flags;
	uint32_t stream, length;
	const uint8_t *payload;
};

/* wire.c: bytes to frames and back. Knows no descriptors. */
struct inbox {
	uint8_t bytes[FRAME_MAX];
	uint32_t start, end;
};
struct outbox {
	uint8_t bytes[FRAME_MAX];
	uint32_t length;
};
uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
void put16(uint8_t *at, uint16_t value);
void put32(uint8_t *at, uint32_t value);
bool inbox_next(struct inbox *box, struct frame *frame);
void inbox_settle(struct inbox *box);
uint32_t outbox_room(const struct outbox *box);
uint8_t *outbox_payload(struct outbox *box);
void outbox_commit(struct outbox *box, uint8_t type, uint32_t stream, uint32_t length);
void outbox_fail(struct outbox *box, uint32_t stream, int error, const char *words);

/* port.c: the line to the host. */
struct port {
	int fd, edges; /* `edges` is an epoll of `fd` alone, edge-triggered: a host that is away must not spin us */
	bool readable, writable, is_virtio, away;
};
int port_find(const char *name);
void port_watch(struct port *port, int fd, bool is_virtio);
bool port_events(struct port *port);
bool port_read(struct port *port, struct inbox *box);
void port_write(struct port *port, struct outbox *box);
void die(const char *what, int error) __attribute__((noreturn));

/* spawn.c: one command, from an order to a running process. */
struct order {
	const char *user, *cwd, *term;
	char *argv[ARGS_MAX + 1], *env[ARGS_MAX + 1];
	bool pty, login;
	uint16_t rows, cols;
};
struct child {
	pid_t pid;
	int report, in, out, err; /* `report` ends when the command has started, or carries why it did not */
};
struct failure {
	int error;
	char words[252];
};
bool order_read(struct order *order, const struct frame *frame);
int spawn(const struct order *order, struct child *child);
void run(const struct order *order, int report, const char *tty) __attribute__((noreturn));

/* session.c: the table of running commands. */
struct pollfd;
int64_t now_ms(void);
void session_open(const struct frame *frame, struct outbox *box);
void session_frame(const struct frame *frame, struct outbox *box);
void sessions_hang_up(void);
void sessions_children(void);
int sessions_poll(struct pollfd *polls, const struct outbox *box);
void sessions_serve(const struct pollfd *polls, int count, struct outbox *box);
int sessions_wait_ms(void);
#define SESSION_POLLS (SESSIONS_MAX * 4)

/* status.c: what the host may ask about this machine; and lines, of which one that no longer fits is left out whole. */
struct text {
	char *at;
	size_t room;
};
void text_line(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint32_t facts(uint8_t *text, uint32_t room);

/* identity/: who this machine is. What could not be done is said in `faults`, a line each. */
void prepare(struct text *faults);
void identity(const struct frame *frame, bool keep_clock, struct text *faults);
int announce_descriptor(void);
void announce_serve(void);

#endif
