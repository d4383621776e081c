/*
 * Bytes to frames and back, without any descriptor.
 *
 *     magic u16 "IK" | type u8 | flags u8 | stream u32 | length u32 | payload | tail u32        (little-endian)
 *
 * The channel does not damage bytes, but it cuts: a host that dies in the middle of a frame is followed by another host's
 * frames. The tail, mixed from the header, exposes that: no byte of the second host ever reaches a command as if the first one
 * had sent it. After a bad head or tail we go on at the next byte that can begin a frame, inside what was already read.
 */
#include <string.h>

#include "guest.h"

uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

uint32_t get32(const uint8_t *at) { return get16(at) | (uint32_t)get16(at + 2) << 16; }

void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

void put32(uint8_t *at, uint32_t value)
{
	put16(at, (uint16_t)value);
	put16(at + 2, (uint16_t)(value >> 16));
}

static uint32_t tail_of(uint8_t type, uint8_t flags, uint32_t stream, uint32_t length)
{
	return (stream * 0x9e3779b1u) ^ (length * 0x85ebca6bu) ^ (0xa5c30000u | (uint32_t)type << 8 | flags);
}

/* The next whole frame, or false when more bytes are needed. Its payload lives in the box until inbox_settle. */
bool inbox_next(struct inbox *box, struct frame *frame)
{
	while (box->end - box->start >= FRAME_HEAD) {
		const uint8_t *head = box->bytes + box->start;
		uint32_t length = get32(head + 8);
		if (get16(head) == FRAME_MAGIC && length <= PAYLOAD_MAX) {
			uint32_t whole = FRAME_HEAD + length + FRAME_TAIL;
			if (box->end - box->start < whole)
				return false;
			*frame = (struct frame){head[2], head[3], get32(head + 4), length, head + FRAME_HEAD};
			if (get32(head + FRAME_HEAD + length) == tail_of(head[2], head[3], frame->stream, length)) {
				box->start += whole;
				return true;
			}
		}
		const uint8_t *next = memchr(head + 1, FRAME_MAGIC & 0xff, box->end - box->start - 1);
		box->start = next ? (uint32_t)(next - box->bytes) : box->end;
	}
	return false;
}

/* Move what is left to the front, so that a whole frame always fits. Ends the life of payloads handed out before. */
void inbox_settle(struct inbox *box)
{
	memmove(box->bytes, box->bytes + box->start, box->end - box->start);
	box->end -= box->start;
	box->start = 0;
}

/* How long a payload may be in the next frame; 0 also when not even an empty frame fits. */
uint32_t outbox_room(const struct outbox *box)
{
	uint32_t used = box->length + FRAME_HEAD + FRAME_TAIL;
	return used >= FRAME_MAX ? 0 : FRAME_MAX - used;
}

/* Where the next frame's payload is to be written: read(2) puts output there without a copy. */
uint8_t *outbox_payload(struct outbox *box) { return box->bytes + box->length + FRAME_HEAD; }

void outbox_commit(struct outbox *box, uint8_t type, uint32_t stream, uint32_t length)
{
	uint8_t *head = box->bytes + box->length;
	put16(head, FRAME_MAGIC);
	head[2] = type;
	head[3] = 0;
	put32(head + 4, stream);
	put32(head + 8, length);
	put32(head + FRAME_HEAD + length, tail_of(type, 0, stream, length));
	box->length += FRAME_HEAD + length + FRAME_TAIL;
}

void outbox_fail(struct outbox *box, uint32_t stream, int error, const char *words)
{
	uint8_t *payload = outbox_payload(box);
	size_t length = strlen(words);
	put32(payload, (uint32_t)error);
	memcpy(payload + 4, words, length);
	outbox_commit(box, T_FAILED, stream, (uint32_t)(4 + length));
}
