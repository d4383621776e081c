"""What we lay over an installed Debian 12, and how the result is cleaned into a template.

Two aims. The agents answer as early as the system can run a command: they need the root disk and their ports, which
the initial RAM disk prepared, and wait for nothing else, least of all for the network or cloud-init. And user-data for
cloud-init works unmodified; only what can never apply to our machines is left out of its lists of modules.

Left alone on purpose: security updates (unattended-upgrades runs from its timer; only its resident process that
watches for a shutdown is not started), fstrim, time synchronisation, the journal on disk. The kernel is on hold:
instances boot the template's kernel from the host, so that a newer one in the guest would never run. A newer template
brings it.
"""

from __future__ import annotations

import shlex

from innkeeper.drivers.images import identified
from innkeeper.drivers.images.catalogue import SUITE
from innkeeper.drivers.images.initrd import AGENT_PORT
from innkeeper.drivers.images.render import PUBLIC_MIRROR, PUBLIC_SECURITY, GuestFile

_GUEST_UNIT = "/etc/systemd/system/innkeeper-guest.service"

_APT_SOURCES = f"""\
Types: deb
URIs: {PUBLIC_MIRROR}
Suites: {SUITE} {SUITE}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {PUBLIC_SECURITY}
Suites: {SUITE}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

_APT_UPGRADES = """\
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
"""

# Debian's unit starts when udev has seen the port, late in the boot. udev still starts this one when the initial RAM
# disk was not ours and the port had no name yet. Among waiting services systemd starts the one with the greatest
# weight first.
_QEMU_AGENT = f"""\
[Unit]
Description=QEMU Guest Agent
DefaultDependencies=no
ConditionPathExists=/dev/virtio-ports/{AGENT_PORT}
Conflicts=shutdown.target
Before=shutdown.target

[Service]
# Asked to end while it carries out a shutdown it spins, and the shutdown would wait 90 s for it.
TimeoutStopSec=5
ExecStart=-/usr/sbin/qemu-ga
Restart=always
RestartSec=0
StartupCPUWeight=10000

[Install]
WantedBy=sysinit.target
"""

# The agent calls `shutdown -P +0`, and for anything but `now` systemd asks logind, which starts late. An agent
# that is there early must be obeyed early. Diverted, so that upgrades of systemd leave it in place.
_SHUTDOWN_PLACE = "/usr/lib/innkeeper/shutdown"
_SHUTDOWN = """\
#!/bin/sh
if [ ! -S /run/dbus/system_bus_socket ]; then
	case " $* " in
	*" -P +0 "*) exec systemctl poweroff ;;
	*" -r +0 "*) exec systemctl reboot ;;
	*" -H +0 "*) exec systemctl halt ;;
	esac
fi
exec /sbin/shutdown.distrib "$@"
"""

# Our guest program's unit is written beside it; being the first beside the agent is this image's affair.
_FIRST = """\
[Service]
StartupCPUWeight=10000
"""

# Before any unit starts, systemd runs a dozen programs that look for something to do and, on machines like ours, find
# nothing; each costs an eighth of a second under emulation, and cloud-init's, a long shell script that asks which
# cloud this is, two seconds. This one asks the same questions first and calls those that have something to do.
_GENERATORS = """\
#!/bin/busybox sh
# Does the work of cloud-init's generator, and calls those of systemd's that have something to do; all are masked.
real=/lib/systemd/system-generators
read -r line </proc/cmdline
named() { case " $line" in *" $1"*) return 0 ;; *) return 1 ;; esac; }

# The data source is set in /etc/cloud/cloud.cfg.d.
state=enabled
[ ! -e /etc/cloud/cloud-init.disabled ] || state=disabled
! named cloud-init=enabled || state=enabled
! named cloud-init=disabled || state=disabled
mkdir -p /run/cloud-init "$2/multi-user.target.wants"
: >/run/cloud-init/$state
[ $state = disabled ] || ln -sf /lib/systemd/system/cloud-init.target "$2/multi-user.target.wants/cloud-init.target"

# Our hook lets an instance keep the SSH host key that it was given. A copy of its disk is another instance.
keep=@KEEP_KEYS@
if [ -e $keep ]; then
	read -r _ _ instance <$keep
	ours=
	for disk in /sys/class/block/vd[b-z]; do
		read -r read_only 2>/dev/null <"$disk/ro" || continue
		read -r sectors <"$disk/size"
		# Seeds are small and read-only; what else is there may take an hour to read.
		[ "$read_only" = 1 ] && [ "$sectors" -le 32768 ] || continue
		! grep -qF "\\"instance-id\\": \\"$instance\\"" "/dev/${disk##*/}" || ours=yes
	done
	[ -n "$ours" ] || rm -f $keep
fi

if [ -e /etc/crypttab ] || named luks || named rd.luks; then $real/systemd-cryptsetup-generator "$@"; fi
if [ -e /etc/integritytab ] || named integritytab; then $real/systemd-integritysetup-generator "$@"; fi
if [ -e /etc/veritytab ] || named roothash || named systemd.verity; then $real/systemd-veritysetup-generator "$@"; fi
if [ -e /etc/rc.local ]; then $real/systemd-rc-local-generator "$@"; fi
if [ -L /system-update ] || [ -L /etc/system-update ]; then $real/systemd-system-update-generator "$@"; fi
if named resume || named noresume || named hibernate; then $real/systemd-hibernate-resume-generator "$@"; fi
if named systemd. || named rd.systemd.; then
	$real/systemd-debug-generator "$@"
	$real/systemd-run-generator "$@"
fi
for script in /etc/init.d/*; do
	unit=${script##*/}
	unit=${unit%.sh}.service
	[ -e "/lib/systemd/system/$unit" ] || [ -e "/etc/systemd/system/$unit" ] || [ -L "/lib/systemd/system/$unit" ] || {
		$real/systemd-sysv-generator "$@"
		break
	}
done
exit 0
""".replace("@KEEP_KEYS@", identified.KEEP_KEYS)

# gpt-auto looks for more partitions on the root disk, which has none.
_MASKED_GENERATORS = (
    "cloud-init-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-veritysetup-generator",
)

# systemd starts mounts before services. Nothing needs these four before the agents.
_LATER_MOUNTS = ("dev-hugepages", "dev-mqueue", "sys-kernel-debug", "sys-kernel-tracing")
_LATER = """\
[Unit]
After=innkeeper-guest.service qemu-guest-agent.service
"""

_CLOUD_CONFIG = """\
# Our machines read NoCloud's data from a disk with the label cidata. One without such a disk has nothing to read.
datasource_list: [NoCloud, None]

# The file system fills the disk without a partition.
growpart: {mode: 'off'}
resize_rootfs: true

# Making an RSA key takes many seconds on an emulated processor, and every client since 2014 knows Ed25519.
ssh_genkeytypes: [ed25519]
ssh_deletekeys: true
disable_root: true

# Debian's lists without what needs other clouds, other distributions or a boot loader.
cloud_init_modules:
  - seed_random
  - bootcmd
  - write-files
  - resizefs
  - disk_setup
  - mounts
  - set_hostname
  - update_hostname
  - update_etc_hosts
  - ca-certs
  - users-groups
  - ssh
cloud_config_modules:
  - ssh-import-id
  - keyboard
  - locale
  - set-passwords
  - apt-configure
  - ntp
  - timezone
  - runcmd
cloud_final_modules:
  - package-update-upgrade-install
  - write-files-deferred
  - puppet
  - chef
  - salt-minion
  - scripts-vendor
  - scripts-per-once
  - scripts-per-boot
  - scripts-per-instance
  - scripts-user
  - ssh-authkey-fingerprints
  - keys-to-console
  - phone-home
  - final-message
  - power-state-change

system_info:
  network:
    renderers: [networkd]
    activators: [networkd]
"""

# A machine without cards, or with one whose link is down, must not wait two minutes; one whose seed names no card has
# nothing to wait for.
_WAIT_ONLINE = """\
[Unit]
ConditionPathExistsGlob=/sys/class/net/e*
ConditionPathExistsGlob=|/etc/systemd/network/*.network
ConditionPathExistsGlob=|/run/systemd/network/*.network

[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=30
"""

# Machines of one network find each other through its DNS server, by names without a dot. resolved asks LLMNR for those
# by default, which whoever shares the wire may answer.
_RESOLVED = """\
[Resolve]
ResolveUnicastSingleLabel=yes
LLMNR=no
MulticastDNS=no
"""

_SSHD = """\
# cloud-init's `ssh_pwauth: true` writes a file that is read before this one.
PasswordAuthentication no
"""

_FSTAB = "# The root file system is mounted by the initial RAM disk; `root=` of the kernel's arguments names it.\n"

_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""

_CUSTOMIZE = """\
#!/bin/sh
# Runs when all packages are configured; $1 is the root file system.
set -eu
root=$1
cp -a --remove-destination @OVERLAY@/. "$root/"
chroot "$root" /bin/sh -eu <<'IN'
dpkg-divert --quiet --local --rename --add /sbin/shutdown
ln -s @SHUTDOWN@ /sbin/shutdown
systemctl --quiet enable @ENABLED@
systemctl --quiet disable @DISABLED@
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
"""

_ENABLED = ("systemd-networkd", "systemd-resolved", "systemd-timesyncd", "qemu-guest-agent")
# e2scrub looks for LVM volumes.
_DISABLED = ("e2scrub_reap.service", "e2scrub_all.timer", "unattended-upgrades.service")

_ASSEMBLE = """\
# Debian's own initial RAM disk, for comparison and for machines that ours does not know. The guest never reads either.
cp "$packages/boot/initrd.img-$version" "$staging/initrd-stock.img"
rm -f "$packages"/boot/initrd.img* "$packages"/boot/vmlinuz* "$packages"/initrd.img* "$packages"/vmlinuz*
"""


def files(guest_unit: str | None) -> tuple[GuestFile, ...]:
    """Our files in the image, program excluded."""
    ours: tuple[GuestFile, ...] = ()
    if guest_unit is not None:
        first = GuestFile(path=f"{_GUEST_UNIT}.d/first.conf", text=_FIRST)
        hook = GuestFile(path=identified.PLACE, text=identified.debian(), mode=0o755)
        ours = (GuestFile(path=_GUEST_UNIT, text=guest_unit), first, hook)
    return (
        GuestFile(path="/etc/apt/apt.conf.d/20auto-upgrades", text=_APT_UPGRADES),
        GuestFile(path="/etc/apt/sources.list.d/debian.sources", text=_APT_SOURCES),
        GuestFile(path="/etc/cloud/cloud.cfg.d/90-innkeeper.cfg", text=_CLOUD_CONFIG),
        GuestFile(path="/etc/default/locale", text="LANG=C.UTF-8\n"),
        GuestFile(path="/etc/fstab", text=_FSTAB),
        GuestFile(path="/etc/hosts", text=_HOSTS),
        GuestFile(path="/etc/ssh/sshd_config.d/60-innkeeper.conf", text=_SSHD),
        GuestFile(path="/etc/systemd/resolved.conf.d/innkeeper.conf", text=_RESOLVED),
        GuestFile(path="/etc/systemd/system-generators/innkeeper-generator", text=_GENERATORS, mode=0o755),
        *(GuestFile(path=f"/etc/systemd/system/{name}.mount.d/later.conf", text=_LATER) for name in _LATER_MOUNTS),
        GuestFile(path="/etc/systemd/system/qemu-guest-agent.service", text=_QEMU_AGENT),
        GuestFile(path="/etc/systemd/system/systemd-networkd-wait-online.service.d/innkeeper.conf", text=_WAIT_ONLINE),
        GuestFile(path=_SHUTDOWN_PLACE, text=_SHUTDOWN, mode=0o755),
        *ours,
    )


def links() -> dict[str, str]:
    """Symbolic links of ours in the image: where, and to what."""
    return {f"/etc/systemd/system-generators/{name}": "/dev/null" for name in _MASKED_GENERATORS}


def customize_script(overlay: str, *, with_guest: bool) -> str:
    enabled = [*_ENABLED, *(["innkeeper-guest"] if with_guest else [])]
    words = {
        "@OVERLAY@": shlex.quote(overlay),
        "@SHUTDOWN@": _SHUTDOWN_PLACE,
        "@ENABLED@": " ".join(enabled),
        "@DISABLED@": " ".join(_DISABLED),
    }
    script = _CUSTOMIZE
    for mark, text in words.items():
        script = script.replace(mark, text)
    return script


def assemble_script() -> str:
    return _ASSEMBLE
