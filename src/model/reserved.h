/* Reserved cold keys: rows of the node's own that live in the store beside the users' rows, past every slot.
 *
 * Where a user's cold key starts with its slot, a reserved one starts with one of the prefixes below. All numbers in
 * them are big endian. A reserved row belongs to the shard of the slot that its key names. */
#ifndef RONDO_MODEL_RESERVED_H
#define RONDO_MODEL_RESERVED_H

#include "model/key.h"

#define RESERVED_FLOOR 0xfffcu /* | slot: up to where tombstones of the slot were purged */
#define RESERVED_TREE 0xfffdu  /* | slot: the slot's Merkle tree */
#define RESERVED_SYNC 0xfffeu  /* | target node (8 bytes) | slot: anti-entropy is owed */
#define RESERVED_HINT 0xffffu  /* | target node (8 bytes) | slot | key: a hint */
_Static_assert(RESERVED_FLOOR >= SLOTS_COUNT, "reserved keys come after those of all slots");

#define RESERVED_PREFIX_BYTES 2u
#define RESERVED_SLOT_KEY_BYTES 4u /* of a floor or a tree */
#define RESERVED_SYNC_KEY_BYTES 12u
#define RESERVED_HINT_HEAD_BYTES 12u /* of a hint, before the key */

/* Whether a cold key has one of the reserved prefixes. */
bool key_reserved(struct span cold_key);

/* The prefix of a reserved key. */
static inline uint16_t reserved_key_prefix(struct span key)
{
    return (uint16_t)(key.data[0] << 8 | key.data[1]);
}

/* The slot that a reserved key names. MALFORMED for anything that is no reserved key: a size or slot that cannot be,
 * no target, a hint's key of another slot. */
MUST_CHECK enum status reserved_key_slot(struct span key, uint16_t *slot);

/* Writes the key of a slot's floor or tree. */
void reserved_slot_key(uint16_t prefix, uint16_t slot, uint8_t key[RESERVED_SLOT_KEY_BYTES]);

#endif
