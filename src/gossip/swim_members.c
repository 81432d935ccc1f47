/* What is known of each node, and how news changes it.
 *
 * Invariant: what is known of a node only ever grows in the order (incarnation, state), except through
 * swim_set_members. Hence news may come in any order and any number of times. */
#include <assert.h>

#include "gossip/swim_internal.h"

uint16_t swim_find(const struct swim *swim, uint64_t node)
{
    uint16_t low = 0;
    uint16_t high = swim->member_count;
    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (swim->nodes[middle] < node)
            low = (uint16_t)(middle + 1);
        else
            high = middle;
    }
    return low < swim->member_count && swim->nodes[low] == node ? low : SWIM_NO_MEMBER;
}

struct rumour swim_rumour_of(const struct swim *swim, uint16_t index)
{
    const struct swim_member *member = &swim->members[index];
    struct rumour rumour = {.node = member->node, .incarnation = member->incarnation, .state = member->state};
    if (member->state == SWIM_SUSPECT)
        rumour.accuser = member->suspicion.accusers[member->suspicion.accuser_count - 1];
    else if (member->state == SWIM_DEAD)
        rumour.accuser = swim->self_node;
    return rumour;
}

static void find_earliest_suspicion(struct swim *swim)
{
    swim->suspicion_at_ms = UINT64_MAX;
    if (swim->suspects == 0)
        return;
    for (uint16_t i = 0; i < swim->member_count; i++) {
        if (swim->members[i].state != SWIM_SUSPECT)
            continue;
        uint64_t deadline_ms = suspicion_deadline_ms(&swim->members[i].suspicion);
        if (deadline_ms < swim->suspicion_at_ms)
            swim->suspicion_at_ms = deadline_ms;
    }
}

/* The noted time may be earlier than the truth once a suspicion has ended: then it is found anew when it comes. */
static void note_suspicion(struct swim *swim, uint16_t index)
{
    uint64_t deadline_ms = suspicion_deadline_ms(&swim->members[index].suspicion);
    if (deadline_ms < swim->suspicion_at_ms)
        swim->suspicion_at_ms = deadline_ms;
}

static void note_change(struct swim *swim, uint16_t index)
{
    if (swim->members[index].changed)
        return;
    swim->members[index].changed = true;
    swim->changes[(swim->change_at + swim->change_count) % swim->member_count] = index;
    swim->change_count++;
}

static void enter_state(struct swim *swim, uint16_t index, const struct rumour *news)
{
    struct swim_member *member = &swim->members[index];
    assert(index != swim->self);
    swim->suspects =
        (uint16_t)(swim->suspects - (member->state == SWIM_SUSPECT) + (news->state == SWIM_SUSPECT));
    swim->dead = (uint16_t)(swim->dead - (member->state == SWIM_DEAD) + (news->state == SWIM_DEAD));
    if (member->state != news->state) {
        member->since_ms = swim->now_ms;
        note_change(swim, index);
    }
    member->state = news->state;
    member->incarnation = news->incarnation;
    rumours_put(&swim->rumours, index, news);
}

static void begin_suspicion(struct swim *swim, uint16_t index, uint64_t accuser)
{
    const struct swim_tuning *tuning = &swim->tuning;
    uint64_t min_ms =
        suspicion_min_ms(tuning->suspicion_factor, swim->member_count, tuning->probe_interval_ms);
    /* Where fewer than k others are there to confirm, waiting for them would only take time. */
    uint16_t others = (uint16_t)(swim->member_count - swim->dead);
    bool enough = others >= 2 && others - 2u >= tuning->confirmations;
    struct suspicion_options options = {
        .now_ms = swim->now_ms,
        .min_ms = min_ms,
        .max_ms = min_ms * tuning->suspicion_max_factor,
        .accuser = accuser,
        .confirmations = enough ? (uint8_t)tuning->confirmations : 0,
    };
    suspicion_start(&swim->members[index].suspicion, &options);
    swim->counters.suspicions++;
}

/* ---- this node ------------------------------------------------------------------------------------------ */

/* Takes an incarnation above the one that somebody else speaks of. */
static void outlive(struct swim *swim, uint64_t incarnation)
{
    struct swim_member *self = &swim->members[swim->self];
    if (incarnation >= INCARNATION_MAX)
        return; /* no node counts up to there: somebody invents it */
    self->incarnation = (incarnation > self->incarnation ? incarnation : self->incarnation) + 1;
    struct rumour alive = swim_rumour_of(swim, swim->self);
    rumours_put(&swim->rumours, swim->self, &alive);
}

static bool apply_to_self(struct swim *swim, const struct rumour *rumour)
{
    uint64_t own = swim->members[swim->self].incarnation;
    if (rumour->state == SWIM_ALIVE) {
        /* An earlier run of this node came further. */
        if (rumour->incarnation > own)
            outlive(swim, rumour->incarnation);
        return false;
    }
    if (rumour->incarnation >= own) {
        outlive(swim, rumour->incarnation);
        swim->counters.refutations++;
        awareness_add(&swim->awareness, 1);
    }
    return true;
}

/* ---- others --------------------------------------------------------------------------------------------- */

static bool is_newer(const struct swim_member *member, const struct rumour *rumour)
{
    if (rumour->incarnation != member->incarnation)
        return rumour->incarnation > member->incarnation;
    return rumour->state > member->state;
}

bool swim_apply(struct swim *swim, const struct rumour *rumour)
{
    uint16_t index = swim_find(swim, rumour->node);
    if (index == SWIM_NO_MEMBER)
        return false; /* of a ring record that one of us does not have yet */
    if (index == swim->self)
        return apply_to_self(swim, rumour);
    struct swim_member *member = &swim->members[index];
    if (is_newer(member, rumour)) {
        if (rumour->state == SWIM_SUSPECT)
            begin_suspicion(swim, index, rumour->accuser);
        enter_state(swim, index, rumour);
        if (rumour->state == SWIM_SUSPECT)
            note_suspicion(swim, index);
        return false;
    }
    bool same = rumour->state == SWIM_SUSPECT && member->state == SWIM_SUSPECT &&
                rumour->incarnation == member->incarnation;
    if (same && suspicion_confirm(&member->suspicion, rumour->accuser)) {
        /* The others want to count this accuser too. */
        rumours_put(&swim->rumours, index, rumour);
        note_suspicion(swim, index);
    }
    return false;
}

void swim_suspect(struct swim *swim, uint16_t index)
{
    const struct swim_member *member = &swim->members[index];
    if (member->state == SWIM_DEAD)
        return;
    struct rumour accusation = {
        .node = member->node,
        .incarnation = member->incarnation,
        .accuser = swim->self_node,
        .state = SWIM_SUSPECT,
    };
    bool accuses_self = swim_apply(swim, &accusation);
    assert(!accuses_self);
}

void swim_run_suspicions(struct swim *swim)
{
    if (swim->suspicion_at_ms > swim->now_ms)
        return;
    for (uint16_t i = 0; i < swim->member_count; i++) {
        const struct swim_member *member = &swim->members[i];
        if (member->state != SWIM_SUSPECT || suspicion_deadline_ms(&member->suspicion) > swim->now_ms)
            continue;
        struct rumour death = {
            .node = member->node,
            .incarnation = member->incarnation,
            .accuser = swim->self_node,
            .state = SWIM_DEAD,
        };
        swim->counters.deaths++;
        enter_state(swim, i, &death);
    }
    find_earliest_suspicion(swim);
}

void swim_extend_suspicions(struct swim *swim, uint64_t duration_ms)
{
    for (uint16_t i = 0; i < swim->member_count; i++) {
        if (swim->members[i].state == SWIM_SUSPECT)
            suspicion_extend(&swim->members[i].suspicion, duration_ms);
    }
    find_earliest_suspicion(swim);
}

/* ---- the table ------------------------------------------------------------------------------------------ */

struct tables {
    uint64_t *nodes;
    struct swim_member *members;
    uint16_t *order;
    uint16_t *changes;
    struct rumours rumours;
};

static void tables_free(struct swim *swim, struct tables *tables, uint16_t count)
{
    rumours_free(&tables->rumours);
    alloc_put(swim->alloc, tables->changes, count * sizeof *tables->changes);
    alloc_put(swim->alloc, tables->order, count * sizeof *tables->order);
    alloc_put(swim->alloc, tables->nodes, count * sizeof *tables->nodes);
    alloc_put(swim->alloc, tables->members, count * sizeof *tables->members);
}

static enum status tables_make(struct swim *swim, struct tables *tables, uint16_t count)
{
    uint8_t transmits_max = rumours_transmits_max(swim->tuning.transmit_factor, count);
    enum status status = rumours_init(&tables->rumours, swim->alloc, count, transmits_max);
    tables->nodes = alloc_get(swim->alloc, count * sizeof *tables->nodes);
    tables->members = alloc_get_zeroed(swim->alloc, count * sizeof *tables->members);
    tables->order = alloc_get(swim->alloc, count * sizeof *tables->order);
    tables->changes = alloc_get(swim->alloc, count * sizeof *tables->changes);
    if (status == STATUS_OK && tables->nodes != NULL && tables->members != NULL && tables->order != NULL &&
        tables->changes != NULL)
        return STATUS_OK;
    tables_free(swim, tables, count);
    return STATUS_OVERLOADED;
}

static void sort_members(struct swim_member *members, uint16_t count)
{
    for (uint16_t i = 1; i < count; i++) {
        struct swim_member member = members[i];
        uint16_t at = i;
        for (; at > 0 && members[at - 1].node > member.node; at--)
            members[at] = members[at - 1];
        assert(at == 0 || members[at - 1].node < member.node);
        members[at] = member;
    }
}

/* What was known, what was about to be told to others, and changes not yet given out. */
static void recount(struct swim *swim, const struct swim *before)
{
    for (uint16_t i = 0; i < swim->member_count; i++) {
        struct swim_member *member = &swim->members[i];
        swim->order[i] = i;
        swim->suspects = (uint16_t)(swim->suspects + (member->state == SWIM_SUSPECT));
        swim->dead = (uint16_t)(swim->dead + (member->state == SWIM_DEAD));
        if (member->changed) {
            member->changed = false;
            note_change(swim, i);
        }
        uint16_t old = before->members == NULL ? SWIM_NO_MEMBER : swim_find(before, member->node);
        if (old != SWIM_NO_MEMBER && before->rumours.entries[old].queued)
            rumours_put(&swim->rumours, i, &before->rumours.entries[old].rumour);
    }
}

enum status swim_set_members(struct swim *swim, const uint64_t *nodes, uint16_t node_count)
{
    assert(node_count >= 1 && node_count <= NODES_MAX);
    struct swim before = *swim;
    struct tables tables = {0};
    if (tables_make(swim, &tables, node_count) != STATUS_OK)
        return STATUS_OVERLOADED;
    for (uint16_t i = 0; i < node_count; i++) {
        assert(nodes[i] != 0);
        uint16_t old = swim->members == NULL ? SWIM_NO_MEMBER : swim_find(swim, nodes[i]);
        if (old != SWIM_NO_MEMBER)
            tables.members[i] = swim->members[old];
        else
            tables.members[i] =
                (struct swim_member){.node = nodes[i], .state = SWIM_ALIVE, .since_ms = swim->now_ms};
    }
    sort_members(tables.members, node_count);
    for (uint16_t i = 0; i < node_count; i++)
        tables.nodes[i] = tables.members[i].node;
    swim->nodes = tables.nodes;
    swim->members = tables.members;
    swim->order = tables.order;
    swim->changes = tables.changes;
    swim->rumours = tables.rumours;
    swim->member_count = node_count;
    swim->suspects = 0;
    swim->dead = 0;
    swim->change_at = 0;
    swim->change_count = 0;
    recount(swim, &before);
    find_earliest_suspicion(swim);
    swim->self = swim_find(swim, swim->self_node);
    assert(swim->self != SWIM_NO_MEMBER);
    swim->probe.active = false; /* its target may be somebody else now */
    swim_shuffle(swim);
    struct tables old_tables = {before.nodes, before.members, before.order, before.changes, before.rumours};
    if (before.members != NULL)
        tables_free(swim, &old_tables, before.member_count);
    return STATUS_OK;
}
