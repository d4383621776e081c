/*
 * The cards: found by the address they were born with, given their own, by rtnetlink and nothing else.
 *
 * What stands on a card and was not asked for (the baked machine's address, a parent's) goes. Everything may be asked for twice.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity.h"

#define PROTOCOL_STATIC RTPROT_STATIC /* as networkd's own routes, so that it takes ours for them */

struct request {
	struct nlmsghdr head;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg address;
		struct rtmsg route;
	} body;
	uint8_t room[512];
};

static int kernel = -1;

static void begin(struct request *ask, uint16_t type, uint16_t flags, size_t body)
{
	memset(ask, 0, sizeof *ask);
	ask->head.nlmsg_len = NLMSG_LENGTH(body);
	ask->head.nlmsg_type = type;
	ask->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
}

static struct rtattr *add(struct request *ask, int type, const void *data, size_t length)
{
	struct rtattr *attribute = (struct rtattr *)(void *)((uint8_t *)ask + NLMSG_ALIGN(ask->head.nlmsg_len));
	attribute->rta_type = (unsigned short)type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attribute), data, length);
	ask->head.nlmsg_len = NLMSG_ALIGN(ask->head.nlmsg_len) + (uint32_t)RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static void add_number(struct request *ask, int type, uint32_t number) { add(ask, type, &number, sizeof number); }

static void end_nest(const struct request *ask, struct rtattr *nest)
{
	nest->rta_len = (unsigned short)((const uint8_t *)ask + ask->head.nlmsg_len - (const uint8_t *)nest);
}

/* 0 or an errno. */
static int tell(struct request *ask)
{
	static uint32_t last;
	struct {
		struct nlmsghdr head;
		struct nlmsgerr body;
		uint8_t rest[1024];
	} answer;
	ask->head.nlmsg_seq = ++last;
	if (send(kernel, ask, ask->head.nlmsg_len, 0) < 0)
		return errno;
	for (;;) {
		ssize_t got = recv(kernel, &answer, sizeof answer, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < (ssize_t)(sizeof answer.head + sizeof answer.body))
			return got < 0 ? errno : EPROTO;
		if (answer.head.nlmsg_seq == last && answer.head.nlmsg_type == NLMSG_ERROR)
			return -answer.body.error;
	}
}

static const struct sockaddr_ll *link_of(const struct ifaddrs *entry)
{
	if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_PACKET)
		return NULL;
	return (const struct sockaddr_ll *)(const void *)entry->ifa_addr;
}

/* The first of several: what stands on a card (a bridge, a VLAN) bears its address too, and was made later. */
static const struct ifaddrs *find(const struct ifaddrs *list, const uint8_t mac[MAC_BYTES])
{
	const struct ifaddrs *found = NULL;
	for (; list; list = list->ifa_next) {
		const struct sockaddr_ll *link = link_of(list);
		if (link && link->sll_halen == MAC_BYTES && !memcmp(link->sll_addr, mac, MAC_BYTES) &&
		    (!found || link->sll_ifindex < link_of(found)->sll_ifindex))
			found = list;
	}
	return found;
}

static int set_up(int index, bool up)
{
	struct request ask;
	begin(&ask, RTM_NEWLINK, 0, sizeof ask.body.link);
	ask.body.link.ifi_index = index;
	ask.body.link.ifi_change = IFF_UP;
	ask.body.link.ifi_flags = up ? IFF_UP : 0;
	return tell(&ask);
}

/* Down first when the address or the name changes: then the kernel makes its link-local address anew, and forgets old routes. */
static int configure_link(int index, const struct ifaddrs *now, const struct card *card)
{
	static const uint32_t yes = 1;
	struct request ask;
	bool renamed = card->name && strcmp(card->name, now->ifa_name) != 0;
	bool moved = memcmp(link_of(now)->sll_addr, card->mac, MAC_BYTES) != 0;
	int error = (renamed || moved) && now->ifa_flags & IFF_UP ? set_up(index, false) : 0;
	if (error)
		return error;
	begin(&ask, RTM_NEWLINK, 0, sizeof ask.body.link);
	ask.body.link.ifi_index = index;
	ask.body.link.ifi_change = ask.body.link.ifi_flags = IFF_UP;
	if (moved)
		add(&ask, IFLA_ADDRESS, card->mac, MAC_BYTES);
	if (card->mtu)
		add_number(&ask, IFLA_MTU, card->mtu);
	if (renamed)
		add(&ask, IFLA_IFNAME, card->name, strlen(card->name) + 1);
	/* The same as writing net.ipv4.conf.NAME.arp_notify, without a path. */
	struct rtattr *families = add(&ask, IFLA_AF_SPEC, NULL, 0);
	struct rtattr *inet = add(&ask, AF_INET, NULL, 0);
	struct rtattr *settings = add(&ask, IFLA_INET_CONF, NULL, 0);
	add(&ask, IPV4_DEVCONF_ARP_NOTIFY, &yes, sizeof yes);
	end_nest(&ask, settings);
	end_nest(&ask, inet);
	end_nest(&ask, families);
	return tell(&ask);
}

static int change_address(int index, const struct address *address, bool wanted)
{
	struct request ask;
	size_t length = address->family == AF_INET6 ? 16 : 4;
	begin(&ask, wanted ? RTM_NEWADDR : RTM_DELADDR, wanted ? NLM_F_CREATE | NLM_F_REPLACE : 0, sizeof ask.body.address);
	ask.body.address = (struct ifaddrmsg){.ifa_family = (uint8_t)address->family, .ifa_prefixlen = (uint8_t)address->prefix,
					      .ifa_index = (uint32_t)index};
	add(&ask, IFA_LOCAL, address->bytes, length);
	add(&ask, IFA_ADDRESS, address->bytes, length);
	if (wanted && address->family == AF_INET6)
		/* The host gave it to us alone, and asking around would take a second. */
		add_number(&ask, IFA_FLAGS, IFA_F_NODAD);
	if (wanted && address->family == AF_INET && address->prefix < 31) {
		uint8_t all[4];
		for (int bit = 0; bit < 32; bit++) {
			if (bit % 8 == 0)
				all[bit / 8] = address->bytes[bit / 8];
			all[bit / 8] |= (uint8_t)(bit >= address->prefix ? 0x80 >> bit % 8 : 0);
		}
		add(&ask, IFA_BROADCAST, all, sizeof all);
	}
	return tell(&ask);
}

static bool address_of(const struct ifaddrs *entry, struct address *address)
{
	uint8_t mask[16] = {0};
	if (!entry->ifa_addr || !entry->ifa_netmask)
		return false;
	address->family = entry->ifa_addr->sa_family;
	if (address->family == AF_INET) {
		memcpy(address->bytes, &((struct sockaddr_in *)(void *)entry->ifa_addr)->sin_addr, 4);
		memcpy(mask, &((struct sockaddr_in *)(void *)entry->ifa_netmask)->sin_addr, 4);
	} else if (address->family == AF_INET6) {
		memcpy(address->bytes, &((struct sockaddr_in6 *)(void *)entry->ifa_addr)->sin6_addr, 16);
		memcpy(mask, &((struct sockaddr_in6 *)(void *)entry->ifa_netmask)->sin6_addr, 16);
	} else {
		return false;
	}
	address->prefix = 0;
	for (int i = 0; i < 16; i++)
		address->prefix += __builtin_popcount(mask[i]);
	/* Link-local ones are the kernel's own affair. */
	return address->family == AF_INET || address->bytes[0] != 0xfe || (address->bytes[1] & 0xc0) != 0x80;
}

static bool is_wanted(const struct card *card, const struct address *address)
{
	size_t length = address->family == AF_INET6 ? 16 : 4;
	for (const struct address *each = card->addresses; each < card->addresses + card->address_count; each++)
		if (each->family == address->family && each->prefix == address->prefix && !memcmp(each->bytes, address->bytes, length))
			return true;
	return false;
}

static void drop_others(int index, const char *device, const struct ifaddrs *list, const struct card *card)
{
	struct address address;
	for (; list; list = list->ifa_next)
		if (!strcmp(list->ifa_name, device) && address_of(list, &address) && !is_wanted(card, &address))
			/* It may have gone when the card went down. */
			change_address(index, &address, false);
}

/* Of several cards with a gateway the first one's is the way out. */
static int add_route(int index, const struct address *gateway, bool is_first)
{
	struct request ask;
	for (int onlink = 0;; onlink++) {
		begin(&ask, RTM_NEWROUTE, (uint16_t)(NLM_F_CREATE | (is_first ? NLM_F_REPLACE : NLM_F_EXCL)), sizeof ask.body.route);
		ask.body.route = (struct rtmsg){.rtm_family = (uint8_t)gateway->family, .rtm_table = RT_TABLE_MAIN,
						.rtm_protocol = PROTOCOL_STATIC, .rtm_scope = RT_SCOPE_UNIVERSE,
						.rtm_type = RTN_UNICAST, .rtm_flags = onlink ? RTNH_F_ONLINK : 0};
		add(&ask, RTA_GATEWAY, gateway->bytes, gateway->family == AF_INET6 ? 16 : 4);
		add_number(&ask, RTA_OIF, (uint32_t)index);
		int error = tell(&ask);
		if (error == EEXIST && !is_first)
			return 0;
		/* A gateway outside the card's own network, as some networks have it. */
		if (onlink || (error != ENETUNREACH && error != EHOSTUNREACH && error != EINVAL))
			return error;
	}
}

static void apply(struct card *card, const struct ifaddrs *list, bool first_gateway, struct text *faults)
{
	/* Its own address first: this may be the second time, and the other's may be on its way to somebody else. */
	const struct ifaddrs *found = find(list, card->mac);
	found = found ? found : find(list, card->from);
	if (!found) {
		text_line(faults, "no network card has the address %02x:%02x:%02x:%02x:%02x:%02x", card->from[0], card->from[1],
			  card->from[2], card->from[3], card->from[4], card->from[5]);
		return;
	}
	int index = link_of(found)->sll_ifindex;
	int error = configure_link(index, found, card);
	if (error)
		text_line(faults, "cannot set up the network card %s: %s", found->ifa_name, strerror(error));
	if (!if_indextoname((unsigned)index, card->device))
		snprintf(card->device, sizeof card->device, "%s", found->ifa_name);
	drop_others(index, found->ifa_name, list, card);
	for (const struct address *each = card->addresses; each < card->addresses + card->address_count; each++)
		if ((error = change_address(index, each, true)))
			text_line(faults, "cannot give %s the address %s: %s", card->device, each->words, strerror(error));
	if (card->has_gateway && (error = add_route(index, &card->gateway, first_gateway)))
		text_line(faults, "cannot set the gateway %s of %s: %s", card->gateway_words, card->device, strerror(error));
	announce_expect(index, card);
}

void network_apply(struct identity *who, struct text *faults)
{
	struct ifaddrs *list = NULL;
	bool had_gateway[2] = {false, false};
	if (!who->card_count)
		return;
	kernel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (kernel < 0 || getifaddrs(&list)) {
		text_line(faults, "cannot see the network cards: %s", strerror(errno));
	} else {
		for (struct card *card = who->cards; card < who->cards + who->card_count; card++) {
			bool *had = &had_gateway[card->gateway.family == AF_INET6];
			apply(card, list, !*had, faults);
			*had |= card->has_gateway;
		}
		freeifaddrs(list);
		announce_begin();
	}
	if (kernel >= 0)
		close(kernel);
	kernel = -1;
}
