/* Effects: each kind goes to the module that owns what it touches. */
#include "edge/perform.h"

#include <assert.h>

#include "edge/loop.h"
#include "edge/say.h"

static void send_local(struct loop *loop, const struct effect *effect)
{
    assert(effect->shard < loop->shared->shards);
    const struct inbox_message message = {.kind = INBOX_LOCAL, .fd = -1, .bytes = effect->bytes};
    inbox_push(&loop->shared->loops[effect->shard].inbox, &message);
}

static void perform_effect(struct loop *loop, const struct effect *effect)
{
    struct loop_shared *shared = loop->shared;
    switch (effect->kind) {
    case EFFECT_CLIENT_SEND:
        client_conn_send(loop, effect);
        return;
    case EFFECT_CLIENT_DROP:
        client_conn_drop(loop, effect->client);
        return;
    case EFFECT_CLIENT_RESUME:
        client_conn_resume(loop, effect->client);
        return;
    case EFFECT_PEER_CONNECT:
        peer_conn_connect(loop, effect->node, effect->bytes);
        return;
    case EFFECT_PEER_SEND:
        peer_conn_send(loop, effect->node, effect->bytes);
        return;
    case EFFECT_PEER_DROP:
        peer_conn_drop(loop, effect->node);
        return;
    case EFFECT_LINK_SEND:
        link_conn_send(loop, effect->link, effect->bytes, effect->flag);
        return;
    case EFFECT_LINK_MOVE:
        link_conn_move(loop, effect->link, effect->shard, effect->node);
        return;
    case EFFECT_LOCAL_SEND:
        send_local(loop, effect);
        return;
    case EFFECT_LOG_APPEND:
        log_thread_append(shared->log, loop->number, effect->sequence, effect->entries, effect->flag,
                          effect->bytes);
        loop->appended = true;
        return;
    case EFFECT_COLD_READ:
        work_cold_read(loop, effect->ticket, effect->bytes);
        return;
    case EFFECT_COLD_SCAN:
        scan_work_open(&loop->scans, effect->ticket, effect->bytes, effect->end);
        return;
    case EFFECT_COLD_SCAN_NEXT:
        scan_work_next(&loop->scans, effect->ticket);
        return;
    case EFFECT_COLD_SCAN_STOP:
        scan_work_stop(&loop->scans, effect->ticket);
        return;
    case EFFECT_FLUSH:
        work_flush(loop, effect->job);
        return;
    case EFFECT_LOG_FLUSHED:
        log_thread_flushed(shared->log, loop->number, effect->sequence);
        return;
    case EFFECT_META_WRITE:
        work_meta_write(loop, effect->sequence, effect->bytes);
        return;
    case EFFECT_DATAGRAM_SEND:
        datagram_send(loop, effect->node, effect->bytes);
        return;
    case EFFECT_SAY:
        say_line(&shared->say, effect->level, loop->number, effect->bytes);
        return;
    }
    assert(0 && "an effect of unknown kind");
}

void perform_effects(struct loop *loop)
{
    struct effects *effects = &loop->effects;
    if (effects->count == 0)
        return;
    loop->performing = true;
    for (uint32_t i = 0; i < effects->count; i++)
        perform_effect(loop, &effects->items[i]);
    loop->performing = false;
    effects_clear(effects);
}
