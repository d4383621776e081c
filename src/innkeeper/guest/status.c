/*
 * What the host may ask about this machine: lines of key=value, one fact each; keys may repeat. Facts that cannot be had are left out.
 * Values are one line, but otherwise whatever the guest says: the host believes nothing of it.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "guest.h"

/* A line that no longer fits is left out whole. */
void text_line(struct text *text, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int length = vsnprintf(text->at, text->room, format, list);
	va_end(list);
	if (length < 0 || (size_t)length + 1 >= text->room)
		return;
	for (int i = 0; i < length; i++)
		if ((unsigned char)text->at[i] < ' ')
			text->at[i] = ' ';
	text->at[length] = '\n';
	text->at += length + 1;
	text->room -= (size_t)length + 1;
}

/* A file's beginning as a string; false when it is not there or no ordinary file (a pipe would make us wait). */
static bool slurp(const char *path, char *to, size_t size)
{
	struct stat about;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t length = -1;
	if (fd >= 0 && !fstat(fd, &about) && S_ISREG(about.st_mode))
		length = read(fd, to, size - 1);
	if (fd >= 0)
		close(fd);
	to[length > 0 ? length : 0] = 0;
	return length >= 0;
}

static void meminfo(struct text *text, const char *content, const char *label, const char *key)
{
	const char *at = strstr(content, label);
	if (at)
		text_line(text, "%s=%lld", key, atoll(at + strlen(label)));
}

static void machine(struct text *text)
{
	char content[2048];
	struct utsname name;
	struct statvfs root;
	if (slurp("/proc/sys/kernel/random/boot_id", content, sizeof content))
		text_line(text, "boot_id=%.36s", content);
	if (!uname(&name)) {
		text_line(text, "hostname=%s", name.nodename);
		text_line(text, "kernel=%s", name.release);
	}
	if (slurp("/proc/uptime", content, sizeof content))
		text_line(text, "uptime_s=%.*s", (int)strcspn(content, " "), content);
	if (slurp("/proc/loadavg", content, sizeof content)) {
		double load[3];
		if (sscanf(content, "%lf %lf %lf", &load[0], &load[1], &load[2]) == 3)
			text_line(text, "load=%.2f %.2f %.2f", load[0], load[1], load[2]);
	}
	if (slurp("/proc/meminfo", content, sizeof content)) {
		meminfo(text, content, "MemTotal:", "memory_total_kib");
		meminfo(text, content, "MemAvailable:", "memory_available_kib");
	}
	if (!statvfs("/", &root)) {
		unsigned long long block = root.f_frsize;
		text_line(text, "root_total_bytes=%llu", block * root.f_blocks);
		text_line(text, "root_used_bytes=%llu", block * (root.f_blocks - root.f_bfree));
	}
}

/* The length of a netmask, which every kernel gives as an address. */
static int prefix(const struct sockaddr *mask)
{
	const uint8_t *bytes = mask->sa_family == AF_INET6 ? ((const struct sockaddr_in6 *)mask)->sin6_addr.s6_addr
							    : (const uint8_t *)&((const struct sockaddr_in *)mask)->sin_addr;
	int length = 0;
	for (int i = 0; i < (mask->sa_family == AF_INET6 ? 16 : 4); i++)
		length += __builtin_popcount(bytes[i]);
	return length;
}

static void address(struct text *text, const struct ifaddrs *entry)
{
	char words[INET6_ADDRSTRLEN];
	int family = entry->ifa_addr->sa_family;
	if (family == AF_PACKET) {
		const struct sockaddr_ll *link = (const struct sockaddr_ll *)entry->ifa_addr;
		const uint8_t *mac = link->sll_addr;
		if (link->sll_halen == 6)
			text_line(text, "mac=%s %02x:%02x:%02x:%02x:%02x:%02x", entry->ifa_name, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		return;
	}
	const void *bytes = family == AF_INET    ? (const void *)&((const struct sockaddr_in *)entry->ifa_addr)->sin_addr
			    : family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)entry->ifa_addr)->sin6_addr
						 : NULL;
	if (bytes && entry->ifa_netmask && inet_ntop(family, bytes, words, sizeof words))
		text_line(text, "address=%s %s/%d", entry->ifa_name, words, prefix(entry->ifa_netmask));
}

static void network(struct text *text)
{
	struct ifaddrs *list;
	if (getifaddrs(&list))
		return;
	for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next)
		if (entry->ifa_addr && !(entry->ifa_flags & IFF_LOOPBACK))
			address(text, entry);
	freeifaddrs(list);
}

/*
 * cloud-init's own order of evidence: a result of this boot; else a status or the generator's mark, so it runs or will run; else
 * the mark of an earlier boot. result.json holds "errors": [ "words", ... ]; of those the first is passed on as it stands.
 */
static void cloud_init(struct text *text)
{
	char content[4096];
	if (slurp("/run/cloud-init/result.json", content, sizeof content)) {
		const char *errors = strstr(content, "\"errors\"");
		errors = errors ? strchr(errors, '[') : NULL;
		errors = errors ? errors + 1 + strspn(errors + 1, " \t\r\n") : NULL;
		bool failed = errors && *errors == '"';
		text_line(text, "cloud_init=%s", failed ? "error" : "done");
		if (failed)
			text_line(text, "cloud_init_error=%.*s", (int)strcspn(errors + 1, "\""), errors + 1);
	} else if (!access("/run/cloud-init/disabled", F_OK)) {
		text_line(text, "cloud_init=none");
	} else if (!access("/run/cloud-init/status.json", F_OK) || !access("/run/cloud-init/enabled", F_OK)) {
		text_line(text, "cloud_init=running");
	} else {
		text_line(text, "cloud_init=%s", access("/var/lib/cloud/instance/boot-finished", F_OK) ? "none" : "done");
	}
}

uint32_t facts(uint8_t *to, uint32_t room)
{
	struct text text = {(char *)to, room};
	machine(&text);
	cloud_init(&text);
	network(&text);
	return (uint32_t)(text.at - (char *)to);
}
