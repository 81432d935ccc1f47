/* Requests, for the three files that carry them out: coordinator.c (beginning, answers, deadlines), write.c and
 * read.c. */
#ifndef RONDO_SHARD_REQUEST_H
#define RONDO_SHARD_REQUEST_H

#include "shard/state.h"

/* The low byte of a request number in frames: what the answer is for. */
#define TAG_BITS 8
#define TAG_PROBE 0u /* measured only */
#define TAG_PUT_ROUND_1 1u
#define TAG_PUT_ROUND_2 2u
#define TAG_GET 3u
#define TAG_WRITE_BACK 4u /* and above: its generation */
#define WRITE_BACKS_MAX (255u - TAG_WRITE_BACK)

/* Gives the request's one result; the request stays. */
void request_deliver(struct shard *shard, struct request *request, struct result *result);
void request_drop(struct shard *shard, struct request *request);
/* Both. */
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

/* For the metrics: what happens to the request now. */
static inline uint32_t request_age(const struct shard *shard, const struct request *request)
{
    uint64_t age_us = shard->now.mono_us - request->begun_us;
    return age_us < UINT32_MAX ? (uint32_t)age_us + 1 : UINT32_MAX;
}

static inline void request_sends(const struct shard *shard, struct request *request)
{
    if (request->sent_us == 0)
        request->sent_us = request_age(shard, request);
}

static inline void request_waits_for_stamp(const struct shard *shard, struct request *request)
{
    if (request->parked_us == 0)
        request->parked_us = request_age(shard, request);
}

static inline void request_has_stamp(struct shard *shard, struct request *request)
{
    if (request->parked_us != 0)
        metrics_time(shard, METRICS_TIME_STAMP, request->begun_us + request->parked_us - 1);
    request->parked_us = 0;
}

/* The timeline of a request whose client asked for one (trace.c); without effect on others. trace_end gives the result
 * its text, which the request keeps until it is freed. */
void trace_begin(struct shard *shard, struct request *request);
void trace_end(struct request *request, struct result *result, uint64_t now_us);
void trace_free(struct shard *shard, struct request *request);
void trace_add(struct shard *shard, struct request *request, const char *event);
void trace_add_node(struct shard *shard, struct request *request, const char *event, uint8_t place);
void trace_add_answer(struct shard *shard, struct request *request, uint8_t place,
                      const struct replica_answer *answer);
void trace_add_stamp(struct shard *shard, struct request *request, struct stamp stamp, bool again);

static inline void trace_event(struct shard *shard, struct request *request, const char *event)
{
    if (request->trace != NULL)
        trace_add(shard, request, event);
}

static inline void trace_node(struct shard *shard, struct request *request, const char *event, uint8_t place)
{
    if (request->trace != NULL)
        trace_add_node(shard, request, event, place);
}

static inline void trace_answer(struct shard *shard, struct request *request, uint8_t place,
                                const struct replica_answer *answer)
{
    if (request->trace != NULL)
        trace_add_answer(shard, request, place, answer);
}

static inline void trace_stamped(struct shard *shard, struct request *request, struct stamp stamp, bool again)
{
    if (request->trace != NULL)
        trace_add_stamp(shard, request, stamp, again);
}

/* A sloppy request: the next nodes on the ring stand in for replicas that cannot be reached. */
void request_name_stand_ins(struct shard *shard, struct request *request);

/* Makes a task about a key one about the hint that this node holds for another, and does it. */
void request_hint_task(struct shard *shard, uint64_t hint_for, struct task *task);

/* Writes: stamps, sends, and counts answers until there is a result. */
void write_begin(struct shard *shard, struct request *request);
void write_stamp(struct shard *shard, struct request *request);
void write_answer(struct shard *shard, struct request *request, uint8_t place,
                  const struct replica_answer *answer);
void write_peer_down(struct shard *shard, struct request *request, uint8_t place);
void write_peer_again(struct shard *shard, struct request *request, uint8_t place);
void write_deadline(struct shard *shard, struct request *request);
/* Hints for those that have not acknowledged; the request is over. */
void write_settle(struct shard *shard, struct request *request);

/* Reads: asks, merges, writes back, until there is a result (or, for EXPIRE, until there is a value to write to). */
void read_begin(struct shard *shard, struct request *request);
/* An answer to a read came, whether or not its request still lives: its time is what counts here. */
void read_heard(struct shard *shard, uint64_t number, uint16_t node);
/* The request ends, and waits for no replica any more. */
void read_over(struct shard *shard, struct request *request);
void read_answer(struct shard *shard, struct request *request, uint8_t place,
                 const struct replica_answer *answer);
void read_write_answer(struct shard *shard, struct request *request, uint8_t place, enum status status);
void read_peer_down(struct shard *shard, struct request *request, uint8_t place);
void read_peer_again(struct shard *shard, struct request *request, uint8_t place);
void read_deadline(struct shard *shard, struct request *request);
void read_hedge(struct shard *shard, struct request *request);

#endif
