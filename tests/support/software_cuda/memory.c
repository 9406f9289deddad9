/* Memory: device memory between guard bytes, page-locked memory, copies and fills. */
#include <stdlib.h>
#include <string.h>

#include "software_cuda.h"

#define GUARD_BYTES 256 /* keeps the alignment that real device memory has */
#define GUARD_VALUE 0xA5
#define FRESH_VALUE 0xCD
#define FREED_VALUE 0xDD

struct block {
    unsigned char *base; /* of the guard before it */
    unsigned char *start;
    size_t bytes;
    int host, mapped;
    struct block *next;
};
static struct block *blocks;

static struct block *find(const void *address, size_t bytes)
{
    const unsigned char *start = address;
    for (struct block *block = blocks; block != NULL; block = block->next)
        if (start >= block->start && start + bytes <= block->start + block->bytes)
            return block;
    return NULL;
}

int is_live(CUdeviceptr address, size_t bytes)
{
    struct block *block = find((void *)address, bytes);
    return block != NULL && (!block->host || block->mapped);
}

int is_page_locked(const void *address, size_t bytes)
{
    struct block *block = find(address, bytes);
    return block != NULL && block->host;
}

static int overwritten(const struct block *block)
{
    const unsigned char *after = block->start + block->bytes;
    for (int i = 0; i < GUARD_BYTES; i++)
        if (block->base[i] != GUARD_VALUE || after[i] != GUARD_VALUE)
            return 1;
    return 0;
}

void check_guards(void)
{
    for (struct block *block = blocks; block != NULL; block = block->next)
        if (overwritten(block)) {
            counters[CORRUPTED]++;
            memset(block->base, GUARD_VALUE, GUARD_BYTES);
            memset(block->start + block->bytes, GUARD_VALUE, GUARD_BYTES);
        }
}

static struct block *allocate(size_t bytes, int host, int mapped)
{
    struct block *block = calloc(1, sizeof *block);
    size_t whole = (bytes + 2 * GUARD_BYTES + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    if (block == NULL || (block->base = aligned_alloc(GUARD_BYTES, whole)) == NULL) {
        free(block);
        return NULL;
    }
    block->start = block->base + GUARD_BYTES;
    block->bytes = bytes;
    block->host = host;
    block->mapped = mapped;
    memset(block->base, GUARD_VALUE, GUARD_BYTES);
    memset(block->start, FRESH_VALUE, bytes);
    memset(block->start + bytes, GUARD_VALUE, GUARD_BYTES);
    block->next = blocks;
    blocks = block;
    counters[host ? PAGE_LOCKED : BUFFERS]++;
    counters[ALLOCATIONS]++;
    return block;
}

static CUresult release(const void *address, int host)
{
    for (struct block **link = &blocks; *link != NULL; link = &(*link)->next) {
        struct block *block = *link;
        if (block->start != address || block->host != host)
            continue;
        CHECKED(finish_all());
        counters[CORRUPTED] += overwritten(block);
        *link = block->next;
        memset(block->start, FREED_VALUE, block->bytes);
        counters[host ? PAGE_LOCKED : BUFFERS]--;
        free(block->base);
        free(block);
        return SUCCESS;
    }
    return INVALID_VALUE;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemAlloc"));
    if (bytes == 0)
        return INVALID_VALUE;
    struct block *block = allocate(bytes, 0, 0);
    if (block == NULL)
        return OUT_OF_MEMORY;
    *pointer = (CUdeviceptr)block->start;
    return SUCCESS;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemFree"));
    return release((void *)pointer, 0);
}

EXPORT CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    GUARDED;
    CHECKED(enter_context("cuMemGetInfo"));
    *total = (size_t)8 << 30;
    *available = *total / 2;
    for (struct block *block = blocks; block != NULL; block = block->next)
        *available -= block->host ? 0 : block->bytes;
    return SUCCESS;
}

EXPORT CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemHostAlloc"));
    if (bytes == 0)
        return INVALID_VALUE;
    struct block *block = allocate(bytes, 1, (flags & 2) != 0);
    if (block == NULL)
        return OUT_OF_MEMORY;
    *pointer = block->start;
    return SUCCESS;
}

EXPORT CUresult cuMemFreeHost(void *pointer)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemFreeHost"));
    return release(pointer, 1);
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pointer, void *host, unsigned flags)
{
    GUARDED;
    CHECKED(enter_context("cuMemHostGetDevicePointer"));
    struct block *block = find(host, 1);
    if (flags != 0 || block == NULL || !block->mapped)
        return INVALID_VALUE;
    *pointer = (CUdeviceptr)host;
    return SUCCESS;
}

/* --- copies and fills ----------------------------------------------------------------------- */

static CUresult to_device(CUdeviceptr target, const void *source, size_t bytes, void *stream)
{
    if (!is_live(target, bytes))
        return INVALID_VALUE;
    int page_locked = is_page_locked(source, bytes);
    if (!page_locked && capturing_here()) {
        spoil_captures();
        return CAPTURE_UNSUPPORTED;
    }
    /* Ordinary memory is taken over before the call returns; page-locked memory is read later. */
    return queue_copy(stream, target, (CUdeviceptr)source, bytes, !page_locked);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes,
                                     void *stream)
{
    GUARDED;
    CHECKED(enter_context("cuMemcpyHtoDAsync"));
    return to_device(target, source, bytes, stream);
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void *source, size_t bytes)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemcpyHtoD"));
    return to_device(target, source, bytes, NULL);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, void *stream)
{
    GUARDED;
    CHECKED(enter_context("cuMemcpyDtoHAsync"));
    if (!is_live(source, bytes))
        return INVALID_VALUE;
    CHECKED(queue_copy(stream, (CUdeviceptr)target, source, bytes, 0));
    /* A copy into ordinary memory is complete when the call returns. */
    return is_page_locked(target, bytes) ? SUCCESS : finish_stream(stream);
}

EXPORT CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t bytes)
{
    GUARDED;
    CHECKED(enter_unsafe("cuMemcpyDtoH"));
    if (!is_live(source, bytes))
        return INVALID_VALUE;
    return queue_copy(NULL, (CUdeviceptr)target, source, bytes, 0);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes,
                                     void *stream)
{
    GUARDED;
    CHECKED(enter_context("cuMemcpyDtoDAsync"));
    if (!is_live(target, bytes) || !is_live(source, bytes))
        return INVALID_VALUE;
    return queue_copy(stream, target, source, bytes, 0);
}

EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes)
{
    return cuMemcpyDtoDAsync_v2(target, source, bytes, NULL);
}

static CUresult fill(const char *name, CUdeviceptr target, uint32_t value, int width,
                     size_t count, void *stream)
{
    CHECKED(enter_context(name));
    if (!is_live(target, count * (size_t)width))
        return INVALID_VALUE;
    return queue_fill(stream, target, value, width, count);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, void *stream)
{
    GUARDED;
    return fill("cuMemsetD8Async", target, value, 1, count, stream);
}

EXPORT CUresult cuMemsetD8_v2(CUdeviceptr target, unsigned char value, size_t count)
{
    GUARDED;
    return fill("cuMemsetD8", target, value, 1, count, NULL);
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, void *stream)
{
    GUARDED;
    return fill("cuMemsetD32Async", target, value, 4, count, stream);
}

EXPORT CUresult cuMemsetD32_v2(CUdeviceptr target, unsigned value, size_t count)
{
    GUARDED;
    return fill("cuMemsetD32", target, value, 4, count, NULL);
}
