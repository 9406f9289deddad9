/* Streams, events, capture and graphs. Work waits in its stream until something waits for it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "software_cuda.h"

struct event {
    struct event *next;
    int timing;
    long recorded, passed; /* the last mark that was queued, and that was reached */
    double ms;
    struct stream *stream;
};

enum kind { COPY, FILL, LAUNCH, RECORD, WAIT };

struct work {
    struct work *next;
    enum kind kind;
    CUdeviceptr target, source;
    size_t bytes;
    unsigned char *snapshot;
    uint32_t value;
    int width;
    struct launch launch;
    struct event *event;
    long mark;
};

struct queue {
    struct work *first, **end;
};

struct stream {
    struct stream *next;
    unsigned flags;
    struct queue queue;
    int busy; /* somebody is doing the first of it */
    int capturing, spoilt;
    pthread_t capturer;
    struct queue captured;
};

struct graph {
    struct graph *next;
    struct queue queue;
};

static struct stream *streams;
static struct event *events;
static struct graph *graphs, *executables;
static int captures;
static const struct launch no_launch;

#define HAS(list, item)                                                     \
    ({                                                                      \
        int has = 0;                                                        \
        for (__typeof__(list) each = (list); each != NULL; each = each->next) \
            has |= each == (void *)(item);                                  \
        has;                                                                \
    })

#define TAKE_OUT(list, item)                                                 \
    do {                                                                     \
        __typeof__(&(list)) link = &(list);                                  \
        while (*link != NULL && *link != (void *)(item))                     \
            link = &(*link)->next;                                           \
        if (*link != NULL)                                                   \
            *link = (*link)->next;                                           \
    } while (0)

static void empty(struct queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void add(struct queue *queue, struct work *work)
{
    work->next = NULL;
    *queue->end = work;
    queue->end = &work->next;
}

static void drop(struct work *work)
{
    free(work->snapshot);
    free(work);
}

static void drop_all(struct queue *queue)
{
    for (struct work *work = queue->first, *next; work != NULL; work = next) {
        next = work->next;
        drop(work);
    }
    empty(queue);
}

/* --- execution ------------------------------------------------------------------------------ */

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static CUresult run(struct stream *stream, const struct event *until, long mark);

static int reachable(CUdeviceptr address, size_t bytes)
{
    return is_live(address, bytes) || is_page_locked((void *)address, bytes);
}

static CUresult execute(struct work *work)
{
    switch (work->kind) {
    case COPY:
        counters[COPIES]++;
        if (work->snapshot == NULL && !is_live(work->target, work->bytes)
            && !is_live(work->source, work->bytes))
            return ILLEGAL_ADDRESS;
        memmove((void *)work->target,
                work->snapshot != NULL ? work->snapshot : (void *)work->source, work->bytes);
        return SUCCESS;
    case FILL:
        if (!reachable(work->target, work->bytes * (size_t)work->width))
            return ILLEGAL_ADDRESS;
        for (size_t i = 0; i < work->bytes; i++)
            memcpy((char *)work->target + i * (size_t)work->width, &work->value,
                   (size_t)work->width);
        return SUCCESS;
    case LAUNCH: {
        void *arguments[32];
        struct launch *launch = &work->launch;
        CHECKED(injected("kernel"));
        for (int i = 0; i < launch->parameters; i++)
            arguments[i] = &launch->values[i];
        unlock(NULL);
        launch->kernel(launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0],
                       launch->block[1], launch->block[2], launch->shared_bytes, arguments);
        lock();
        counters[LAUNCHES]++;
        return SUCCESS;
    }
    case RECORD:
        if (HAS(events, work->event)) {
            work->event->passed = work->mark;
            work->event->ms = now_ms();
        }
        return SUCCESS;
    case WAIT:
        if (HAS(events, work->event) && work->event->passed < work->mark
            && HAS(streams, work->event->stream))
            return run(work->event->stream, work->event, work->mark);
        return SUCCESS;
    }
    return INVALID_VALUE;
}

/* Do what is queued, all of it or until `until` has passed `mark`, and wait for what another
 * thread is doing of it. */
static CUresult run(struct stream *stream, const struct event *until, long mark)
{
    while (HAS(streams, stream) && (until == NULL || (HAS(events, until) && until->passed < mark))) {
        if (stream->busy) {
            wait_for_change();
            continue;
        }
        struct queue *queue = &stream->queue;
        struct work *work = queue->first;
        if (work == NULL)
            break;
        queue->first = work->next;
        if (queue->first == NULL)
            queue->end = &queue->first;
        stream->busy = 1;
        CUresult code = lost_code();
        if (code == SUCCESS && (code = execute(work)) != SUCCESS)
            lose_device(code);
        drop(work);
        stream->busy = 0;
        tell_of_change();
    }
    return lost_code();
}

CUresult finish_all(void)
{
    struct stream *stream = streams;
    while (stream != NULL) {
        if (stream->queue.first != NULL || stream->busy) {
            run(stream, NULL, 0);
            stream = streams; /* others may have come and gone meanwhile */
        } else {
            stream = stream->next;
        }
    }
    return lost_code();
}

CUresult finish_stream(void *handle)
{
    CHECKED(enter_unsafe("cuStreamSynchronize"));
    if (handle == NULL)
        return finish_all();
    return HAS(streams, handle) ? run(handle, NULL, 0) : INVALID_HANDLE;
}

/* --- queueing ------------------------------------------------------------------------------- */

static CUresult queue_work(void *handle, struct work *work)
{
    struct stream *stream = handle;
    if (stream == NULL) {
        /* The default stream: everything before it, then at once. */
        CUresult code = finish_all();
        if (code == SUCCESS && (code = execute(work)) != SUCCESS)
            lose_device(code);
        drop(work);
        return code;
    }
    if (!HAS(streams, stream)) {
        drop(work);
        return INVALID_HANDLE;
    }
    if (stream->capturing && stream->spoilt) {
        drop(work);
        return CAPTURE_INVALIDATED;
    }
    add(stream->capturing ? &stream->captured : &stream->queue, work);
    return SUCCESS;
}

static struct work *new_work(enum kind kind)
{
    struct work *work = calloc(1, sizeof *work);
    work->kind = kind;
    work->launch = no_launch;
    return work;
}

CUresult queue_copy(void *stream, CUdeviceptr target, CUdeviceptr source, size_t bytes, int snap)
{
    struct work *work = new_work(COPY);
    work->target = target;
    work->source = source;
    work->bytes = bytes;
    if (snap) {
        work->snapshot = malloc(bytes + 1);
        memcpy(work->snapshot, (void *)source, bytes);
    }
    return queue_work(stream, work);
}

CUresult queue_fill(void *stream, CUdeviceptr target, uint32_t value, int width, size_t count)
{
    struct work *work = new_work(FILL);
    work->target = target;
    work->value = value;
    work->width = width;
    work->bytes = count;
    return queue_work(stream, work);
}

CUresult queue_launch(void *stream, const struct launch *launch)
{
    struct work *work = new_work(LAUNCH);
    work->launch = *launch;
    return queue_work(stream, work);
}

/* --- streams -------------------------------------------------------------------------------- */

EXPORT CUresult cuStreamCreate(void **handle, unsigned flags)
{
    GUARDED;
    CHECKED(enter_context("cuStreamCreate"));
    struct stream *stream = calloc(1, sizeof *stream);
    stream->flags = flags;
    empty(&stream->queue);
    empty(&stream->captured);
    stream->next = streams;
    streams = stream;
    counters[STREAMS]++;
    *handle = stream;
    return SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(void *handle)
{
    GUARDED;
    CHECKED(enter_context("cuStreamDestroy"));
    struct stream *stream = handle;
    if (!HAS(streams, stream))
        return INVALID_HANDLE;
    run(stream, NULL, 0);
    captures -= stream->capturing;
    drop_all(&stream->captured);
    TAKE_OUT(streams, stream);
    free(stream);
    counters[STREAMS]--;
    return SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(void *handle)
{
    GUARDED;
    return finish_stream(handle);
}

EXPORT CUresult cuStreamQuery(void *handle)
{
    GUARDED;
    CHECKED(enter_unsafe("cuStreamQuery"));
    struct stream *stream = handle;
    if (stream != NULL && !HAS(streams, stream))
        return INVALID_HANDLE;
    int busy = stream != NULL && (stream->queue.first != NULL || stream->busy);
    CHECKED(stream != NULL ? run(stream, NULL, 0) : finish_all());
    return busy ? NOT_READY : SUCCESS;
}

/* --- events --------------------------------------------------------------------------------- */

EXPORT CUresult cuEventCreate(void **handle, unsigned flags)
{
    GUARDED;
    CHECKED(enter_context("cuEventCreate"));
    struct event *event = calloc(1, sizeof *event);
    event->timing = (flags & 2) == 0;
    event->next = events;
    events = event;
    counters[EVENTS]++;
    *handle = event;
    return SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(void *handle)
{
    GUARDED;
    CHECKED(enter_context("cuEventDestroy"));
    if (!HAS(events, handle))
        return INVALID_HANDLE;
    TAKE_OUT(events, handle);
    free(handle);
    counters[EVENTS]--;
    return SUCCESS;
}

static int is_capturing(void *stream)
{
    return HAS(streams, stream) && ((struct stream *)stream)->capturing;
}

/* Count one more mark of an event, and return its number. */
static long next_mark(struct event *event, struct stream *stream)
{
    event->stream = stream;
    return ++event->recorded;
}

static CUresult mark(enum kind kind, struct event *event, void *stream)
{
    if (!HAS(events, event))
        return INVALID_HANDLE;
    /* In a capture an event only orders the graph's work: nothing is recorded. */
    if (kind == RECORD && is_capturing(stream))
        return SUCCESS;
    struct work *work = new_work(kind);
    work->event = event;
    work->mark = kind == RECORD ? next_mark(event, stream) : event->recorded;
    return queue_work(stream, work);
}

EXPORT CUresult cuEventRecord(void *event, void *stream)
{
    GUARDED;
    CHECKED(enter_context("cuEventRecord"));
    return mark(RECORD, event, stream);
}

/* With flag 1 the graph that is captured records the event each time that it runs. */
EXPORT CUresult cuEventRecordWithFlags(void *event, void *stream, unsigned flags)
{
    GUARDED;
    CHECKED(enter_context("cuEventRecordWithFlags"));
    if (flags == 0)
        return mark(RECORD, event, stream);
    if (flags != 1 || !is_capturing(stream))
        return INVALID_VALUE;
    if (!HAS(events, event))
        return INVALID_HANDLE;
    struct work *work = new_work(RECORD);
    work->event = event;
    return queue_work(stream, work);
}

EXPORT CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags)
{
    GUARDED;
    CHECKED(enter_context("cuStreamWaitEvent"));
    return flags > 1 ? INVALID_VALUE : mark(WAIT, event, stream);
}

static CUresult reach(struct event *event)
{
    if (!HAS(events, event))
        return INVALID_HANDLE;
    if (event->passed < event->recorded && HAS(streams, event->stream))
        return run(event->stream, event, event->recorded);
    return lost_code();
}

EXPORT CUresult cuEventSynchronize(void *event)
{
    GUARDED;
    CHECKED(enter_unsafe("cuEventSynchronize"));
    return reach(event);
}

EXPORT CUresult cuEventQuery(void *handle)
{
    GUARDED;
    CHECKED(enter_unsafe("cuEventQuery"));
    struct event *event = handle;
    int ready = HAS(events, event) && event->passed >= event->recorded;
    CHECKED(reach(event));
    return ready ? SUCCESS : NOT_READY;
}

EXPORT CUresult cuEventElapsedTime_v2(float *ms, void *first, void *last)
{
    GUARDED;
    CHECKED(enter_context("cuEventElapsedTime"));
    struct event *from = first, *to = last;
    if (!HAS(events, from) || !HAS(events, to) || !from->timing || !to->timing
        || from->recorded == 0 || to->recorded == 0)
        return INVALID_HANDLE;
    if (from->passed < from->recorded || to->passed < to->recorded)
        return NOT_READY;
    *ms = (float)(to->ms - from->ms);
    return SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *ms, void *first, void *last)
{
    return cuEventElapsedTime_v2(ms, first, last);
}

/* --- capture and graphs --------------------------------------------------------------------- */

int capturing_here(void)
{
    for (struct stream *stream = streams; captures > 0 && stream != NULL; stream = stream->next)
        if (stream->capturing && pthread_equal(stream->capturer, pthread_self()))
            return 1;
    return 0;
}

void spoil_captures(void)
{
    for (struct stream *stream = streams; stream != NULL; stream = stream->next)
        if (stream->capturing && pthread_equal(stream->capturer, pthread_self()))
            stream->spoilt = 1;
}

EXPORT CUresult cuStreamBeginCapture_v2(void *handle, int mode)
{
    GUARDED;
    CHECKED(enter_context("cuStreamBeginCapture"));
    struct stream *stream = handle;
    if (stream == NULL)
        return CAPTURE_UNSUPPORTED;
    if (!HAS(streams, stream))
        return INVALID_HANDLE;
    if (mode != 1 || stream->capturing)
        return INVALID_VALUE;
    stream->capturing = 1;
    stream->spoilt = 0;
    stream->capturer = pthread_self();
    captures++;
    return SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(void *handle, void **result)
{
    GUARDED;
    CHECKED(enter_context("cuStreamEndCapture"));
    struct stream *stream = handle;
    *result = NULL;
    if (!HAS(streams, stream))
        return INVALID_HANDLE;
    if (!stream->capturing)
        return CAPTURE_UNMATCHED;
    stream->capturing = 0;
    captures--;
    if (stream->spoilt) {
        drop_all(&stream->captured);
        return CAPTURE_INVALIDATED;
    }
    struct graph *graph = calloc(1, sizeof *graph);
    graph->queue = stream->captured;
    if (graph->queue.first == NULL)
        empty(&graph->queue);
    empty(&stream->captured);
    graph->next = graphs;
    graphs = graph;
    counters[GRAPHS]++;
    *result = graph;
    return SUCCESS;
}

static void copy_queue(struct queue *target, const struct queue *source)
{
    for (struct work *work = source->first; work != NULL; work = work->next) {
        struct work *copy = new_work(work->kind);
        *copy = *work;
        copy->snapshot = NULL;
        add(target, copy);
    }
}

#ifndef OLD_DRIVER
EXPORT CUresult cuGraphInstantiateWithFlags(void **executable, void *handle,
                                            unsigned long long flags)
{
    GUARDED;
    CHECKED(enter_context("cuGraphInstantiate"));
    if (flags != 0 || !HAS(graphs, handle))
        return INVALID_VALUE;
    struct graph *graph = calloc(1, sizeof *graph);
    empty(&graph->queue);
    copy_queue(&graph->queue, &((struct graph *)handle)->queue);
    graph->next = executables;
    executables = graph;
    counters[GRAPHS]++;
    *executable = graph;
    return SUCCESS;
}
#endif

EXPORT CUresult cuGraphLaunch(void *executable, void *handle)
{
    GUARDED;
    CHECKED(enter_context("cuGraphLaunch"));
    struct stream *stream = handle;
    if (!HAS(executables, executable) || !HAS(streams, stream) || stream->capturing)
        return INVALID_VALUE;
    struct work **last = stream->queue.end;
    copy_queue(&stream->queue, &((struct graph *)executable)->queue);
    for (struct work *work = *last; work != NULL; work = work->next)
        if (work->kind == RECORD && HAS(events, work->event))
            work->mark = next_mark(work->event, stream);
    return SUCCESS;
}

EXPORT CUresult cuGraphDestroy(void *handle)
{
    GUARDED;
    CHECKED(enter("cuGraphDestroy"));
    if (!HAS(graphs, handle))
        return INVALID_VALUE;
    TAKE_OUT(graphs, handle);
    drop_all(&((struct graph *)handle)->queue);
    free(handle);
    counters[GRAPHS]--;
    return SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(void *executable)
{
    GUARDED;
    CHECKED(enter("cuGraphExecDestroy"));
    if (!HAS(executables, executable))
        return INVALID_VALUE;
    TAKE_OUT(executables, executable);
    drop_all(&((struct graph *)executable)->queue);
    free(executable);
    counters[GRAPHS]--;
    return SUCCESS;
}
