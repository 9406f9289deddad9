/* A CUDA driver whose device is the processor: enough of libcuda.so.1 for tests without a GPU.
 *
 * Device memory is host memory between guard bytes. A stream is a queue whose work is done as
 * late as the interface allows (when something waits for it), so that a result that is read, or
 * a staging buffer that is written again, too early shows as wrong pixels. Whoever waits for a
 * stream does its work; threads that wait for different streams run their kernels side by side.
 * Kernels are functions `cpu_launch_<name>` of the library named by EDGE_FG_SOFTWARE_KERNELS.
 */
#ifndef SOFTWARE_CUDA_H
#define SOFTWARE_CUDA_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
};

/* What is alive, counted for `software_cuda_count`. */
enum counter {
    BUFFERS,      /* device memory */
    PAGE_LOCKED,  /* host memory */
    STREAMS,
    EVENTS,
    MODULES,
    GRAPHS,       /* templates and executable ones */
    RETAINS,      /* of primary contexts */
    PUSHED,       /* contexts on the stacks of all threads */
    ALLOCATIONS,  /* calls that allocated, ever */
    LAUNCHES,     /* kernels that ran, ever */
    COPIES,       /* copies between host and device that were made, ever */
    CORRUPTED,    /* guard bytes found overwritten, ever */
    COUNTERS
};
extern long counters[COUNTERS];

/* state.c */
int lock(void);
void unlock(int *guard);
void wait_for_change(void);
void tell_of_change(void);
CUresult enter(const char *function);
CUresult enter_context(const char *function);
CUresult enter_unsafe(const char *function);
CUresult injected(const char *function);
void lose_device(CUresult code);
CUresult lost_code(void);
long setting(const char *name, long otherwise);

/* Each entry point begins with one of these; the lock is dropped at its end. */
#define GUARDED int guard __attribute__((cleanup(unlock), unused)) = lock()
#define CHECKED(call)                       \
    do {                                    \
        CUresult checked_code = (call);     \
        if (checked_code != SUCCESS)        \
            return checked_code;            \
    } while (0)

/* memory.c */
int is_live(CUdeviceptr address, size_t bytes);
int is_page_locked(const void *address, size_t bytes);
void check_guards(void);

/* stream.c */
struct launch {
    void (*kernel)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void **);
    unsigned grid[3], block[3], shared_bytes;
    int parameters;
    uint64_t values[32];
};
CUresult queue_copy(void *stream, CUdeviceptr target, CUdeviceptr source, size_t bytes, int snap);
CUresult queue_fill(void *stream, CUdeviceptr target, uint32_t value, int width, size_t count);
CUresult queue_launch(void *stream, const struct launch *launch);
CUresult finish_all(void);
CUresult finish_stream(void *stream);
int capturing_here(void);
void spoil_captures(void);

#endif
