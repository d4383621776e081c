#!/bin/sh
# Runs when all packages are configured; $1 is the root file system.
set -eu
root=$1
cp -a --remove-destination '/pool/staging/t-1 and a blank/work/overlay'/. "$root/"
chroot "$root" /bin/sh -eu <<'IN'
dpkg-divert --quiet --local --rename --add /sbin/shutdown
ln -s /usr/lib/innkeeper/shutdown /sbin/shutdown
systemctl --quiet enable systemd-networkd systemd-resolved systemd-timesyncd qemu-guest-agent innkeeper-guest
systemctl --quiet disable e2scrub_reap.service e2scrub_all.timer unattended-upgrades.service
systemctl --quiet set-default multi-user.target
apt-mark -qq hold $(dpkg-query --show --showformat '${Package} ' 'linux-image-*')
sed -i 's/^update_initramfs=yes/update_initramfs=no/' /etc/initramfs-tools/update-initramfs.conf
usermod --password '*' root
# Without a name of its own it bears from the first moment the one that its kernel was given.
rm -f /etc/hostname /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed /etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
ln -s /etc/machine-id /var/lib/dbus/machine-id
: >/etc/machine-id
rm -rf /var/lib/cloud /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
find /var/log -type f -delete
IN
# The machine's ways to its mirror stay outside.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/0000*
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
