"""What our images do when the guest program has told a machine who it is: the scripts that it starts at its end.

The program has done what every Linux machine needs, and the machine is already in use when these run. They tell the
image's own services, so that the next boot finds the same: systemd-networkd and cloud-init in Debian, DHCP and the name
servers in the tiny machine. The identity that they read is written by the guest program (guest/README.md).
"""

from __future__ import annotations

PLACE = "/usr/lib/innkeeper/identified"
KEEP_KEYS = "/etc/cloud/cloud.cfg.d/95-innkeeper-identity.cfg"

_BEGIN = """\
#!/bin/sh
# Started when this machine has been told who it is, by innkeeper-guest, which does not wait for it.
# It may be told again before we are done: the later one finds what the earlier one left.
exec 9>/run/innkeeper/identified.lock
flock 9
"""

_HOOKS = """\
for hook in /etc/innkeeper/identity.d/*; do
	if [ -x "$hook" ]; then "$hook" 9>&-; fi
done
"""

# The words and their order are those of cloud-init's renderer, which writes the same file when it runs anew.
_DEBIAN = """\
newline='
'
end_card() {
	[ -n "$card" ] || return 0
	file=/etc/systemd/network/10-cloud-init-$card.network
	{
		printf '%s' "$addresses"
		[ -z "$mtu" ] || printf '[Link]\\nMTUBytes=%s\\n\\n' "$mtu"
		printf '[Match]\\nMACAddress=%s\\nName=%s\\n\\n[Network]\\nDHCP=no\\n' "$mac" "$card"
		[ -z "$dns" ] || printf 'DNS=%s\\n' "${dns# }"
		[ -z "$dns" ] || [ -z "$domain" ] || printf 'Domains=%s\\n' "$domain"
		echo
		case $gateway in
		'') ;;
		*:*) printf '[Route]\\nDestination=::/0\\n\\nGateway=%s\\n\\n' "$gateway" ;;
		*) printf '[Route]\\nDestination=0.0.0.0/0\\n\\nGateway=%s\\n\\n' "$gateway" ;;
		esac
	} >"$file.new"
	chown systemd-network:systemd-network "$file.new"
	mv "$file.new" "$file"
	# Until the next boot: what is set already stays when networkd takes the card over, whether its cable is in or not.
	mkdir -p "/run/systemd/network/${file##*/}.d"
	printf '[Network]\\nKeepConfiguration=static\\nConfigureWithoutCarrier=yes\\n' \\
		>"/run/systemd/network/${file##*/}.d/innkeeper.conf"
}

instance='' domain='' host_key=0 cloud_init=0 card=''
while IFS='=' read -r key value; do
	case $key in
	instance | domain | host_key | cloud_init | mac | mtu | gateway) eval "$key=\\$value" ;;
	card)
		end_card
		card=$value addresses='' dns='' mac='' mtu='' gateway=''
		;;
	address) addresses="${addresses}[Address]${newline}Address=$value$newline$newline" ;;
	dns) dns="$dns $value" ;;
	esac
done <"$INNKEEPER_IDENTITY"
end_card

# For this instance alone: the generator takes it away on any other, whose keys are to be new.
if [ "$host_key" = 1 ] && [ -n "$instance" ]; then
	printf '# instance %s\\nssh_deletekeys: false\\n' "$instance" >@KEEP_KEYS@.new
	mv @KEEP_KEYS@.new @KEEP_KEYS@
fi
sync -f /etc

# networkd finds the addresses that it is to set, and tells the name servers to resolved.
[ -z "$card" ] || networkctl reload
# innkeeper-guest has taken the earlier result away, so that it is said to run from the first moment.
# The target orders the first two before the others.
if [ "$cloud_init" = 1 ]; then
	systemctl --no-block restart cloud-init-local.service cloud-init.service cloud-config.target \\
		cloud-config.service cloud-final.service
fi
# It keeps the journal in a folder named after the machine-id, in which journalctl looks for it.
systemctl --no-block restart systemd-journald.service
"""

_TINY = """\
# The host gave us our addresses, and gives the same to whoever asks by DHCP: nothing has to be renewed.
killall udhcpc 2>/dev/null

ask() {
	[ -n "$card" ] && [ -z "$address" ] || return 0
	udhcpc -b -S -i "$card" -s /etc/udhcpc.script -O hostname -p "/run/udhcpc.$card.pid" >/dev/null 2>&1 9>&- &
}
card='' address='' domain='' servers=''
while IFS='=' read -r key value; do
	case $key in
	card)
		ask
		card=$value address=''
		;;
	address | domain) eval "$key=\\$value" ;;
	dns) servers="$servers $value" ;;
	esac
done <"$INNKEEPER_IDENTITY"
ask

if [ -n "$servers" ]; then
	{
		[ -z "$domain" ] || echo "search $domain"
		for server in $servers; do echo "nameserver $server"; done
	} >/run/resolv.conf.new
	mv /run/resolv.conf.new /run/resolv.conf
fi
"""


def debian() -> str:
    return _BEGIN + _DEBIAN.replace("@KEEP_KEYS@", KEEP_KEYS) + _HOOKS


def tiny() -> str:
    return _BEGIN + _TINY + _HOOKS
