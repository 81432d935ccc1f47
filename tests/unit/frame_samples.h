/* One frame of every type, and the records in them: shared by the tests of frames. */
#ifndef RONDO_TESTS_FRAME_SAMPLES_H
#define RONDO_TESTS_FRAME_SAMPLES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"

static struct alloc test_alloc;

static const struct frame_head head = {
    .from_shard = 3, .to_shard = FRAME_BY_SLOT, .request = 0x1122334455667788, .epoch = 9};

static const struct stamp stamp_a = {.time = 5 << 16, .actor = 6};
static const struct stamp stamp_b = {.time = 7 << 16, .actor = 8};

static struct span record_into(struct buf *buf, const char *value)
{
    struct record record = {.flags = RECORD_VALUE | RECORD_OVERRIDE,
                            .stamp = stamp_a,
                            .override_applies_to = stamp_a,
                            .override_stamp = stamp_b,
                            .override_expiry_ms = 77,
                            .value = span_of_text(value)};
    record_put(buf, &record);
    return buf_span(buf);
}

static const struct version both = {.value = {.time = 5 << 16, .actor = 6},
                                    .override = {.time = 7 << 16, .actor = 8}};

#define SAMPLES 39

static void sample_greeting(uint32_t number, struct buf *buf)
{
    struct frame_hello hello = {
        .cluster = {1, 2},
        .node = 3,
        .directory = 4,
        .runs = {.now = {5, 6}, .forgotten = 2, .past_count = 2, .past = {{4, 7}, {3, 8}}},
        .shards = 2,
        .shard = 1,
        .name = span_of_text("n1"),
        .resp_address = span_of_text("a:1"),
        .http_address = span_of_text("a:2"),
        .ring = span_of_text("ring")};
    struct frame_welcome welcome = {.node = 3,
                                    .directory = 4,
                                    .shards = 64,
                                    .knew_other_directory = true,
                                    .resp_address = span_of_text("b:1"),
                                    .http_address = span_of_text(""),
                                    .ring_epoch = 12};
    struct frame_refuse refuse = {.status = STATUS_WRONG_CLUSTER, .text = span_of_text("no")};
    struct frame_ping ping = {1, 2, 3};
    if (number == 0)
        frame_put_hello(buf, head, &hello);
    else if (number == 1)
        frame_put_welcome(buf, head, &welcome);
    else if (number == 2)
        frame_put_refuse(buf, head, &refuse);
    else if (number == 3)
        frame_put_ping(buf, head, &ping);
    else
        frame_put_pong(buf, head, &ping);
}

static void sample_replica(uint32_t number, struct buf *buf)
{
    struct buf record;
    buf_init(&record, &test_alloc);
    struct span bytes = record_into(&record, "value");
    struct frame_put put = {.slot = SLOTS_COUNT - 1,
                            .deadline_ms = 5,
                            .write_back = number == 6,
                            .hint_for = number == 29 ? 0x8877665544332211 : 0,
                            .key = span_of_text(number == 6 ? "" : "key"),
                            .record = bytes};
    struct frame_put_ack ack = {
        .status = number == 7 ? STATUS_OK : STATUS_STALE_EPOCH, .was_live = number == 7, .version = both};
    struct frame_get get = {.slot = 1,
                            .deadline_ms = UINT64_MAX,
                            .digest = number == 9,
                            .hint_for = number == 30 ? 1 : 0,
                            .key = span_of_text("key")};
    struct frame_get_answer answer = {.status = STATUS_QUARANTINED, .version = both};
    if (number == 11) {
        answer.has_record = true;
        answer.record = bytes;
    } else if (number == 12) {
        answer = (struct frame_get_answer){.has_record = true};
    }
    if (number <= 6 || number == 29)
        frame_put_put(buf, head, &put);
    else if (number <= 8)
        frame_put_put_ack(buf, head, &ack);
    else if (number == 9 || number == 30)
        frame_put_get(buf, head, &get);
    else
        frame_put_get_answer(buf, head, &answer);
    buf_free(&record);
}

/* Those whose bodies other files know; their samples are 18 to 27, 31 to 35, 37 and 38. */
static const enum frame_type raw_types[] = {
    FRAME_STATE,         FRAME_STATS_ASK, FRAME_STATS,       FRAME_GOSSIP,     FRAME_LIVENESS, FRAME_REPAIR,
    FRAME_REPAIR_ANSWER, FRAME_HINTS_ASK, FRAME_HINTS_HELD,  FRAME_QUARANTINE, FRAME_ROWS_ASK, FRAME_ROWS,
    FRAME_HEALING_ASK,   FRAME_HEALING,   FRAME_REPAIR_DONE, FRAME_QUESTION,   FRAME_ANSWER,
};

static void sample_internal(uint32_t number, struct buf *buf)
{
    struct operation operation = {.kind = OPERATION_EXPIRE,
                                  .flags = OPERATION_IF_SOME | OPERATION_WANT_VALUE,
                                  .r = COUNT_ALL,
                                  .w = 1,
                                  .sloppy = number == 13,
                                  .trace = number == 28,
                                  .timeout_ms = 9,
                                  .expiry_ms = 10,
                                  .key = span_of_text("k"),
                                  .value = span_of_text("")};
    struct result result = {.outcome = OUTCOME_UNKNOWN,
                            .status = STATUS_OUTCOME_UNKNOWN,
                            .needed = 2,
                            .acks = 1,
                            .found = true,
                            .version = both,
                            .expiry_ms = 4,
                            .trace = span_of_text("0us begun, 1us done"),
                            .value = span_of_text("v")};
    struct buf inner;
    buf_init(&inner, &test_alloc);
    sample_replica(9, &inner);
    if (number == 13 || number == 28)
        frame_put_exec(buf, head, 77, &operation);
    else if (number == 14)
        frame_put_exec_done(buf, head, &result);
    else if (number == 15)
        frame_put_ring_ask(buf, head);
    else if (number == 16)
        frame_put_ring(buf, head, span_of_text("a ring"));
    else if (number == 17)
        frame_put_passed(buf, head, 42, buf_span(&inner));
    else
        frame_put_raw(buf, raw_types[number - 18], head, span_of_text("raw"));
    buf_free(&inner);
}

static void sample_into(uint32_t number, struct buf *buf)
{
    if (number == 36)
        frame_put_run(buf, head, &(struct frame_run){.directory = 1, .run = {2, 3}});
    else if (number > 36)
        frame_put_raw(buf, raw_types[number - 22], head, span_of_text("raw"));
    else if (number > 30)
        frame_put_raw(buf, raw_types[number - 21], head, span_of_text("raw"));
    else if (number < 5)
        sample_greeting(number, buf);
    else if (number < 13 || number > 28)
        sample_replica(number, buf);
    else
        sample_internal(number, buf);
}

static void sample(uint32_t number, struct buf *buf)
{
    sample_into(number, buf);
    assert_false(buf->failed);
}

#endif
