/* Small kernels in the form that nvcc's would have for the processor: for tests of launching. */
#include <stdint.h>
#include <time.h>

#define KERNEL(name)                                                                          \
    __attribute__((visibility("default"))) void cpu_launch_##name(                            \
        unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,         \
        unsigned shared_bytes, void **arguments)

/* add(int *values, int count, int amount) */
KERNEL(add)
{
    (void)shared_bytes;
    int *values = *(int **)arguments[0];
    long count = *(int *)arguments[1], threads = (long)gx * gy * gz * bx * by * bz;
    for (long i = 0; i < count && i < threads; i++)
        values[i] += *(int *)arguments[2];
}

/* mixed(double *out, int8_t a, float b, double c, uint16_t d): parameters of every size */
KERNEL(mixed)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared_bytes;
    double *out = *(double **)arguments[0];
    out[0] = *(int8_t *)arguments[1];
    out[1] = *(float *)arguments[2];
    out[2] = *(double *)arguments[3];
    out[3] = *(uint16_t *)arguments[4];
}

/* meet(int *arrived, int count): waits until `count` of these run at the same time, 20 s at most */
KERNEL(meet)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared_bytes;
    int *arrived = *(int **)arguments[0];
    time_t end = time(NULL) + 20;
    __atomic_add_fetch(arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < *(int *)arguments[1])
        if (time(NULL) > end) {
            *arrived = -1000;
            return;
        }
}
