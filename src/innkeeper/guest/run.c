/*
 * In the child: become the user, go to the directory, make the environment, become the command.
 *
 * Users and groups are read from /etc/passwd and /etc/group alone. A static program cannot load the libraries by which a guest
 * may know more users (LDAP, homed); for those the host runs `su`. PAM is not asked either: no limits.conf, no login records.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define GROUPS_MAX 256
#define ROOT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define USER_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"

static int report_fd;

/* A pipe takes so short a record whole, so the parent reads it in one piece. */
static void __attribute__((noreturn, format(printf, 2, 3))) give_up(int error, const char *words, ...)
{
	struct failure failure = {.error = error};
	va_list list;
	va_start(list, words);
	vsnprintf(failure.words, sizeof failure.words, words, list);
	va_end(list);
	/* If even this fails the parent sees exit code 127, as from a shell. */
	_exit(write(report_fd, &failure, sizeof failure) < 0 ? 126 : 127);
}

/* NULL stands for the user that we are, whom a tiny guest may not even list. */
static struct passwd find_user(const char *name)
{
	static char root_home[] = "/root", top[] = "/", shell[] = "/bin/sh", root[] = "root", nobody[] = "nobody";
	FILE *file = fopen("/etc/passwd", "re");
	struct passwd *entry = NULL;
	while (file && (entry = fgetpwent(file)))
		if (*name ? !strcmp(entry->pw_name, name) : entry->pw_uid == geteuid())
			break;
	if (entry)
		return *entry;
	if (*name && strcmp(name, root) != 0)
		give_up(ENOENT, "no such user: %.100s (only /etc/passwd is read)", name);
	bool is_root = *name || geteuid() == 0;
	return (struct passwd){.pw_name = is_root ? root : nobody, .pw_uid = is_root ? 0 : geteuid(),
			       .pw_gid = is_root ? 0 : getegid(), .pw_dir = is_root ? root_home : top, .pw_shell = shell};
}

static int find_groups(const struct passwd *user, gid_t *groups)
{
	int count = 0;
	FILE *file = fopen("/etc/group", "re");
	groups[count++] = user->pw_gid;
	for (struct group *entry; file && count < GROUPS_MAX && (entry = fgetgrent(file));)
		for (char **member = entry->gr_mem; *member; member++)
			if (!strcmp(*member, user->pw_name)) {
				groups[count++] = entry->gr_gid;
				break;
			}
	if (file)
		fclose(file);
	return count;
}

static void become_user(const struct passwd *user)
{
	gid_t groups[GROUPS_MAX];
	/* Without root there is nothing to change, and asking would only fail. */
	if (geteuid() != 0 && user->pw_uid == geteuid())
		return;
	if (setgroups((size_t)find_groups(user, groups), groups) || setgid(user->pw_gid) || setuid(user->pw_uid))
		give_up(errno, "cannot become user %.100s: %s", user->pw_name, strerror(errno));
}

static void take_terminal(const char *tty, const struct passwd *user)
{
	int fd = open(tty, O_RDWR);
	/* The user owns the terminal, as after a login: programs open it by name. */
	if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) || (geteuid() == 0 && (fchown(fd, user->pw_uid, (gid_t)-1) || fchmod(fd, 0620))))
		give_up(errno, "cannot use the terminal %s: %s", tty, strerror(errno));
	for (int to = 0; to < 3; to++)
		dup2(fd, to);
	if (fd > 2)
		close(fd);
}

/* We are protected from the OOM killer; what we start must not be. */
static void join_the_queue_of_victims(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "0", 1) != 1)
		give_up(errno, "cannot reset the OOM score: %s", strerror(errno));
	close(fd);
}

static void go_to(const char *cwd, const struct passwd *user)
{
	if (*cwd) {
		if (chdir(cwd))
			give_up(errno, "cannot go to directory %.150s: %s", cwd, strerror(errno));
	} else if (chdir(user->pw_dir) && chdir("/")) {
		give_up(errno, "cannot go to directory /: %s", strerror(errno));
	}
}

static void make_environment(const struct order *order, const struct passwd *user, const char *shell)
{
	const char *const words[][2] = {
		{"HOME", user->pw_dir}, {"USER", user->pw_name}, {"LOGNAME", user->pw_name}, {"SHELL", shell},
		{"PATH", user->pw_uid ? USER_PATH : ROOT_PATH}, {"TERM", order->pty ? order->term : ""},
	};
	int failed = clearenv();
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (words[i][1][0])
			failed |= setenv(words[i][0], words[i][1], 1);
	for (char *const *word = order->env; *word; word++)
		failed |= putenv(*word);
	if (failed)
		give_up(errno, "cannot make the environment: %s", strerror(errno));
}

static void __attribute__((noreturn)) start(char *const argv[], const char *file)
{
	execvp(file, argv);
	if (errno == ENOENT && strchr(file, '/') && !access(file, F_OK))
		give_up(ENOENT, "cannot run %.150s: its interpreter or loader is missing", file);
	if (errno == ENOENT)
		give_up(ENOENT, "no such command: %.150s", file);
	give_up(errno, "cannot run %.150s: %s", file, strerror(errno));
}

void run(const struct order *order, int report, const char *tty)
{
	report_fd = report;
	struct passwd user = find_user(order->user);
	const char *shell = user.pw_shell && *user.pw_shell ? user.pw_shell : "/bin/sh";
	if (tty)
		take_terminal(tty, &user);
	join_the_queue_of_victims();
	become_user(&user);
	go_to(order->cwd, &user);
	make_environment(order, &user, shell);
	if (!order->login)
		start(order->argv, order->argv[0]);
	/* A leading dash makes a shell read its profile. */
	char name[128];
	const char *slash = strrchr(shell, '/');
	snprintf(name, sizeof name, "-%s", slash ? slash + 1 : shell);
	char *argv[] = {name, NULL};
	start(argv, shell);
}
