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
# Debian's own initial RAM disk, for comparison and for machines that ours does not know. The guest never reads either.
cp "$packages/boot/initrd.img-$version" "$staging/initrd-stock.img"
rm -f "$packages"/boot/initrd.img* "$packages"/boot/vmlinuz* "$packages"/initrd.img* "$packages"/vmlinuz*
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
find '/pool/staging/t-1 and a blank/work/packages' -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
echo "$epoch" >"$place/epoch"
