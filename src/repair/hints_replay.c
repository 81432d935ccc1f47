/* Hints: replay, one cursor, one window and one token bucket for each target.
 * */
#include <assert.h>

#include "repair/hints_internal.h"

#define US_PER_S UINT64_C(1000000)

static void flight_free(struct hints *hints, struct hint_target *target, struct hint_flight *flight)
{
    alloc_put(hints->options.alloc, flight->key, flight->key_size);
    *flight = (struct hint_flight){0};
    target->window_count--;
}

void hint_window_clear(struct hints *hints, struct hint_target *target)
{
    for (uint32_t i = 0; target->window_count > 0; i++) {
        assert(i < HINT_WINDOW_MAX);
        if (target->window[i].id != 0)
            flight_free(hints, target, &target->window[i]);
    }
}

void hints_target_up(struct hints *hints, uint64_t node, bool up, uint64_t now_us)
{
    struct hint_target *target = hints_find(hints, node);
    if (target == NULL || target->up == up)
        return;
    target->up = up;
    /* Either way a pass starts from the beginning: what was under way is still stored. */
    hint_window_clear(hints, target);
    buf_clear(&target->cursor);
    target->pass_done = false;
    target->refilled_us = now_us;
}

static void refill(const struct hints *hints, struct hint_target *target, uint64_t now_us)
{
    if (now_us <= target->refilled_us)
        return;
    uint64_t rate = hints->options.replay_bytes_per_s;
    uint64_t passed_us = now_us - target->refilled_us;
    int64_t full = (int64_t)hints->options.replay_burst_bytes;
    uint64_t room = (uint64_t)(full - target->tokens);
    /* Long enough to fill it: also keeps the product below from overflowing. */
    if (passed_us / US_PER_S >= room / rate + 1) {
        target->tokens = full;
        target->refilled_us = now_us;
        return;
    }
    uint64_t earned = passed_us / US_PER_S * rate + passed_us % US_PER_S * rate / US_PER_S;
    if (earned == 0)
        return; /* time goes on counting */
    target->tokens = earned >= room ? full : target->tokens + (int64_t)earned;
    target->refilled_us = now_us;
}

struct hint_turn hints_turn(struct hints *hints, uint64_t node, uint64_t now_us)
{
    struct hint_target *target = hints_find(hints, node);
    struct hint_turn turn = {.again_at_us = UINT64_MAX};
    if (target == NULL || !target->up || target->count == 0 || target->window_count == HINT_WINDOW_MAX)
        return turn;
    if (target->pass_done) {
        /* The next pass takes what failed; so this one's answers are waited for. */
        if (target->window_count > 0)
            return turn;
        if (now_us < target->pass_at_us) {
            turn.again_at_us = target->pass_at_us;
            return turn;
        }
        target->pass_done = false;
        buf_clear(&target->cursor);
    }
    refill(hints, target, now_us);
    if (target->tokens <= 0) {
        uint64_t debt = (uint64_t)-target->tokens + 1;
        uint64_t rate = hints->options.replay_bytes_per_s;
        turn.again_at_us = target->refilled_us + debt / rate * US_PER_S + debt % rate * US_PER_S / rate + 1;
        return turn;
    }
    turn.send = true;
    turn.bytes = (uint64_t)target->tokens;
    turn.hints = HINT_WINDOW_MAX - target->window_count;
    turn.after = buf_span(&target->cursor);
    return turn;
}

static struct hint_flight *free_place(struct hints *hints, struct hint_target *target)
{
    size_t size = HINT_WINDOW_MAX * sizeof *target->window;
    if (target->window == NULL)
        target->window = alloc_get_zeroed(hints->options.alloc, size);
    if (target->window == NULL)
        return NULL;
    uint32_t i = 0;
    while (i < HINT_WINDOW_MAX && target->window[i].id != 0)
        i++;
    assert(i < HINT_WINDOW_MAX); /* hints_turn said how many */
    return &target->window[i];
}

enum status hints_sent(struct hints *hints, const struct hint_send *send, uint64_t now_us, uint64_t *id)
{
    struct hint_target *target = hints_find(hints, send->target);
    assert(target != NULL && target->up);
    assert(send->acks > 0 && send->acks <= REPLICAS_MAX && send->hint_key.size > 0);
    struct hint_flight *flight = free_place(hints, target);
    if (flight == NULL)
        return STATUS_OVERLOADED;
    uint8_t *key = alloc_get(hints->options.alloc, send->hint_key.size);
    buf_reserve(&target->cursor, send->hint_key.size);
    if (key == NULL || target->cursor.failed) {
        alloc_put(hints->options.alloc, key, send->hint_key.size);
        target->cursor.failed = false;
        return STATUS_OVERLOADED;
    }
    memcpy(key, send->hint_key.data, send->hint_key.size);
    refill(hints, target, now_us);
    target->tokens -= (int64_t)send->bytes;
    buf_clear(&target->cursor);
    buf_append(&target->cursor, key, send->hint_key.size);
    *flight = (struct hint_flight){
        .id = target->id_next++,
        .version = send->version,
        .key = key,
        .key_size = (uint32_t)send->hint_key.size,
        .acks_left = send->acks,
    };
    target->window_count++;
    *id = flight->id;
    return STATUS_OK;
}

void hints_pass_done(struct hints *hints, uint64_t node, uint64_t now_us)
{
    struct hint_target *target = hints_find(hints, node);
    if (target == NULL)
        return;
    target->pass_done = true;
    target->pass_at_us = now_us + hints->options.pass_pause_us;
}

enum status hints_answered(struct hints *hints, uint64_t node, uint64_t id, bool durable,
                           struct hint_done *done)
{
    struct hint_target *target = hints_find(hints, node);
    *done = (struct hint_done){0};
    if (target == NULL || target->window == NULL || id == 0)
        return STATUS_NOT_FOUND;
    uint32_t i = 0;
    while (i < HINT_WINDOW_MAX && target->window[i].id != id)
        i++;
    if (i == HINT_WINDOW_MAX)
        return STATUS_NOT_FOUND;
    struct hint_flight *flight = &target->window[i];
    flight->failed = flight->failed || !durable;
    if (--flight->acks_left > 0)
        return STATUS_OK;
    /* Without memory for its key the hint stays, and is sent again in the next pass. */
    buf_clear(&target->done);
    buf_append(&target->done, flight->key, flight->key_size);
    done->erase = !flight->failed && !target->done.failed;
    if (done->erase) {
        done->version = flight->version;
        done->hint_key = buf_span(&target->done);
        hints->replayed++;
    }
    flight_free(hints, target, flight);
    return STATUS_OK;
}
