/* Requests, for the three files that carry them out: coordinator.c (beginning, answers, deadlines), write.c and
 * read.c. */
#ifndef RONDO_SHARD_REQUEST_H
#define RONDO_SHARD_REQUEST_H

#include "shard/state.h"

/* The low byte of a request number in frames: what the answer is for. */
#define TAG_BITS 8
#define TAG_PUT_ROUND_1 1u
#define TAG_PUT_ROUND_2 2u
#define TAG_GET 3u
#define TAG_WRITE_BACK 4u /* and above: its generation */
#define WRITE_BACKS_MAX (255u - TAG_WRITE_BACK)

/* Ends the request with its one result, and frees it. */
void request_end(struct shard *shard, struct request *request, struct result *result);
void request_fail(struct shard *shard, struct request *request, enum outcome outcome, enum status status);

/* The place of a node (ring index) in the request's list, or REPLICAS_MAX. */
uint8_t request_place(const struct request *request, uint16_t node);

/* A request number for frames: the id, and what the answer is for. */
static inline uint64_t request_number(const struct request *request, uint32_t tag)
{
    return request->id << TAG_BITS | tag;
}

/* Sends the request's record to a replica; false if that cannot be reached. The replica of this node may answer
 * before it returns. */
bool request_send_record(struct shard *shard, struct request *request, uint8_t place, uint32_t tag,
                         bool write_back);

/* Writes: stamps, sends, and counts answers until there is a result. */
void write_begin(struct shard *shard, struct request *request);
void write_stamp(struct shard *shard, struct request *request);
void write_answer(struct shard *shard, struct request *request, uint8_t place,
                  const struct replica_answer *answer);
void write_peer_down(struct shard *shard, struct request *request, uint8_t place);
void write_deadline(struct shard *shard, struct request *request);

/* Reads: asks, merges, writes back, until there is a result (or, for EXPIRE, until there is a value to write to). */
void read_begin(struct shard *shard, struct request *request);
void read_answer(struct shard *shard, struct request *request, uint8_t place,
                 const struct replica_answer *answer);
void read_write_answer(struct shard *shard, struct request *request, uint8_t place, enum status status);
void read_peer_down(struct shard *shard, struct request *request, uint8_t place);
void read_deadline(struct shard *shard, struct request *request);
void read_hedge(struct shard *shard, struct request *request);

#endif
