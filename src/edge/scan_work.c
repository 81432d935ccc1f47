/* Range scans of the cold tier on libuv's thread pool. */
#include "edge/scan_work.h"

#include <assert.h>

#include "edge/cold.h"
#include "edge/say.h"

/* Buffers grow by doubling, and the old bytes are there until they are copied. */
#define SCAN_MEMORY_BYTES (4 * (COLD_SCAN_PAGE_BYTES + (size_t)FRAME_BYTES_MAX))

enum scan_state {
    SCAN_WAITS_FOR_POOL,
    SCAN_IN_POOL,
    SCAN_WAITS_FOR_SHARD,
};

/* In the pool, what stands below `request` belongs to the worker. */
struct scan {
    struct scan_work *work;
    struct list_link all;     /* in struct scan_work */
    struct list_link waiting; /* likewise */
    enum scan_state state;
    bool stopped; /* the shard has forgotten it */
    uint64_t ticket;
    uv_work_t request;

    bool only_close;        /* it was stopped before it came into the pool */
    struct cold_scan *cold; /* NULL once closed, or when it could not be opened */
    enum status status;
    bool more;
    struct alloc page_alloc;
    struct buf page;
};

static _Noreturn void out_of_memory(const struct scan_work *work)
{
    say_and_exit(work->options.say, work->options.shard,
                 span_of_text("out of memory for scans of the cold tier; ending"));
}

static void scan_free(struct scan *scan)
{
    struct scan_work *work = scan->work;
    assert(scan->state != SCAN_IN_POOL);
    list_remove(&scan->all);
    list_remove(&scan->waiting);
    cold_scan_close(scan->cold);
    buf_free(&scan->page);
    alloc_put(work->options.alloc, scan, sizeof *scan);
}

static struct scan *scan_find(struct scan_work *work, uint64_t ticket)
{
    for (struct list_link *link = work->scans.next; link != &work->scans; link = link->next) {
        struct scan *scan = LIST_ENTRY(link, struct scan, all);
        if (scan->ticket == ticket && !scan->stopped)
            return scan;
    }
    return NULL;
}

/* ---- in the pool ---------------------------------------------------------------------------------------- */

static void read_page(uv_work_t *request)
{
    struct scan *scan = request->data;
    scan->more = false;
    if (scan->cold != NULL && !scan->only_close)
        scan->status = cold_scan_next(scan->cold, COLD_SCAN_PAGE_BYTES, &scan->page, &scan->more);
    if (scan->status == STATUS_OK && scan->more)
        return;
    cold_scan_close(scan->cold);
    scan->cold = NULL;
}

/* ---- on the loop's thread ------------------------------------------------------------------------------- */

static void on_page(uv_work_t *request, int status);

static void start_waiting(struct scan_work *work)
{
    struct list_link *link;
    if (work->closing || work->telling)
        return;
    while (work->busy < SCAN_PAGES_MAX && (link = list_pop_front(&work->waiting)) != NULL) {
        struct scan *scan = LIST_ENTRY(link, struct scan, waiting);
        scan->state = SCAN_IN_POOL;
        scan->only_close = scan->stopped;
        work->busy++;
        if (uv_queue_work(work->options.uv, &scan->request, read_page, on_page) != 0)
            out_of_memory(work);
    }
}

static void wait_for_pool(struct scan *scan)
{
    scan->state = SCAN_WAITS_FOR_POOL;
    list_push_back(&scan->work->waiting, &scan->waiting);
    start_waiting(scan->work);
}

/* The shard may answer from within, even for this scan: nothing starts before the page is freed. */
static void tell_page(struct scan *scan)
{
    struct scan_work *work = scan->work;
    struct event event = {
        .kind = EVENT_COLD_SCAN, .ticket = scan->ticket, .status = scan->status, .flag = scan->more};
    if (scan->status == STATUS_OK)
        event.bytes = buf_span(&scan->page);
    bool over = scan->cold == NULL;
    if (over) {
        event.flag = false;
        scan->stopped = true;
        work->open--;
    }
    work->telling = true;
    work->options.tell(work->options.context, &event);
    work->telling = false;
    buf_free(&scan->page);
    if (over)
        scan_free(scan);
}

static void on_page(uv_work_t *request, int status)
{
    struct scan *scan = request->data;
    struct scan_work *work = scan->work;
    (void)status;
    work->busy--;
    scan->state = SCAN_WAITS_FOR_SHARD;
    if (work->closing)
        return;
    if (!scan->stopped)
        tell_page(scan);
    else if (scan->cold == NULL)
        scan_free(scan);
    else
        wait_for_pool(scan); /* to be closed */
    start_waiting(work);
}

/* ---- effects -------------------------------------------------------------------------------------------- */

void scan_work_open(struct scan_work *work, uint64_t ticket, struct span first, struct span end)
{
    assert(work->open < COLD_SCANS_MAX);
    assert(scan_find(work, ticket) == NULL);
    struct scan *scan = alloc_get_zeroed(work->options.alloc, sizeof *scan);
    if (scan == NULL)
        out_of_memory(work);
    scan->work = work;
    scan->ticket = ticket;
    scan->request.data = scan;
    list_init(&scan->waiting);
    list_push_back(&work->scans, &scan->all);
    work->open++;
    alloc_init(&scan->page_alloc, SCAN_MEMORY_BYTES);
    buf_init(&scan->page, &scan->page_alloc);
    scan->status = cold_scan_open(work->options.cold, first, end, &scan->cold);
    wait_for_pool(scan);
}

void scan_work_next(struct scan_work *work, uint64_t ticket)
{
    struct scan *scan = scan_find(work, ticket);
    assert(scan != NULL);
    assert(scan->state == SCAN_WAITS_FOR_SHARD);
    wait_for_pool(scan);
}

void scan_work_stop(struct scan_work *work, uint64_t ticket)
{
    struct scan *scan = scan_find(work, ticket);
    if (scan == NULL)
        return;
    scan->stopped = true;
    work->open--;
    if (scan->state == SCAN_WAITS_FOR_SHARD)
        wait_for_pool(scan);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

void scan_work_init(struct scan_work *work, const struct scan_work_options *options)
{
    *work = (struct scan_work){.options = *options};
    list_init(&work->scans);
    list_init(&work->waiting);
}

void scan_work_close(struct scan_work *work)
{
    work->closing = true;
}

void scan_work_free(struct scan_work *work)
{
    struct list_link *link;
    while ((link = list_first(&work->scans)) != NULL)
        scan_free(LIST_ENTRY(link, struct scan, all));
}
