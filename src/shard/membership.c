/* Membership, the part of shard 0: who may connect, directory ids, amnesia, clocks.
 *
 * Amnesia (DESIGN section 6). Each member durably remembers the ids of the data directories it has seen every other
 * member with, before it accepts a single message from it. A node whose directory is new asks: if anybody knew it
 * under another id it has lost its disk, and it counts towards no R; if a majority of the others never did, it is
 * new and serves. The verdict is durable before it takes effect. A directory that others knew before a newer one is
 * an old one put back: the same. So is an older copy of the newest one: the members also remember how far it had come
 * (model/run.h), in memory at once and durably with their next write. A directory that was superseded is known
 * by a new id from then on, so that the others take it for the newest, and its own older copies for old ones.
 *
 * Clocks. Every second each peer is asked for its clock, as NTP does. This node stamps writes only while its clock
 * is within half of clock_skew_max_ms of the median of all reachable clocks, its own included; what the round trip
 * leaves uncertain is not held against it. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

#define PING_INTERVAL_US 1000000u

/* How often a run's count is raised: a copy put back is noticed if it is older than this. One write of the meta file by
 * each node; what the others are told they write with their own. */
#define RUN_INTERVAL_US 60000000u

/* A WELCOME with two addresses, or a REFUSE without its text. */
#define GREETING_BYTES_MAX 1024u

/* A change of real against monotonic time between two pings that is no mere drift. */
#define CLOCK_STEP_MS 50

/* Older measurements say nothing: clocks may have been set since. */
#define CLOCK_SAMPLE_AGE_US 10000000u

/* ---- greetings ------------------------------------------------------------------------------------------ */

static void link_reply(struct shard *shard, struct link *link, bool close)
{
    /* The bytes stay in place until the next step; several greetings of one step stand behind each other. */
    struct effect *effect = effects_add(shard->effects, EFFECT_LINK_SEND);
    effect->link = link->id;
    effect->flag = close;
    effect->bytes = span_of(shard->greeting_bytes.data + shard->greeting_start,
                            shard->greeting_bytes.size - shard->greeting_start);
}

/* Greetings are rare and small; room for all that one step can bring is made before the first is written, so that
 * bytes given out do not move. */
static bool greeting_begin(struct shard *shard, size_t text_size)
{
    shard->greeting_start = shard->greeting_bytes.size;
    bool room = buf_reserve(&shard->greeting_bytes, GREETING_BYTES_MAX + text_size);
    shard->greeting_bytes.failed = false;
    return room;
}

static void refuse_link(struct shard *shard, struct link *link, enum status status, const struct buf *text)
{
    struct frame_refuse refuse = {.status = status, .text = buf_span(text)};
    say(shard, SAY_WARNING, "refused a peer connection: %.*s", (int)text->size, (const char *)text->data);
    if (greeting_begin(shard, text->size))
        frame_put_refuse(&shard->greeting_bytes, frame_head_of(shard, link->from_shard, 0), &refuse);
    link_reply(shard, link, true);
}

static void accept_link(struct shard *shard, struct link *link)
{
    struct frame_welcome welcome = {
        .node = shard->self_id,
        .directory = meta_known_as(&shard->meta),
        .shards = shard->options.shards,
        .knew_other_directory = link->knew_other_directory,
        .superseded = link->superseded,
        .resp_address = span_of_text(shard->resp_address),
        .http_address = span_of_text(shard->http_address),
        .ring_epoch = shard->ring->epoch,
    };
    if (!greeting_begin(shard, 0)) {
        link->waits_for_meta =
            UINT64_MAX; /* nothing it sends is looked at; it tries again when there may be memory */
        link_reply(shard, link, true);
        return;
    }
    frame_put_welcome(&shard->greeting_bytes, frame_head_of(shard, link->from_shard, 0), &welcome);
    link_reply(shard, link, false);
    struct effect *move = effects_add(shard->effects, EFFECT_LINK_MOVE);
    move->link = link->id;
    move->shard = link->for_shard;
    move->node = link->node;
    struct link *taken = map_take(&shard->links, link->id);
    assert(taken == link);
    alloc_put(&shard->alloc, taken, sizeof *taken);
}

/* Why two nodes are not of one cluster, in words. */
static void explain_cluster(struct shard *shard, const struct frame_hello *hello, struct buf *text)
{
    struct ring *theirs;
    buf_append_format(text, "node %.*s belongs to another cluster (", (int)hello->name.size,
                      (const char *)hello->name.data);
    if (ring_decode(&shard->alloc, hello->ring, &theirs) == STATUS_OK) {
        if (!ring_difference(shard->ring, theirs, text))
            buf_append_text(text, "its first ring record was another");
        ring_free(theirs);
    }
    buf_append_text(text,
                    "); give all nodes the same --initial-cluster, and each a data directory of its own");
}

/* Notes what the node said of itself; *changed says whether that must be durable before the node is accepted.
 * OVERLOADED: it cannot be noted, so it must not be accepted. */
static enum status remember(struct shard *shard, struct link *link, const struct frame_hello *hello,
                            bool *changed)
{
    struct meta_member *member = meta_member_add(&shard->meta, hello->node);
    if (member == NULL)
        return STATUS_OVERLOADED;
    link->superseded = !meta_member_current(member, hello->directory, &hello->runs);
    *changed = meta_member_saw(member, hello->directory, &hello->runs);
    link->knew_other_directory = member->directory_count > 1;
    bool same = span_is(hello->resp_address, member->resp) && span_is(hello->http_address, member->http);
    if (!same && meta_member_set_addresses(member, hello->resp_address, hello->http_address) == STATUS_OK)
        *changed = true;
    return STATUS_OK;
}

/* OK, or why the node is refused, in words. */
static enum status judge_hello(struct shard *shard, const struct frame *frame, struct frame_hello *hello,
                               struct buf *text)
{
    enum status status = frame->type == FRAME_HELLO ? frame_read_hello(frame, hello) : STATUS_WRONG_PROTOCOL;
    if (status != STATUS_OK) {
        buf_append_format(
            text,
            "this node speaks version %d of Rondo's peer protocol only; run the same version of "
            "rondod everywhere",
            FRAME_PROTOCOL_VERSION);
        return STATUS_WRONG_PROTOCOL;
    }
    int name_size = (int)hello->name.size;
    const char *name = (const char *)hello->name.data;
    if (hello->cluster.low != shard->meta.cluster_id.low ||
        hello->cluster.high != shard->meta.cluster_id.high) {
        explain_cluster(shard, hello, text);
        return STATUS_WRONG_CLUSTER;
    }
    if (hello->node == shard->self_id) {
        buf_append_format(
            text,
            "node %.*s connects to itself: two processes have the same --name, or a peer address "
            "is wrong",
            name_size, name);
        return STATUS_WRONG_CLUSTER;
    }
    if (ring_node_index(shard->ring, hello->node) == RING_NODE_NONE) {
        buf_append_format(text, "node %.*s is no member of this cluster", name_size, name);
        return STATUS_WRONG_CLUSTER;
    }
    return STATUS_OK;
}

void membership_hello(struct shard *shard, struct link *link, const struct frame *frame)
{
    struct frame_hello hello;
    struct buf text;
    buf_init(&text, &shard->alloc);
    link->from_shard = frame->from_shard;
    enum status status = judge_hello(shard, frame, &hello, &text);
    if (status != STATUS_OK) {
        refuse_link(shard, link, status, &text);
        buf_free(&text);
        return;
    }
    link->node = hello.node;
    link->for_shard = (uint16_t)(hello.shard % shard->options.shards);
    bool changed;
    if (remember(shard, link, &hello, &changed) != STATUS_OK) {
        link->waits_for_meta = UINT64_MAX; /* nothing it sends is looked at */
        link_reply(shard, link, true);
        return;
    }
    shard->meta_dirty |= changed;
    liveness_heard(shard, hello.node);
    /* Also what an earlier greeting brought may still be on its way to the disk. */
    if (shard->meta_dirty || shard->meta_written != shard->meta_durable) {
        link->waits_for_meta = shard->meta_written + (shard->meta_dirty ? 1 : 0);
        return;
    }
    accept_link(shard, link);
}

/* ---- the durable state ---------------------------------------------------------------------------------- */

void membership_turn_end(struct shard *shard)
{
    if (shard->options.shard != 0 || !shard->meta_dirty || shard->meta_written != shard->meta_durable)
        return;
    buf_clear(&shard->meta_bytes);
    meta_encode(&shard->meta, &shard->meta_bytes);
    if (shard->meta_bytes.failed)
        return; /* tried again at the next turn */
    shard->meta_dirty = false;
    shard->meta_written++;
    struct effect *effect = effects_add(shard->effects, EFFECT_META_WRITE);
    effect->sequence = shard->meta_written;
    effect->bytes = buf_span(&shard->meta_bytes);
}

static void tell_siblings(struct shard *shard)
{
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    buf_put_u8(&body, shard->serving);
    buf_put_u8(&body, shard->takes_writes);
    buf_put_u8(&body, shard->clock_trusted);
    buf_put_u64(&body, (uint64_t)shard->clock_offset_ms);
    buf_put_u8(&body, (uint8_t)shard->meta.state);
    buf_put_u64(&body, shard->meta.actor_id);
    buf_put_u64(&body, shard->meta.known_as);
    for (uint16_t i = 1; i < shard->options.shards; i++)
        frame_put_raw(&shard->locals[i], FRAME_STATE, frame_head_of(shard, (uint8_t)i, 0), buf_span(&body));
    buf_free(&body);
}

void membership_state(struct shard *shard, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    shard->serving = reader_u8(&reader) != 0;
    shard->takes_writes = reader_u8(&reader) != 0;
    shard->clock_trusted = reader_u8(&reader) != 0;
    shard->clock_offset_ms = (int64_t)reader_u64(&reader);
    enum meta_state state = shard->meta.state;
    uint64_t known_as = shard->meta.known_as;
    shard->meta.state = (enum meta_state)reader_u8(&reader);
    shard->meta.actor_id = reader_u64(&reader);
    shard->meta.known_as = reader_u64(&reader);
    assert(reader_finish(&reader) == STATUS_OK);
    bool verdict = state != META_AMNESIAC || known_as != shard->meta.known_as;
    if (shard->meta.state == META_AMNESIAC && verdict)
        heal_everything(shard);
}

/* Accepts the links whose greeting is durable; those for which there is no room wait for the next tick. */
static void accept_waiting(struct shard *shard)
{
    /* Room for every greeting first, so that none moves when the next is written. */
    size_t room = shard->links.count;
    if (!buf_reserve(&shard->greeting_bytes, room * GREETING_BYTES_MAX)) {
        shard->greeting_bytes.failed = false;
        room = 1;
    }
    /* Accepting takes links out of the map: look again from the start after each. */
    uint32_t at = 0;
    for (struct link *link = map_next(&shard->links, &at); link != NULL && room > 0;
         link = map_next(&shard->links, &at)) {
        if (link->waits_for_meta == 0 || link->waits_for_meta > shard->meta_durable)
            continue;
        accept_link(shard, link);
        room--;
        at = 0;
    }
}

/* ---- runs ----------------------------------------------------------------------------------------------- */

/* Raises the count; the others hear of it once it is durable. */
static void raise_run(struct shard *shard)
{
    shard->meta.runs.now.count++;
    shard->meta_dirty = true;
    shard->run_version = shard->meta_written + 1;
    shard->run_us = shard->now.mono_us;
}

/* Whoever is not reached now hears it in the next greeting, or a minute later. */
static void tell_run(struct shard *shard)
{
    struct frame_run run = {.directory = meta_known_as(&shard->meta), .run = shard->run};
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct buf *out = peer_gossip_output(&shard->peers[i]);
        if (out == NULL)
            continue;
        frame_put_run(out, frame_head_of(shard, 0, 0), &run);
        out->failed = false;
    }
}

enum status membership_run(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct frame_run told;
    enum status status = frame_read_run(frame, &told);
    if (status != STATUS_OK || shard->options.shard != 0)
        return STATUS_MALFORMED;
    struct meta_member *member = meta_member_find(&shard->meta, node);
    if (member == NULL)
        return STATUS_OK;
    bool known = meta_member_knows(member, told.directory);
    /* A higher count is written with whatever is written next: one write for all members. */
    if (meta_member_ran_on(member, told.directory, told.run) && !known)
        shard->meta_dirty = true;
    return STATUS_OK;
}

/* ---- what became durable -------------------------------------------------------------------------------- */

void membership_meta_durable(struct shard *shard, uint64_t version)
{
    assert(version <= shard->meta_written);
    shard->meta_durable = version;
    if (shard->serving_version != 0 && version >= shard->serving_version) {
        shard->serving_version = 0;
        shard->serving = true;
        shard->takes_writes = true;
        say(shard, SAY_INFO, "the data directory is new and nobody knew another one: this node serves reads");
        tell_siblings(shard);
    }
    if (shard->run_version != 0 && version >= shard->run_version) {
        shard->run_version = 0;
        shard->run = shard->meta.runs.now;
        tell_run(shard);
    }
    accept_waiting(shard);
}

/* ---- amnesia -------------------------------------------------------------------------------------------- */

static void become(struct shard *shard, enum meta_state state)
{
    shard->meta.state = state;
    shard->meta_dirty = true;
}

/* Every slot is marked, durably, and serves again once it is repaired (heal.c). What dots this directory made after it
 * was copied is not known, so it gets a new actor (invariant 4). */
static void become_amnesiac(struct shard *shard, const char *name, const char *why)
{
    say(shard, SAY_ERROR,
        "node %s knew %s: this data directory lacks data. It takes writes, and its reads count towards no R "
        "until it is repaired from the other replicas",
        name, why);
    become(shard, META_AMNESIAC);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (ring_replicates(shard->ring, (uint16_t)slot, shard->self) &&
            meta_quarantine_set(&shard->meta, (uint16_t)slot) != STATUS_OK)
            say(shard, SAY_ERROR, "no memory to mark the slots: restart this node");
    }
    shard->meta.actor_id = prng_u64(&shard->prng) | 1;
    shard->serving_version = 0;
    shard->serving = true;
    heal_everything(shard);
    tell_siblings(shard);
}

void membership_superseded(struct shard *shard, const struct peer *peer)
{
    shard->meta.known_as = prng_u64(&shard->prng) | 1;
    raise_run(shard);
    become_amnesiac(shard, shard->ring->nodes[peer->index].name,
                    "a newer data directory of this node, or a newer state of this one");
}

/* Slots were marked or healed: without any mark the amnesia is over. */
void membership_healed(struct shard *shard)
{
    if (shard->meta.state != META_AMNESIAC || meta_quarantine_any(&shard->meta))
        return;
    say(shard, SAY_INFO,
        "everything this node had lost is repaired from the other replicas: it serves reads again");
    become(shard, META_SERVING);
    tell_siblings(shard);
}

/* Writes are taken once so many others durably know this directory that every majority of them includes one: or a
 * write acknowledged here could be lost with this disk, and nobody of a later majority would object. */
static void count_remembering(struct shard *shard)
{
    uint16_t remembering = 0;
    for (uint16_t i = 0; i < shard->peer_count; i++)
        remembering = (uint16_t)(remembering + shard->peers[i].remembers);
    if (shard->takes_writes || remembering < shard->peer_count - shard->peer_count / 2)
        return;
    shard->takes_writes = true;
    tell_siblings(shard);
}

void membership_welcomed(struct shard *shard, struct peer *peer, const struct frame_welcome *welcome)
{
    const char *name = shard->ring->nodes[peer->index].name;
    peer->remembers = true;
    count_remembering(shard);
    if (shard->meta.state != META_UNPROVEN)
        return;
    if (welcome->knew_other_directory) {
        become_amnesiac(shard, name, "this node with another data directory");
        return;
    }
    peer->vouched = true;
    uint16_t vouched = 0;
    for (uint16_t i = 0; i < shard->peer_count; i++)
        vouched = (uint16_t)(vouched + shard->peers[i].vouched);
    if (vouched < shard->peer_count / 2 + 1)
        return;
    become(shard, META_SERVING);
    shard->serving_version = shard->meta_written + 1;
}

void membership_start(struct shard *shard)
{
    if (shard->options.shard != 0)
        return;
    if (shard->meta.state == META_AMNESIAC)
        say(shard, SAY_ERROR,
            "this node has lost its earlier data directory: it takes writes, and its reads count "
            "towards no R until it is repaired");
    if (shard->meta.state == META_UNPROVEN && shard->peer_count == 0) {
        /* There is nobody who could have known another directory. */
        become(shard, META_SERVING);
        shard->serving_version = shard->meta_written + 1;
        return;
    }
    if (shard->meta.state == META_UNPROVEN)
        say(shard, SAY_INFO,
            "the data directory is new: reads count once a majority of the other nodes has said "
            "that it never knew another one");
    if (shard->quarantine_any)
        say(shard, SAY_ERROR,
            "this node holds damaged slots: they take writes, and their reads count towards no R "
            "until they are repaired");
}

void membership_ring(struct shard *shard)
{
    if (shard->options.shard != 0)
        return;
    struct buf bytes;
    buf_init(&bytes, &shard->alloc);
    ring_encode(shard->ring, &bytes);
    if (!bytes.failed && meta_ring_set(&shard->meta, buf_span(&bytes)) == STATUS_OK)
        shard->meta_dirty = true;
    buf_free(&bytes);
    liveness_ring(shard);
    say(shard, SAY_INFO, "ring record of epoch %" PRIu64 " is in force", shard->ring->epoch);
}

/* ---- clocks --------------------------------------------------------------------------------------------- */

/* The best measurement of a peer's clock: that of the shortest round trip. */
static const struct clock_sample *best_sample(const struct shard *shard, const struct peer *peer)
{
    const struct clock_sample *best = NULL;
    uint32_t kept = peer->samples_taken < CLOCK_SAMPLES ? peer->samples_taken : CLOCK_SAMPLES;
    for (uint32_t i = 0; i < kept; i++) {
        const struct clock_sample *sample = &peer->samples[i];
        bool fresh = shard->now.mono_us - sample->taken_us <= CLOCK_SAMPLE_AGE_US;
        if (fresh && (best == NULL || sample->round_trip_us < best->round_trip_us))
            best = sample;
    }
    return best;
}

static void sort_offsets(int64_t *offsets, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        int64_t offset = offsets[i];
        size_t at = i;
        for (; at > 0 && offsets[at - 1] > offset; at--)
            offsets[at] = offsets[at - 1];
        offsets[at] = offset;
    }
}

/* The median of all reachable clocks against ours; ours is one of them. */
static int64_t median_offset(const struct shard *shard)
{
    int64_t offsets[NODES_MAX];
    size_t count = 0;
    offsets[count++] = 0;
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        const struct peer *peer = &shard->peers[i];
        const struct clock_sample *sample = peer->reachable ? best_sample(shard, peer) : NULL;
        if (sample == NULL)
            continue;
        /* The reading was taken some time within the round trip: that much may be the network's. */
        int64_t doubt = (int64_t)(sample->round_trip_us / 2000) + 1;
        int64_t offset = sample->offset_ms;
        if (offset > 0)
            offset = offset > doubt ? offset - doubt : 0;
        else
            offset = offset < -doubt ? offset + doubt : 0;
        offsets[count++] = offset;
    }
    sort_offsets(offsets, count);
    return count % 2 == 1 ? offsets[count / 2] : (offsets[count / 2 - 1] + offsets[count / 2]) / 2;
}

static void judge_clock(struct shard *shard)
{
    int64_t offset = median_offset(shard);
    int64_t bound = shard->options.clock_skew_max_ms / 2;
    bool trusted = offset <= bound && offset >= -bound;
    bool changed = trusted != shard->clock_trusted;
    shard->clock_offset_ms = offset;
    shard->clock_trusted = trusted;
    if (!changed)
        return;
    if (trusted)
        say(shard, SAY_INFO, "this node's clock agrees with its peers again: it coordinates writes");
    else
        say(shard, SAY_ERROR,
            "this node's clock is %" PRId64 " ms off its peers' median, past %" PRId64
            " ms: it coordinates no "
            "writes (CLOCK_SKEW) until its clock is set right",
            -offset, bound);
    tell_siblings(shard);
}

void membership_pong(struct shard *shard, struct peer *peer, const struct frame_ping *pong)
{
    if (pong->sent_mono_us > shard->now.mono_us)
        return; /* not an echo of this run */
    if (pong->sent_wall_ms > STAMP_MS_MAX || pong->answered_wall_ms > STAMP_MS_MAX)
        return; /* no reading of a clock */
    uint64_t round_trip_us = shard->now.mono_us - pong->sent_mono_us;
    int64_t middle_ms = (int64_t)((pong->sent_wall_ms + shard->now.wall_ms) / 2);
    struct clock_sample *sample = &peer->samples[peer->samples_taken % CLOCK_SAMPLES];
    *sample = (struct clock_sample){
        .offset_ms = (int64_t)pong->answered_wall_ms - middle_ms,
        .round_trip_us = round_trip_us,
        .taken_us = shard->now.mono_us,
    };
    peer->samples_taken++;
    liveness_heard(shard, peer->node);
}

/* After this clock was stepped, what was measured with it before says nothing. */
static void forget_stepped_clock(struct shard *shard)
{
    int64_t wall_ahead_ms = (int64_t)shard->now.wall_ms - (int64_t)(shard->now.mono_us / 1000);
    int64_t stepped_ms = wall_ahead_ms - shard->wall_ahead_ms;
    shard->wall_ahead_ms = wall_ahead_ms;
    if (stepped_ms > -CLOCK_STEP_MS && stepped_ms < CLOCK_STEP_MS)
        return;
    for (uint16_t i = 0; i < shard->peer_count; i++)
        shard->peers[i].samples_taken = 0;
}

void membership_tick(struct shard *shard)
{
    if (shard->options.shard == 0)
        accept_waiting(shard);
    bool raise_due = shard->run_version == 0 && shard->now.mono_us - shard->run_us >= RUN_INTERVAL_US;
    if (shard->options.shard == 0 && shard->peer_count > 0 && raise_due)
        raise_run(shard);
    if (shard->options.shard != 0 || shard->now.mono_us - shard->pinged_us < PING_INTERVAL_US)
        return;
    forget_stepped_clock(shard);
    shard->pinged_us = shard->now.mono_us;
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct buf *out = peer_output(&shard->peers[i]);
        if (out == NULL)
            continue;
        struct frame_ping ping = {.sent_mono_us = shard->now.mono_us, .sent_wall_ms = shard->now.wall_ms};
        frame_put_ping(out, frame_head_of(shard, 0, 0), &ping);
        out->failed = false;
    }
    judge_clock(shard);
}
