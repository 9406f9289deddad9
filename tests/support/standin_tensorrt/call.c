/* A kernel of the software CUDA driver that calls back: how the stand-in's work joins a stream. */
#include <stdint.h>

__attribute__((visibility("default"))) void cpu_launch_call(
    unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared_bytes, void **arguments)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared_bytes;
    (*(void (**)(uint64_t))arguments[0])(*(uint64_t *)arguments[1]);
}

/* fold(const float *input, float *output, int rows, int inputs, int outputs): an engine without
 * Python, which would wait for its lock in a thread while another holds that and waits for the
 * driver's. Output k of a row is the sum of its inputs k, k + outputs, k + 2 outputs... */
__attribute__((visibility("default"))) void cpu_launch_fold(
    unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared_bytes, void **arguments)
{
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared_bytes;
    const float *input = *(const float **)arguments[0];
    float *output = *(float **)arguments[1];
    int rows = *(int *)arguments[2], inputs = *(int *)arguments[3];
    int outputs = *(int *)arguments[4];
    for (int row = 0; row < rows; row++, input += inputs, output += outputs) {
        for (int k = 0; k < outputs; k++)
            output[k] = 0;
        for (int i = 0; i < inputs; i++)
            output[i % outputs] += input[i];
    }
}
