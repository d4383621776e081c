"""The tiny machine: Debian's kernel, BusyBox, the QEMU guest agent, our guest program, and nothing else that runs.

Its root is a small file system on the disk, so that what is written stays. BusyBox's init starts both agents at once;
only then a script of the background brings up the network, the power button and the rest, and grows the file system to
the disk's size.

There is no way to log in but by the agents: root has no password, and nothing listens on the network.
"""

from __future__ import annotations

from innkeeper.drivers.images import identified
from innkeeper.drivers.images.catalogue import Recipe
from innkeeper.drivers.images.render import GuestFile

GUEST_PROGRAM = "/usr/lib/innkeeper/innkeeper-guest"

_INITTAB = """\
::sysinit:/bin/mount -a
::respawn:/usr/sbin/qemu-ga
@GUEST@::respawn:/etc/init.d/rest
ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/down
"""

# All that the agents need beside what the initial RAM disk hands over. The directories in /dev are its work too.
_FSTAB = """\
tmpfs /run tmpfs nosuid,nodev,mode=0755 0 0
devpts /dev/pts devpts nosuid,noexec,gid=5,mode=0620,ptmxmode=0666 0 0
tmpfs /dev/shm tmpfs nosuid,nodev,mode=1777 0 0
"""

# init starts what is respawned in order and all at once, after whatever runs once. So what runs once waits in here.
_REST = """\
#!/bin/sh
# Everything that the agents need not wait for, giving way to them while they start; then the power button's daemon.
if [ ! -e /run/rest ]; then
	: >/run/rest
	renice 15 $$ >/dev/null
	modprobe -a virtio_net button evdev virtio_rng pvpanic-mmio
	renice 0 $$ >/dev/null
	ifconfig lo 127.0.0.1 netmask 255.0.0.0 up
	for card in /sys/class/net/e*; do
		[ -e "$card" ] || continue
		card=${card##*/}
		udhcpc -b -S -i "$card" -s /etc/udhcpc.script -O hostname -p "/run/udhcpc.$card.pid" >/dev/null 2>&1 &
	done
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
	read -r arguments </proc/cmdline
	root=${arguments##*root=}
	resize2fs "${root%% *}" >/dev/null 2>&1 &
fi
exec acpid -f -l /dev/null -p /run/acpid.pid
"""

_DOWN = """\
#!/bin/sh
# init has told every process to end before it runs this.
sync
mount -o remount,ro /
"""

# The guest agent calls /sbin/shutdown with -P, -H or -r.
_SHUTDOWN = """\
#!/bin/sh
case " $* " in
*" -r "*) exec reboot ;;
*" -H "*) exec halt ;;
*) exec poweroff ;;
esac
"""

_POWER_BUTTON = """\
#!/bin/sh
exec poweroff
"""

_UDHCPC = """\
#!/bin/sh
# udhcpc calls this with what the DHCP server said. Several cards may write; the newest name servers win.
case $1 in
deconfig)
	ip -4 address flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	ip -4 address flush dev "$interface"
	ip address add "$ip/${mask:-24}" dev "$interface"
	for gateway in $router; do
		ip route replace default via "$gateway" dev "$interface" && break
	done
	[ -z "$hostname" ] || hostname "$hostname"
	{
		[ -z "$domain" ] || echo "search $domain"
		for server in $dns; do
			echo "nameserver $server"
		done
	} >/run/resolv.conf.new
	mv /run/resolv.conf.new /run/resolv.conf
	;;
esac
"""

_HOSTS = """\
127.0.0.1 localhost tiny
::1 localhost ip6-localhost
"""

_ASSEMBLE = """\
# Picks the machine's files out of the packages.
root=@ROOT@
for directory in bin sbin lib64 usr/bin usr/sbin usr/lib etc proc sys dev run tmp var/lib var/log home mnt srv; do
	mkdir -p "$root/$directory"
done
mkdir -m 0700 "$root/root"
chmod 1777 "$root/tmp"
libraries() {
	chroot "$packages" /lib64/ld-linux-x86-64.so.2 --list "$1" | sed -n 's/.*[[:space:]]\\/\\([^ ]*\\) (0x.*/\\1/p'
}
pick() { (cd "$packages" && cp -pL --parents "$@" "$root"); }
pick bin/busybox
for program in usr/sbin/qemu-ga sbin/resize2fs; do
	pick "$program"
	# shellcheck disable=SC2046  # one library a word
	pick $(libraries "/$program")
done
chroot "$packages" /sbin/depmod "$version"
for module in @MODULES@; do
	chroot "$packages" /sbin/modprobe --set-version "$version" --show-depends "$module"
done | sed -n 's/^insmod \\/\\([^ ]*\\).*/\\1/p' | sort -u | while read -r module; do pick "$module"; done
for list in order builtin builtin.modinfo; do pick "lib/modules/$version/modules.$list"; done
cp -a --remove-destination "$place/overlay/." "$root/"
chroot "$root" /bin/busybox --install -s
chroot "$root" /bin/busybox depmod "$version"
ln -sf /run/resolv.conf "$root/etc/resolv.conf"
ln -sf /run "$root/var/run"
ln -sf /proc/mounts "$root/etc/mtab"
"""


def files(*, with_guest: bool) -> tuple[GuestFile, ...]:
    """Our files in the image, program excluded."""
    guest = f"::respawn:{GUEST_PROGRAM}\n" if with_guest else ""
    return (
        GuestFile(path="/etc/acpi/PWRF/00000080", text=_POWER_BUTTON, mode=0o755),
        GuestFile(path="/etc/fstab", text=_FSTAB),
        GuestFile(path="/etc/group", text="root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        GuestFile(path="/etc/hosts", text=_HOSTS),
        GuestFile(path="/etc/init.d/rest", text=_REST, mode=0o755),
        GuestFile(path="/etc/init.d/down", text=_DOWN, mode=0o755),
        GuestFile(path="/etc/inittab", text=_INITTAB.replace("@GUEST@", guest)),
        GuestFile(path="/etc/passwd", text="root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        GuestFile(path="/etc/shadow", text="root:*:0:::::::\nnobody:*:0:::::::\n", mode=0o600),
        GuestFile(path="/etc/udhcpc.script", text=_UDHCPC, mode=0o755),
        GuestFile(path="/sbin/shutdown", text=_SHUTDOWN, mode=0o755),
        *([GuestFile(path=identified.PLACE, text=identified.tiny(), mode=0o755)] if with_guest else []),
    )


def assemble_script(recipe: Recipe) -> str:
    return _ASSEMBLE.replace("@MODULES@", " ".join((*recipe.early_modules, *recipe.late_modules)))
