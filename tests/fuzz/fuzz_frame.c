/* Peer frames from arbitrary bytes: whatever a decoder takes is canonical, that is, its encoder gives the same bytes
 * again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "proto/frame.h"

#define BUDGET_BYTES ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* The frames that open a connection, and clocks. */
static bool greeting_again(const struct frame *frame, struct frame_head head, struct buf *out)
{
    struct frame_hello hello;
    struct frame_welcome welcome;
    struct frame_refuse refuse;
    struct frame_run run;
    struct frame_ping ping;
    if (frame->type == FRAME_HELLO && frame_read_hello(frame, &hello) == STATUS_OK)
        frame_put_hello(out, head, &hello);
    else if (frame->type == FRAME_WELCOME && frame_read_welcome(frame, &welcome) == STATUS_OK)
        frame_put_welcome(out, head, &welcome);
    else if (frame->type == FRAME_REFUSE && frame_read_refuse(frame, &refuse) == STATUS_OK)
        frame_put_refuse(out, head, &refuse);
    else if (frame->type == FRAME_RUN && frame_read_run(frame, &run) == STATUS_OK)
        frame_put_run(out, head, &run);
    else if (frame->type == FRAME_PING && frame_read_ping(frame, &ping) == STATUS_OK)
        frame_put_ping(out, head, &ping);
    else if (frame->type == FRAME_PONG && frame_read_ping(frame, &ping) == STATUS_OK)
        frame_put_pong(out, head, &ping);
    else
        return false;
    return true;
}

static bool replica_again(const struct frame *frame, struct frame_head head, struct buf *out)
{
    struct frame_put put;
    struct frame_put_ack ack;
    struct frame_get get;
    struct frame_get_answer answer;
    if (frame->type == FRAME_PUT && frame_read_put(frame, &put) == STATUS_OK)
        frame_put_put(out, head, &put);
    else if (frame->type == FRAME_PUT_ACK && frame_read_put_ack(frame, &ack) == STATUS_OK)
        frame_put_put_ack(out, head, &ack);
    else if (frame->type == FRAME_GET && frame_read_get(frame, &get) == STATUS_OK)
        frame_put_get(out, head, &get);
    else if (frame->type == FRAME_GET_ANSWER && frame_read_get_answer(frame, &answer) == STATUS_OK)
        frame_put_get_answer(out, head, &answer);
    else
        return false;
    return true;
}

static bool internal_again(const struct frame *frame, struct frame_head head, struct buf *out)
{
    struct operation operation;
    struct result result;
    struct frame passed;
    uint64_t node;
    uint16_t slot;
    if (frame->type == FRAME_EXEC && frame_read_exec(frame, &slot, &operation) == STATUS_OK)
        frame_put_exec(out, head, slot, &operation);
    else if (frame->type == FRAME_EXEC_DONE && frame_read_exec_done(frame, &result) == STATUS_OK)
        frame_put_exec_done(out, head, &result);
    else if (frame->type == FRAME_PASSED && frame_read_passed(frame, &node, &passed) == STATUS_OK)
        frame_put_passed(out, head, node, passed.whole);
    else
        return false;
    return true;
}

static void try_frame(const struct frame *frame, struct buf *out)
{
    struct frame_head head = {frame->from_shard, frame->to_shard, frame->request, frame->epoch};
    uint16_t slot;
    if (frame_slot(frame, &slot) == STATUS_OK)
        require(slot < SLOTS_COUNT);
    require(frame_type_name(frame->type) != NULL);
    buf_clear(out);
    bool taken = greeting_again(frame, head, out) || replica_again(frame, head, out) ||
                 internal_again(frame, head, out);
    if (taken)
        require(span_equal(buf_span(out), frame->whole));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf out;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&out, &alloc);
    struct span stream = span_of(data, size);
    for (;;) {
        struct frame frame;
        size_t need = 0;
        enum status status = frame_cut(stream, &frame, &need);
        if (status == STATUS_MORE)
            require(need > stream.size && need <= FRAME_BYTES_MAX);
        if (status != STATUS_OK)
            break;
        require(frame.whole.size >= FRAME_HEADER_BYTES && frame.whole.size <= stream.size);
        try_frame(&frame, &out);
        stream = span_of(stream.data + frame.whole.size, stream.size - frame.whole.size);
    }
    buf_free(&out);
    require(alloc.used_bytes == 0);
    return 0;
}
