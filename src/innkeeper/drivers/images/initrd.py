"""The initial RAM disk of the images that we build: its first program, and the script that packs it.

It knows the machine, so it searches nothing: it loads the few modules between the kernel and its root disk, checks and
mounts the disk and hands over. No udev, no shell that waits for somebody, no compression (unpacking costs more than
reading).

The agents' ports get their names here too, as udev would name them later, so that the guest agent can be the first
service. The drivers hear a port's name from the host a moment after they are loaded, which is why that comes last and
waits a little.

A root that cannot be mounted ends in a kernel panic with words on the console: the host sees it at once, and nobody
can log in.
"""

from __future__ import annotations

from innkeeper.drivers.images.catalogue import Recipe

AGENT_PORT = "org.qemu.guest_agent.0"

_FSTAB = """\
proc /proc proc nosuid,nodev,noexec 0 0
devtmpfs /dev devtmpfs nosuid,mode=0755 0 0
sysfs /sys sysfs nosuid,nodev,noexec 0 0
"""

# Each command is a process of its own, which under emulation costs more than what most of them do.
_INIT = """\
#!/bin/busybox sh
# First program of the kernel. See innkeeper's drivers/images/initrd.py.
say() { echo "initrd: $*" >/dev/console; }
stop() { say "$*. The root disk cannot be used; look at it from the host."; exit 1; }

# By its full name: BusyBox finds its own commands through /proc.
/bin/busybox mount -a

root= first=/sbin/init access=rw
read -r line </proc/cmdline
for word in $line; do
	case $word in
	root=*) root=${word#root=} ;;
	init=*) first=${word#init=} ;;
	ro | rw) access=$word ;;
	esac
done

modprobe -a @MODULES@

tries=0
until [ -b "$root" ]; do
	[ $tries -lt 500 ] || stop "no disk at $root within 10 s"
	tries=$((tries + 1))
	usleep 20000
done

# The kernel replays the journal. It also writes down when it met damage, and only then is there something to check.
errors=0
if mount -t ext4 -o "$access" "$root" /root; then
	[ ! -e "/sys/fs/ext4/${root##*/}/errors_count" ] || read -r errors <"/sys/fs/ext4/${root##*/}/errors_count"
	[ "$errors" = 0 ] || umount /root
else
	errors=unknown
fi
if [ "$errors" != 0 ]; then
	say "$root is damaged (errors seen: $errors); checking it"
	fsck=0
	/sbin/e2fsck -p "$root" >/dev/console 2>&1 </dev/null || fsck=$?
	if [ $fsck -ge 4 ]; then
		say "$root has damage that is not mended unasked; it is mounted for reading only"
		access=ro
	fi
	mount -t ext4 -o "$access" "$root" /root || stop "$root cannot be mounted"
fi

name_ports() {
	for port in /sys/class/virtio-ports/*; do
		name=
		read -r name 2>/dev/null <"$port/name"
		[ -z "$name" ] || [ -e "/dev/virtio-ports/$name" ] || ln -s "../${port##*/}" "/dev/virtio-ports/$name"
	done
	[ -e /dev/virtio-ports/@PORT@ ]
}
mkdir -p /dev/virtio-ports /dev/pts /dev/shm
for console in /sys/bus/virtio/drivers/virtio_console/virtio*; do
	tries=0
	until [ ! -e "$console" ] || name_ports || [ $tries -ge 20 ]; do
		tries=$((tries + 1))
		usleep 10000
	done
done

mount --move /dev /root/dev
mount --move /sys /root/sys
mount --move /proc /root/proc
exec /bin/busybox switch_root /root "$first"
"""

_PACK = """\
# Packs the initial RAM disk from the unpacked packages.
early=$place/initrd
library=lib/modules/$version
mkdir -p "$early/bin" "$early/sbin" "$early/etc" "$early/dev" "$early/proc" "$early/sys" "$early/root" "$early/$library"
cp "$packages/bin/busybox" "$early/bin/busybox"
cp "$packages/sbin/e2fsck.static" "$early/sbin/e2fsck"
install -m 0755 "$place/init" "$early/init"
install -m 0644 "$place/fstab" "$early/etc/fstab"
for module in @MODULES@; do
	chroot "$packages" /sbin/modprobe --set-version "$version" --show-depends "$module"
done | sed -n "s,^insmod /$library/\\([^ ]*\\).*,\\1,p" | sort -u >"$place/early"
while read -r module; do
	install -D -m 0644 "$packages/$library/$module" "$early/$library/$module"
	grep "^$module:" "$packages/$library/modules.dep" >>"$early/$library/modules.dep"
done <"$place/early"
find "$early" -exec touch --no-dereference --date="@$epoch" {} +
(cd "$early" && find . | sort | cpio --quiet --create --format=newc --reproducible --owner=0:0) >"$staging/initrd.img"
"""


def init_script(recipe: Recipe) -> str:
    return _INIT.replace("@PORT@", AGENT_PORT).replace("@MODULES@", " ".join(recipe.early_modules))


def fstab() -> str:
    return _FSTAB


def pack_script(recipe: Recipe) -> str:
    """A part of the assembling script; uses its variables `packages`, `place`, `staging`, `version` and `epoch`."""
    return _PACK.replace("@MODULES@", " ".join(recipe.early_modules))
