/*
 * The line to the host: finding the virtio port, and reading and writing it without ever spinning.
 *
 * While no host is attached, a virtio port reports POLLHUP and POLLIN all the time and reads 0 bytes. A level-triggered loop would
 * burn a core of every idle guest, and sleeping between looks would delay the host that attaches. Edge-triggered epoll wakes us
 * exactly when the kernel hears of a change, so the port sits alone in an epoll of its own and we keep what it last said.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

void die(const char *what, int error)
{
	dprintf(STDERR_FILENO, "innkeeper-guest: %s: %s\n", what, strerror(error));
	_exit(1);
}

/* Does /sys/class/virtio-ports/ENTRY carry this name? Needs no udev, unlike /dev/virtio-ports. */
static bool named(const char *entry, const char *name)
{
	char path[320], found[128];
	snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t length = read(fd, found, sizeof found - 1);
	close(fd);
	if (length <= 0)
		return false;
	found[length] = 0;
	found[strcspn(found, "\n")] = 0;
	return !strcmp(found, name);
}

static bool scan(const char *name, char *path, size_t size)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	bool found = false;
	for (struct dirent *entry; ports && !found && (entry = readdir(ports));) {
		found = entry->d_name[0] != '.' && named(entry->d_name, name);
		if (found)
			snprintf(path, size, "/dev/%s", entry->d_name);
	}
	if (ports)
		closedir(ports);
	return found;
}

/*
 * Waits for the kernel to announce the port (the driver may still be loading), then opens it. The kernel's own events come
 * after the port's name can be read, and they need no udev. Only one program may hold a port: EBUSY is somebody else.
 */
int port_find(const char *name)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int events = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address))
		die("cannot listen to the kernel's device events", errno);
	char path[288], event[2048];
	int fd = -1;
	while (fd < 0) {
		if (scan(name, path, sizeof path)) {
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			/* ENOENT: devtmpfs has not made the node yet, or the port went away; either is followed by an event. */
			if (fd < 0 && errno != ENOENT)
				die(path, errno);
		}
		/* ENOBUFS says that events were lost: looking again is the answer to that too. */
		if (fd < 0 && recv(events, event, sizeof event, 0) < 0 && errno != EINTR && errno != ENOBUFS)
			die("cannot read the kernel's device events", errno);
	}
	close(events);
	return fd;
}

void port_watch(struct port *port, int fd, bool is_virtio)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
	*port = (struct port){.fd = fd, .is_virtio = is_virtio, .edges = epoll_create1(EPOLL_CLOEXEC)};
	if (fcntl(fd, F_SETFL, O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		die("cannot use the port", errno);
	if (port->edges < 0 || epoll_ctl(port->edges, EPOLL_CTL_ADD, fd, &event))
		die("cannot watch the port", errno);
}

/* Takes in what changed. False: the host has just left. */
bool port_events(struct port *port)
{
	struct epoll_event event;
	if (epoll_wait(port->edges, &event, 1, 0) != 1)
		return true;
	/* With POLLHUP alone a read tells whether the host left or the port was unplugged. */
	if (event.events & (EPOLLIN | EPOLLHUP))
		port->readable = true;
	if (event.events & EPOLLOUT)
		port->writable = true;
	bool was_away = port->away;
	port->away = event.events & EPOLLHUP;
	return was_away || !port->away;
}

/* Something that is no virtio port (a test's socket) cannot come back; nor can a port that was unplugged. */
static void gone(const struct port *port, int error)
{
	if (!port->is_virtio)
		_exit(0);
	if (error)
		die("the port is gone", error);
}

/*
 * One read. False: the host has just left. A new host's first bytes may come before the kernel has heard that it is there; the
 * port is still away then, and reading 0 bytes after them is no second departure.
 */
bool port_read(struct port *port, struct inbox *box)
{
	ssize_t got = read(port->fd, box->bytes + box->end, FRAME_MAX - box->end);
	if (got > 0) {
		box->end += (uint32_t)got;
		return true;
	}
	if (got < 0 && errno == EINTR)
		return true;
	port->readable = false;
	if (got < 0 && errno == EAGAIN)
		return true;
	gone(port, got < 0 ? errno : 0);
	bool was_away = port->away;
	port->away = true;
	return was_away;
}

/* Writes as much as goes: nothing while the host is away. */
void port_write(struct port *port, struct outbox *box)
{
	while (port->writable && box->length) {
		ssize_t put = write(port->fd, box->bytes, box->length);
		if (put > 0) {
			box->length -= (uint32_t)put;
			memmove(box->bytes, box->bytes + put, box->length);
		} else if (put < 0 && errno != EINTR) {
			port->writable = false;
			if (errno != EAGAIN)
				gone(port, errno);
		}
	}
}
