/* What the two halves of the ring record share: making one (ring.c) and its bytes (ring_codec.c). */
#ifndef RONDO_RING_RING_INTERNAL_H
#define RONDO_RING_RING_INTERNAL_H

#include "ring/ring.h"

/* A zeroed ring with room for its nodes, or NULL. */
struct ring *ring_new(struct alloc *alloc, uint16_t node_count);

/* Whether text can be a name or, unless it must not be empty, a zone. */
bool ring_name_allowed(struct span text, bool empty_allowed);

/* Whether text is "host:port" with a port from 1 to 65535. */
bool ring_address_allowed(struct span text);

/* Fills in what follows from nodes, N and owners: ids, their index, N in force and the replica table. Answers
 * MALFORMED when two nodes share an id or a remainder has too few owners, OVERLOADED when out of memory. */
MUST_CHECK enum status ring_derive(struct ring *ring);

/* The hash of the record's bytes without its cluster id: the cluster's id if it is the first record. */
MUST_CHECK enum status ring_hash(const struct ring *ring, struct hash_128 *hash);

#endif
