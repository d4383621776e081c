#!/bin/sh
# Makes the root file system, and what its kernel is started with, from unpacked packages.
set -eu
export LC_ALL=C
packages='/pool/staging/t-1 and a blank/work/packages' place='/pool/staging/t-1 and a blank/work' staging='/pool/staging/t-1 and a blank'
version=$(ls "$packages/lib/modules")
# The lists are newer than the packages that they name: what is newer than the lists was made here, and gets their day.
seconds() { while read -r day; do date --date="$day" +%s; done; }
epoch=$(sed -n 's/^Date: //p' "$packages"/var/lib/apt/lists/*Release | seconds | sort -n | tail -n 1)
rm -rf "$packages"/var/lib/apt/lists/*
cp "$packages/boot/vmlinuz-$version" "$staging/vmlinuz"
# Picks the machine's files out of the packages.
root='/pool/staging/t-1 and a blank/work/root'
for directory in bin sbin lib64 usr/bin usr/sbin usr/lib etc proc sys dev run tmp var/lib var/log home mnt srv; do
	mkdir -p "$root/$directory"
done
mkdir -m 0700 "$root/root"
chmod 1777 "$root/tmp"
libraries() {
	chroot "$packages" /lib64/ld-linux-x86-64.so.2 --list "$1" | sed -n 's/.*[[:space:]]\/\([^ ]*\) (0x.*/\1/p'
}
pick() { (cd "$packages" && cp -pL --parents "$@" "$root"); }
pick bin/busybox
for program in usr/sbin/qemu-ga sbin/resize2fs; do
	pick "$program"
	# shellcheck disable=SC2046  # one library a word
	pick $(libraries "/$program")
done
chroot "$packages" /sbin/depmod "$version"
for module in virtio_pci virtio_console virtio_blk button evdev isofs loop overlay pvpanic-mmio virtio_net virtio_rng; do
	chroot "$packages" /sbin/modprobe --set-version "$version" --show-depends "$module"
done | sed -n 's/^insmod \/\([^ ]*\).*/\1/p' | sort -u | while read -r module; do pick "$module"; done
for list in order builtin builtin.modinfo; do pick "lib/modules/$version/modules.$list"; done
cp -a --remove-destination "$place/overlay/." "$root/"
chroot "$root" /bin/busybox --install -s
chroot "$root" /bin/busybox depmod "$version"
ln -sf /run/resolv.conf "$root/etc/resolv.conf"
ln -sf /run "$root/var/run"
ln -sf /proc/mounts "$root/etc/mtab"
# Packs the initial RAM disk from the unpacked packages.
early=$place/initrd
library=lib/modules/$version
mkdir -p "$early/bin" "$early/sbin" "$early/etc" "$early/dev" "$early/proc" "$early/sys" "$early/root" "$early/$library"
cp "$packages/bin/busybox" "$early/bin/busybox"
cp "$packages/sbin/e2fsck.static" "$early/sbin/e2fsck"
install -m 0755 "$place/init" "$early/init"
install -m 0644 "$place/fstab" "$early/etc/fstab"
for module in virtio_pci virtio_console virtio_blk; do
	chroot "$packages" /sbin/modprobe --set-version "$version" --show-depends "$module"
done | sed -n "s,^insmod /$library/\([^ ]*\).*,\1,p" | sort -u >"$place/early"
while read -r module; do
	install -D -m 0644 "$packages/$library/$module" "$early/$library/$module"
	grep "^$module:" "$packages/$library/modules.dep" >>"$early/$library/modules.dep"
done <"$place/early"
find "$early" -exec touch --no-dereference --date="@$epoch" {} +
(cd "$early" && find . | sort | cpio --quiet --create --format=newc --reproducible --owner=0:0) >"$staging/initrd.img"
find '/pool/staging/t-1 and a blank/work/root' -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
echo "$epoch" >"$place/epoch"
