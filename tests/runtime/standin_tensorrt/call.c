/* A kernel of the software CUDA driver that calls back: how the stand-in's work joins a stream. */
#include <stdint.h>

__attribute__((visibility("default"))) void cpu_launch_call(
    unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared_bytes, void **arguments)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared_bytes;
    (*(void (**)(uint64_t))arguments[0])(*(uint64_t *)arguments[1]);
}
