/*
 * Telling the network whose the addresses are, once a card's link is up.
 *
 * The host connects a machine only when it knows who it is. The kernel announces addresses when a card is brought up by us, not
 * when a cable is put in; so we wait for that here, without polling, and ask for our own address once (a gratuitous ARP request),
 * which corrects neighbours that remember an earlier owner and teaches switches where we are.
 */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity.h"

#define LOWER_UP 0x10000u /* IFF_LOWER_UP: there is a carrier. The header that has it cannot stand beside libc's */

static struct waiting {
	int index; /* 0: a free place */
	uint8_t mac[MAC_BYTES];
	uint8_t addresses[ADDRESSES_MAX][4];
	int count;
} waiting[CARDS_MAX];
static int news = -1; /* the kernel's words about links, while somebody waits */

int announce_descriptor(void) { return news; }

static void announce(const struct waiting *card)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_ifindex = card->index, .sll_halen = MAC_BYTES,
		.sll_addr = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (int i = 0; fd >= 0 && i < card->count; i++) {
		struct ether_arp ask = {.ea_hdr = {htons(ARPHRD_ETHER), htons(ETH_P_IP), MAC_BYTES, 4, htons(ARPOP_REQUEST)}};
		memcpy(ask.arp_sha, card->mac, MAC_BYTES);
		memcpy(ask.arp_spa, card->addresses[i], 4);
		memcpy(ask.arp_tpa, card->addresses[i], 4);
		/* One that is lost costs nothing but that a neighbour finds out by itself. */
		if (sendto(fd, &ask, sizeof ask, 0, (struct sockaddr *)&to, sizeof to) < 0)
			break;
	}
	if (fd >= 0)
		close(fd);
}

/* 1: its link is up, 0: not yet, -1: it is gone. */
static int linked(const struct ifaddrs *list, int index)
{
	for (; list; list = list->ifa_next) {
		const struct sockaddr_ll *link = (const struct sockaddr_ll *)(const void *)list->ifa_addr;
		if (link && link->sll_family == AF_PACKET && link->sll_ifindex == index)
			/* Both: a card that was just brought up is said to run until somebody has looked for its carrier. */
			return list->ifa_flags & IFF_RUNNING && list->ifa_flags & LOWER_UP;
	}
	return -1;
}

/* Looks at every card that waits, whatever the kernel said: so words that were lost are no loss. */
void announce_serve(void)
{
	char words[8192];
	struct ifaddrs *list;
	bool more = false;
	while (news >= 0 && recv(news, words, sizeof words, MSG_DONTWAIT) > 0)
		;
	if (getifaddrs(&list))
		return;
	for (struct waiting *card = waiting; card < waiting + CARDS_MAX; card++) {
		int state = card->index ? linked(list, card->index) : -1;
		if (state > 0)
			announce(card);
		if (state)
			card->index = 0;
		more |= card->index != 0;
	}
	freeifaddrs(list);
	if (!more && news >= 0) {
		close(news);
		news = -1;
	}
}

void announce_expect(int index, const struct card *card)
{
	struct waiting *place = waiting;
	for (struct waiting *each = waiting; each < waiting + CARDS_MAX && place->index != index; each++)
		if (each->index == index || (place->index && !each->index))
			place = each;
	*place = (struct waiting){.index = index};
	memcpy(place->mac, card->mac, MAC_BYTES);
	for (int i = 0; i < card->address_count; i++)
		if (card->addresses[i].family == AF_INET)
			memcpy(place->addresses[place->count++], card->addresses[i].bytes, 4);
}

/* Listens before it looks, so that no link comes up in between unheard. */
void announce_begin(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	if (news < 0) {
		news = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
		if (news >= 0 && bind(news, (struct sockaddr *)&address, sizeof address)) {
			close(news);
			news = -1;
		}
	}
	announce_serve();
}
