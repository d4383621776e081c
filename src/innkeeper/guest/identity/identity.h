/* innkeeper-guest: who this machine is. ../README.md has the order and the promises. */
#ifndef INNKEEPER_IDENTITY_H
#define INNKEEPER_IDENTITY_H

#include <net/if.h>

#include "../guest.h"

#define CARDS_MAX 16
#define ADDRESSES_MAX 16
#define DNS_MAX 8
#define SEED_BYTES 64
#define MAC_BYTES 6

#define OUR_RUN "/run/innkeeper"
#define OUR_IDENTITY OUR_RUN "/identity"   /* what the hook reads; no secrets in it */
#define HOOK "/usr/lib/innkeeper/identified" /* the image's own part, started when ours is done */

struct address {
	int family; /* AF_INET or AF_INET6 */
	uint8_t bytes[16];
	int prefix;
	const char *words;
};

/* Strings point into the frame. What was not said is NULL, or 0. */
struct card {
	uint8_t from[MAC_BYTES], mac[MAC_BYTES];
	const char *name, *mac_words, *gateway_words;
	struct address addresses[ADDRESSES_MAX], gateway;
	const char *dns[DNS_MAX];
	int address_count, dns_count;
	uint32_t mtu;
	bool has_gateway;
	char device[IF_NAMESIZE]; /* the kernel's name for it, once it was found */
};

struct identity {
	const char *hostname, *domain, *machine_id, *boot_id, *host_key, *host_key_public, *instance;
	uint8_t seed[SEED_BYTES];
	bool has_seed, cloud_init;
	int64_t time_ns;
	struct card cards[CARDS_MAX];
	int card_count;
};

/* words.c: from the frame to values. */
bool identity_read(struct identity *who, const struct frame *frame, struct text *faults);

/* network.c: the cards. */
void network_apply(struct identity *who, struct text *faults);

/* announce.c: once a card has its link, the network hears whose addresses these are. */
void announce_expect(int index, const struct card *card);
void announce_begin(void);

/* files.c: a file is there whole, or as it was. */
bool file_write(const char *path, const char *text, mode_t mode, struct text *faults);
bool file_remove(const char *path, struct text *faults);
void files_remove(const char *folder, const char *pattern, struct text *faults);
bool is_own_file(const char *path);

#endif
