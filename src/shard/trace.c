/* Timelines: what happened to one request, and when, for the client that asked for it.
 *
 * An event is a number of microseconds since the request began at its coordinator, "us", and a few words:
 * "412us answered n2 OK 1795327200007-0-6f…". Events are joined by TRACE_SEPARATOR, which none of them contains: the
 * whole is the value of an HTTP header. Times are the clock readings of the coordinating shard's steps: as fine as its
 * loop's iterations. A timeline has memory only while its request is under way, and a bound on both events and bytes;
 * the last event is always kept. */
#include <assert.h>
#include <inttypes.h>

#include "shard/request.h"

/* Room for the last two: that events are missing, and how it ended. */
#define LAST_EVENTS_BYTES 128u

struct trace {
    uint64_t begun_us;
    uint32_t events;
    bool cut; /* events are missing */
    struct buf text;
};

void trace_begin(struct shard *shard, struct request *request)
{
    request->trace = alloc_get_zeroed(&shard->alloc, sizeof *request->trace);
    if (request->trace == NULL)
        return; /* without memory the request goes on untraced */
    shard->traced_requests++;
    request->trace->begun_us = request->begun_us;
    buf_init(&request->trace->text, &shard->alloc);
    buf_append_format(&request->trace->text, "0us begun at %s shard %u", shard->ring->nodes[shard->self].name,
                      shard->options.shard);
    request->trace->events = 1;
}

void trace_free(struct shard *shard, struct request *request)
{
    if (request->trace == NULL)
        return;
    buf_free(&request->trace->text);
    alloc_put(&shard->alloc, request->trace, sizeof *request->trace);
    request->trace = NULL;
    shard->traced_requests--;
}

static void put_event(struct trace *trace, uint64_t now_us, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends an event; one that does not fit any more is left out, and its place is noted. */
static void put_event(struct trace *trace, uint64_t now_us, const char *format, ...)
{
    size_t before = trace->text.size;
    if (trace->cut)
        return;
    va_list arguments;
    va_start(arguments, format);
    buf_append_format(&trace->text, TRACE_SEPARATOR "%" PRIu64 "us ", now_us - trace->begun_us);
    buf_append_arguments(&trace->text, format, arguments);
    va_end(arguments);
    trace->events++;
    trace->cut = trace->text.failed || trace->text.size > TRACE_BYTES_MAX - LAST_EVENTS_BYTES ||
                 trace->events > TRACE_EVENTS_MAX - 2u;
    if (!trace->cut)
        return;
    trace->text.size = before;
    trace->text.failed = false;
}

void trace_end(struct request *request, struct result *result, uint64_t now_us)
{
    struct trace *trace = request->trace;
    if (trace == NULL)
        return;
    if (trace->cut)
        buf_append_text(&trace->text, TRACE_SEPARATOR "events left out");
    buf_append_format(&trace->text, TRACE_SEPARATOR "%" PRIu64 "us ", now_us - trace->begun_us);
    if (result->outcome == OUTCOME_DONE)
        buf_append_text(&trace->text, "done");
    else if (result->outcome == OUTCOME_UNKNOWN)
        buf_append_text(&trace->text, "outcome unknown");
    else
        buf_append_format(&trace->text, "not applied: %s", status_name(result->status));
    assert(trace->text.size <= TRACE_BYTES_MAX);
    result->trace = buf_span(&trace->text);
}

static const char *name_of(const struct shard *shard, const struct request *request, uint8_t place)
{
    return shard->ring->nodes[request->node[place]].name;
}

void trace_add(struct shard *shard, struct request *request, const char *event)
{
    put_event(request->trace, shard->now.mono_us, "%s", event);
}

void trace_add_node(struct shard *shard, struct request *request, const char *event, uint8_t place)
{
    put_event(request->trace, shard->now.mono_us, "%s %s", event, name_of(shard, request, place));
}

void trace_add_stamp(struct shard *shard, struct request *request, struct stamp stamp, bool again)
{
    char text[VERSION_TEXT_BYTES_MAX];
    size_t size = version_format((struct version){.value = stamp}, text);
    put_event(request->trace, shard->now.mono_us, "%s %.*s", again ? "restamped" : "stamped", (int)size,
              text);
}

void trace_add_answer(struct shard *shard, struct request *request, uint8_t place,
                      const struct replica_answer *answer)
{
    char text[VERSION_TEXT_BYTES_MAX];
    bool ok = answer->status == STATUS_OK;
    struct span version = span_of(text, version_format(answer->version, text));
    if (ok && version.size == 0)
        version = span_of_text("nothing");
    /* A replica that says OK to a write says that it is durable there. */
    put_event(request->trace, shard->now.mono_us, "%s %s %s%s%.*s",
              ok && answer->kind == TASK_PUT ? "durable at" : "answered", name_of(shard, request, place),
              status_name(answer->status), version.size > 0 ? " " : "", (int)version.size,
              (const char *)version.data);
}

void trace_cold(struct shard *shard, const struct task *task)
{
    if (shard->traced_requests == 0 || task->origin.node != 0 || task->origin.kind != ORIGIN_REQUEST)
        return;
    struct request *request = map_get(&shard->requests, task->origin.request >> TAG_BITS);
    uint8_t place = request == NULL ? REPLICAS_MAX : request_place(request, shard->self);
    if (place != REPLICAS_MAX)
        trace_node(shard, request, "reads its cold tier:", place);
}
