/*
 * IDENTITY's words to values: entries `key=value`, each ended by NUL. `card` begins a card, to which name, mac, address, gateway,
 * dns and mtu after it belong. Unknown keys are a newer host's and passed over; a known one that makes no sense is a fault, and
 * the rest is still done: a machine without its gateway is better than one that bears another's name.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static bool read_hex(const char *words, uint8_t *to, size_t size)
{
	for (size_t i = 0; i < size; i++, words += 2) {
		int high = digit(words[0]), low = high < 0 ? -1 : digit(words[1]);
		if (low < 0)
			return false;
		to[i] = (uint8_t)(high << 4 | low);
	}
	return !*words;
}

static bool read_mac(const char *words, uint8_t mac[MAC_BYTES])
{
	char hex[MAC_BYTES * 2 + 1] = "";
	if (strlen(words) != MAC_BYTES * 3 - 1)
		return false;
	for (int i = 0; i < MAC_BYTES; i++) {
		if (i && words[i * 3 - 1] != ':')
			return false;
		memcpy(hex + i * 2, words + i * 3, 2);
	}
	return read_hex(hex, mac, MAC_BYTES);
}

static bool read_number(const char *words, int64_t most, int64_t *number)
{
	size_t length = strspn(words, "0123456789");
	if (!length || length > 19 || words[length])
		return false;
	*number = strtoll(words, NULL, 10);
	return *number <= most;
}

static bool read_plain_address(const char *words, struct address *address)
{
	address->family = strchr(words, ':') ? AF_INET6 : AF_INET;
	address->prefix = address->family == AF_INET6 ? 128 : 32;
	address->words = words;
	return inet_pton(address->family, words, address->bytes) == 1;
}

static bool read_address(const char *words, struct address *address)
{
	char plain[INET6_ADDRSTRLEN];
	int64_t prefix;
	size_t length = strcspn(words, "/");
	if (length >= sizeof plain || !words[length])
		return false;
	memcpy(plain, words, length);
	plain[length] = 0;
	if (!read_plain_address(plain, address) || !read_number(words + length + 1, address->prefix, &prefix))
		return false;
	address->prefix = (int)prefix;
	address->words = words;
	return true;
}

/* As the kernel would have it, and nothing that leads a path elsewhere. */
static bool is_device_name(const char *words)
{
	size_t length = strlen(words);
	return length && length < IF_NAMESIZE && words[0] != '.' && !strpbrk(words, "/: %");
}

static bool is_id(const char *words, const char *form)
{
	for (; *form; form++, words++)
		if (*form == '-' ? *words != '-' : digit(*words) < 0)
			return false;
	return !*words;
}

static bool is_host_name(const char *words, size_t most)
{
	return strlen(words) <= most && *words && *words != '.' && !strpbrk(words, "/ =\\\"'`$");
}

static bool take(const char **place, const char *value, bool good)
{
	if (good)
		*place = value;
	return good;
}

static bool begin_card(struct identity *who, const char *value)
{
	if (who->card_count == CARDS_MAX)
		return false;
	struct card *card = &who->cards[who->card_count];
	if (!read_mac(value, card->from))
		return false;
	memcpy(card->mac, card->from, MAC_BYTES);
	card->mac_words = value;
	who->card_count++;
	return true;
}

/* 1: taken, 0: makes no sense, -1: no key of a card. */
static int read_card(struct identity *who, const char *key, const char *value)
{
	static const char *const keys[] = {"name", "mac", "address", "gateway", "dns", "mtu"};
	int64_t number;
	struct address address;
	size_t which = 0;
	while (which < sizeof keys / sizeof keys[0] && strcmp(key, keys[which]) != 0)
		which++;
	if (which == sizeof keys / sizeof keys[0])
		return -1;
	if (!who->card_count)
		return 0;
	struct card *card = &who->cards[who->card_count - 1];
	switch (which) {
	case 0:
		return take(&card->name, value, is_device_name(value));
	case 1:
		return read_mac(value, card->mac) && take(&card->mac_words, value, true);
	case 2:
		return card->address_count < ADDRESSES_MAX && read_address(value, &card->addresses[card->address_count]) &&
		       ++card->address_count;
	case 3:
		card->has_gateway = read_plain_address(value, &card->gateway);
		return take(&card->gateway_words, value, card->has_gateway);
	case 4:
		return card->dns_count < DNS_MAX && read_plain_address(value, &address) &&
		       take(&card->dns[card->dns_count++], value, true);
	default:
		if (!read_number(value, 65536, &number))
			return 0;
		card->mtu = (uint32_t)number;
		return 1;
	}
}

/* The same for what the whole machine has once. */
static int read_own(struct identity *who, const char *key, const char *value)
{
	if (!strcmp(key, "seed"))
		return who->has_seed = read_hex(value, who->seed, SEED_BYTES);
	if (!strcmp(key, "time_ns"))
		return read_number(value, INT64_MAX - 1, &who->time_ns);
	if (!strcmp(key, "machine_id"))
		return take(&who->machine_id, value, is_id(value, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
	if (!strcmp(key, "boot_id"))
		return take(&who->boot_id, value, is_id(value, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"));
	if (!strcmp(key, "hostname"))
		return take(&who->hostname, value, is_host_name(value, 64));
	if (!strcmp(key, "domain"))
		return !*value || take(&who->domain, value, is_host_name(value, 253));
	if (!strcmp(key, "host_key"))
		return take(&who->host_key, value, *value);
	if (!strcmp(key, "host_key_public"))
		return take(&who->host_key_public, value, *value);
	if (!strcmp(key, "instance"))
		return take(&who->instance, value, is_host_name(value, 253));
	if (!strcmp(key, "cloud_init")) {
		who->cloud_init = !strcmp(value, "1");
		return who->cloud_init || !strcmp(value, "0");
	}
	return -1;
}

static bool is_one_line(const char *value)
{
	for (; *value; value++)
		if ((unsigned char)*value < ' ')
			return false;
	return true;
}

static void read_entry(struct identity *who, const char *entry, struct text *faults)
{
	char key[32];
	size_t length = strcspn(entry, "=");
	if (!entry[length] || length >= sizeof key)
		return;
	memcpy(key, entry, length);
	key[length] = 0;
	const char *value = entry + length + 1;
	/* A private key is the only text of several lines. */
	int taken = !strcmp(key, "card")                             ? begin_card(who, value)
		    : !is_one_line(value) && strcmp(key, "host_key") ? 0
								     : read_card(who, key, value);
	if (taken < 0)
		taken = read_own(who, key, value);
	if (!taken)
		text_line(faults, "cannot make sense of %s%.60s", key, strstr(key, "key") || !strcmp(key, "seed") ? "" : entry + length);
}

/* False: cut off, so that nothing of it may be believed. */
bool identity_read(struct identity *who, const struct frame *frame, struct text *faults)
{
	memset(who, 0, sizeof *who);
	if (!frame->length || frame->payload[frame->length - 1]) {
		text_line(faults, "the identity was cut off; nothing of it was taken on");
		return false;
	}
	const char *at = (const char *)frame->payload, *end = at + frame->length;
	for (; at < end; at += strlen(at) + 1)
		read_entry(who, at, faults);
	return true;
}
