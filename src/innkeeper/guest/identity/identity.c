/*
 * PREPARE: this machine forgets who it is, so that its disk and memory may be anybody's. IDENTITY: it is told who it is.
 *
 * The order matters. Nothing may be drawn from the random pool before it is this machine's own; no address is used before the
 * card bears it; the name comes last, because the kernel tells everybody who watches it. Each step may be done again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "identity.h"

#define SSH "/etc/ssh"
#define SSH_KEY SSH "/ssh_host_ed25519_key"
#define MACHINE_ID "/etc/machine-id"
#define DBUS_MACHINE_ID "/var/lib/dbus/machine-id"
#define KERNEL_BOOT_ID "/proc/sys/kernel/random/boot_id"
#define OUR_BOOT_ID OUR_RUN "/boot_id"
#define KEEP_KEYS "/etc/cloud/cloud.cfg.d/95-innkeeper-identity.cfg" /* the Debian image's hook writes it */

void prepare(struct text *faults)
{
	struct stat about;
	files_remove(SSH, "ssh_host_*_key", faults);
	files_remove(SSH, "ssh_host_*_key.pub", faults);
	if (!stat(MACHINE_ID, &about))
		file_write(MACHINE_ID, "", 0644, faults);
	if (is_own_file(DBUS_MACHINE_ID))
		file_remove(DBUS_MACHINE_ID, faults);
	file_remove("/etc/hostname", faults);
	file_remove("/var/lib/systemd/random-seed", faults);
	files_remove("/run/systemd/netif/leases", "*", faults);
	files_remove("/var/lib/systemd/network", "*", faults);
	files_remove("/var/lib/dhcp", "*.leases", faults);
	file_remove(OUR_IDENTITY, faults);
	file_remove(KEEP_KEYS, faults);
	sync();
}

/* Adding alone would change what is drawn only when the kernel next feels like it: within a minute, or five. */
static void reseed(const struct identity *who, struct text *faults)
{
	struct {
		struct rand_pool_info head;
		uint8_t seed[SEED_BYTES];
	} pool = {.head = {.entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES}};
	if (!who->has_seed)
		return;
	memcpy(pool.seed, who->seed, SEED_BYTES);
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG))
		text_line(faults, "cannot seed the kernel's random numbers: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	explicit_bzero(&pool, sizeof pool);
}

static void set_clock(const struct identity *who, struct text *faults)
{
	struct timespec now = {.tv_sec = who->time_ns / 1000000000, .tv_nsec = who->time_ns % 1000000000};
	if (who->time_ns && clock_settime(CLOCK_REALTIME, &now))
		text_line(faults, "cannot set the clock: %s", strerror(errno));
}

static void write_line(const char *path, const char *words, mode_t mode, struct text *faults)
{
	char content[1024];
	if ((size_t)snprintf(content, sizeof content, "%s\n", words) < sizeof content)
		file_write(path, content, mode, faults);
	else
		text_line(faults, "what was to be written to %s is too long", path);
}

static void set_machine_id(const char *machine_id, struct text *faults)
{
	if (!machine_id)
		return;
	write_line(MACHINE_ID, machine_id, 0444, faults);
	if (is_own_file(DBUS_MACHINE_ID))
		write_line(DBUS_MACHINE_ID, machine_id, 0644, faults);
}

/* The kernel draws its boot's id once, and clones would share it: ours lies over it, until the next boot brings another. */
static void set_boot_id(const char *boot_id, struct text *faults)
{
	char now[40] = "";
	if (!boot_id)
		return;
	int fd = open(KERNEL_BOOT_ID, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, now, sizeof now - 1);
	if (fd >= 0)
		close(fd);
	if (length > 0 && !strncmp(now, boot_id, strlen(boot_id)))
		return;
	write_line(OUR_BOOT_ID, boot_id, 0444, faults);
	if (umount2(KERNEL_BOOT_ID, MNT_DETACH) && errno != EINVAL)
		text_line(faults, "cannot take the earlier boot id away: %s", strerror(errno));
	if (mount(OUR_BOOT_ID, KERNEL_BOOT_ID, NULL, MS_BIND, NULL))
		text_line(faults, "cannot set the boot id: %s", strerror(errno));
}

/* A machine without this folder has no SSH server that would read a key. Keys of other kinds are another machine's. */
static void set_host_key(const struct identity *who, struct text *faults)
{
	if (!who->host_key || access(SSH, F_OK))
		return;
	if (!file_write(SSH_KEY, who->host_key, 0600, faults))
		return;
	if (who->host_key_public)
		write_line(SSH_KEY ".pub", who->host_key_public, 0644, faults);
	else
		file_remove(SSH_KEY ".pub", faults);
	static const char *const others[] = {"ssh_host_[!e]*_key*", "ssh_host_ecdsa_key*", "ssh_host_ecdsa-sk_key*", "ssh_host_ed25519-sk_key*"};
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		files_remove(SSH, others[i], faults);
}

static void write_card(struct text *text, const struct card *card)
{
	text_line(text, "card=%s", card->device);
	text_line(text, "mac=%s", card->mac_words);
	for (int i = 0; i < card->address_count; i++)
		text_line(text, "address=%s", card->addresses[i].words);
	if (card->has_gateway)
		text_line(text, "gateway=%s", card->gateway_words);
	for (int i = 0; i < card->dns_count; i++)
		text_line(text, "dns=%s", card->dns[i]);
	if (card->mtu)
		text_line(text, "mtu=%u", card->mtu);
}

/* For the image's hook, and whoever wants to know: without secrets. */
static void write_identity(const struct identity *who, struct text *faults)
{
	static char content[ANSWER_ROOM];
	struct text text = {content, sizeof content - 1};
	if (who->instance)
		text_line(&text, "instance=%s", who->instance);
	if (who->hostname)
		text_line(&text, "hostname=%s", who->hostname);
	if (who->domain)
		text_line(&text, "domain=%s", who->domain);
	text_line(&text, "host_key=%d", who->host_key != NULL);
	text_line(&text, "cloud_init=%d", who->cloud_init);
	for (int i = 0; i < who->card_count; i++)
		if (*who->cards[i].device)
			write_card(&text, &who->cards[i]);
	*text.at = 0;
	file_write(OUR_IDENTITY, content, 0644, faults);
}

static void set_hostname(const char *hostname, struct text *faults)
{
	if (!hostname)
		return;
	write_line("/etc/hostname", hostname, 0644, faults);
	if (sethostname(hostname, strlen(hostname)))
		text_line(faults, "cannot set the host name: %s", strerror(errno));
}

/* From this moment it counts as running: the host asks when our answer has come, and the hook comes later. */
static void forget_cloud_init(struct text *faults)
{
	file_remove("/run/cloud-init/result.json", faults);
	file_remove("/run/cloud-init/status.json", faults);
	/* With this it would believe that it has looked for its data since the boot. */
	file_remove("/run/cloud-init/.instance-id", faults);
}

static void __attribute__((noreturn)) become_hook(void)
{
	static char hook[] = HOOK, path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char where[] = "INNKEEPER_IDENTITY=" OUR_IDENTITY;
	char *const argv[] = {hook, NULL}, *const env[] = {path, where, NULL};
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	/* Where this is not allowed the hook is protected as we are, which is no reason to leave it out. */
	ssize_t put = score < 0 ? 0 : write(score, "0", 1);
	(void)put;
	setsid();
	if (fork() == 0)
		execve(HOOK, argv, env);
	_exit(0);
}

/* Not waited for, and nobody's child but init's: it may restart what it likes, even us. */
static void start_hook(struct text *faults)
{
	if (access(HOOK, X_OK))
		return;
	pid_t child = fork();
	if (child == 0)
		become_hook();
	if (child < 0)
		text_line(faults, "cannot start %s: %s", HOOK, strerror(errno));
	else
		waitpid(child, NULL, 0);
}

void identity(const struct frame *frame, bool keep_clock, struct text *faults)
{
	static struct identity who;
	if (!identity_read(&who, frame, faults))
		return;
	reseed(&who, faults);
	if (!keep_clock)
		set_clock(&who, faults);
	network_apply(&who, faults);
	if (mkdir(OUR_RUN, 0755) && errno != EEXIST)
		text_line(faults, "cannot make %s: %s", OUR_RUN, strerror(errno));
	set_machine_id(who.machine_id, faults);
	set_boot_id(who.boot_id, faults);
	set_host_key(&who, faults);
	write_identity(&who, faults);
	if (who.cloud_init)
		forget_cloud_init(faults);
	set_hostname(who.hostname, faults);
	explicit_bzero(who.seed, sizeof who.seed);
	start_hook(faults);
}
