/* Devices, contexts, errors and their injection, and the counters. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "software_cuda.h"

#define STACK 64
#define FAILURES 16
#define MAX_DEVICES 4

long counters[COUNTERS];

static pthread_mutex_t mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int started;
static CUresult sticky;
/* A context's handle is the address of its device's entry. */
static long retains[MAX_DEVICES];
static __thread void *stack[STACK];
static __thread int depth;

static struct failure {
    char function[64];
    long calls_before;
    int code, once;
} failures[FAILURES];
static int failure_count;

int lock(void)
{
    if (pthread_mutex_lock(&mutex) != 0) {
        fprintf(stderr, "the software CUDA driver locked itself out\n");
        abort();
    }
    return 1;
}

void unlock(int *guard)
{
    (void)guard;
    pthread_mutex_unlock(&mutex);
}

void wait_for_change(void)
{
    pthread_cond_wait(&changed, &mutex);
}

void tell_of_change(void)
{
    pthread_cond_broadcast(&changed);
}

long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtol(text, NULL, 10) : otherwise;
}

/* --- failures to order ---------------------------------------------------------------------- */

/* Let the call of `function` after `calls_before` more fail with `code`, and all later ones too
 * unless `once`. "kernel" fails when a kernel runs, not when it is launched. */
static void add_failure(const char *function, long calls_before, int code, int once)
{
    if (failure_count < FAILURES) {
        struct failure *failure = &failures[failure_count++];
        snprintf(failure->function, sizeof failure->function, "%s", function);
        failure->calls_before = calls_before;
        failure->code = code;
        failure->once = once;
    }
}

EXPORT void software_cuda_fail(const char *function, long calls_before, int code, int once)
{
    GUARDED;
    add_failure(function, calls_before, code, once);
}

EXPORT void software_cuda_heal(void)
{
    GUARDED;
    failure_count = 0;
    sticky = SUCCESS;
}

EXPORT long software_cuda_count(int counter)
{
    GUARDED;
    check_guards();
    return counter >= 0 && counter < COUNTERS ? counters[counter] : -1;
}

/* "cuMemAlloc:3:2,cuLaunchKernel:0:700" */
static void read_failures(void)
{
    const char *text = getenv("EDGE_FG_SOFTWARE_FAIL");
    char function[64];
    long calls_before;
    int code, length;
    while (text != NULL && sscanf(text, "%63[^:]:%ld:%d%n", function, &calls_before, &code,
                                  &length) == 3) {
        add_failure(function, calls_before, code, 0);
        text += length;
        text = *text == ',' ? text + 1 : NULL;
    }
}

CUresult injected(const char *function)
{
    for (int i = 0; i < failure_count; i++) {
        struct failure *failure = &failures[i];
        if (strcmp(failure->function, function) != 0)
            continue;
        if (failure->calls_before-- > 0)
            continue;
        int code = failure->code;
        if (failure->once)
            *failure = failures[--failure_count];
        return code;
    }
    return SUCCESS;
}

static int breaks_context(CUresult code)
{
    return code == 46 || code == 214 || code == 700 || code == 702 || (code >= 714 && code <= 719)
        || code == 999;
}

void lose_device(CUresult code)
{
    sticky = code;
}

CUresult lost_code(void)
{
    return sticky;
}

CUresult enter(const char *function)
{
    if (!started)
        return NOT_INITIALIZED;
    CUresult code = injected(function);
    if (breaks_context(code))
        sticky = code;
    return sticky != SUCCESS ? sticky : code;
}

CUresult enter_context(const char *function)
{
    CHECKED(enter(function));
    return depth > 0 ? SUCCESS : INVALID_CONTEXT;
}

/* For what may not happen in a thread that captures: allocations and waits. */
CUresult enter_unsafe(const char *function)
{
    CHECKED(enter_context(function));
    if (!capturing_here())
        return SUCCESS;
    spoil_captures();
    return CAPTURE_UNSUPPORTED;
}

/* --- the driver ----------------------------------------------------------------------------- */

EXPORT CUresult cuInit(unsigned flags)
{
    GUARDED;
    if (flags != 0)
        return INVALID_VALUE;
    if (!started)
        read_failures();
    CUresult code = injected("cuInit");
    if (code == SUCCESS && setting("EDGE_FG_SOFTWARE_DEVICES", 1) == 0)
        code = NO_DEVICE;
    started = code == SUCCESS;
    return code;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = (int)setting("EDGE_FG_SOFTWARE_DRIVER", 13000);
    return SUCCESS;
}

struct known {
    int code;
    const char *name, *text;
};
static const struct known known[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static const struct known *look_up(int code)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code)
            return &known[i];
    return NULL;
}

EXPORT CUresult cuGetErrorName(CUresult code, const char **name)
{
    const struct known *found = look_up(code);
    *name = found != NULL ? found->name : NULL;
    return found != NULL ? SUCCESS : INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult code, const char **text)
{
    const struct known *found = look_up(code);
    *text = found != NULL ? found->text : "unrecognized error code";
    return found != NULL ? SUCCESS : INVALID_VALUE;
}

/* --- devices -------------------------------------------------------------------------------- */

static CUresult device_of(CUdevice device)
{
    return device >= 0 && device < setting("EDGE_FG_SOFTWARE_DEVICES", 1) ? SUCCESS
                                                                         : INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    GUARDED;
    CHECKED(enter("cuDeviceGetCount"));
    *count = (int)setting("EDGE_FG_SOFTWARE_DEVICES", 1);
    return SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    GUARDED;
    CHECKED(enter("cuDeviceGet"));
    CHECKED(device_of(ordinal));
    *device = ordinal;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    GUARDED;
    CHECKED(enter("cuDeviceGetName"));
    CHECKED(device_of(device));
    snprintf(name, (size_t)length, "Software GPU %d", device);
    return SUCCESS;
}

static int capability(void)
{
    return (int)setting("EDGE_FG_SOFTWARE_CAPABILITY", 87);
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    GUARDED;
    CHECKED(enter("cuDeviceComputeCapability"));
    CHECKED(device_of(device));
    *major = capability() / 10;
    *minor = capability() % 10;
    return SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    GUARDED;
    CHECKED(enter("cuDeviceTotalMem"));
    CHECKED(device_of(device));
    *bytes = ((size_t)setting("EDGE_FG_SOFTWARE_MEGABYTES", 8 << 10)) << 20;
    return SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    GUARDED;
    CHECKED(enter("cuDeviceGetAttribute"));
    CHECKED(device_of(device));
    switch (attribute) {
    case 16: *value = (int)setting("EDGE_FG_SOFTWARE_MULTIPROCESSORS", 8); break;
    case 18: *value = (int)setting("EDGE_FG_SOFTWARE_INTEGRATED", 0); break;
    case 19: *value = 1; break;      /* can map host memory */
    case 75: *value = capability() / 10; break;
    case 76: *value = capability() % 10; break;
    case 97: *value = 100 << 10; break; /* most shared memory of a block */
    default: *value = 0;
    }
    return SUCCESS;
}

/* --- contexts ------------------------------------------------------------------------------- */

EXPORT CUresult cuDevicePrimaryCtxRetain(void **context, CUdevice device)
{
    GUARDED;
    CHECKED(enter("cuDevicePrimaryCtxRetain"));
    CHECKED(device_of(device));
    retains[device]++;
    counters[RETAINS]++;
    *context = &retains[device];
    return SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    GUARDED;
    CHECKED(device_of(device));
    if (retains[device] == 0)
        return INVALID_CONTEXT;
    retains[device]--;
    counters[RETAINS]--;
    return SUCCESS;
}

static int is_context(const void *context)
{
    for (int device = 0; device < MAX_DEVICES; device++)
        if (context == &retains[device])
            return retains[device] > 0;
    return 0;
}

EXPORT CUresult cuCtxPushCurrent_v2(void *context)
{
    GUARDED;
    CUresult code = injected("cuCtxPushCurrent");
    if (code != SUCCESS)
        return code;
    if (!is_context(context) || depth == STACK)
        return INVALID_CONTEXT;
    stack[depth++] = context;
    counters[PUSHED]++;
    return SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent_v2(void **context)
{
    GUARDED;
    if (depth == 0)
        return INVALID_CONTEXT;
    *context = stack[--depth];
    counters[PUSHED]--;
    return SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(void **context)
{
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    GUARDED;
    CHECKED(enter_context("cuCtxGetDevice"));
    *device = (CUdevice)((long *)stack[depth - 1] - retains);
    return SUCCESS;
}

EXPORT CUresult cuCtxSynchronize(void)
{
    GUARDED;
    CHECKED(enter_unsafe("cuCtxSynchronize"));
    return finish_all();
}
