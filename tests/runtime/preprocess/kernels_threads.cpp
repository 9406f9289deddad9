// Runs the kernels as a GPU would, each thread of a block a thread of the system, so that the
// thread sanitizer can see whether a barrier is missing.
//
//     kernels_threads IN OUT
//
// IN: int64 counts of samples, bytes of tables, of scratch, of output, of frames and launches;
// then the samples (whose `frame` is an offset into the frames), the tables and the frames; then
// for each launch four int32: the kernel (0 resample_across, else the bits of a number) and the
// grid. OUT: the output.

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx;
static pthread_barrier_t barrier;

static void __syncthreads() { pthread_barrier_wait(&barrier); }

template <typename T>
static inline T __ldg(const T *address) {
    return *address;
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return shift % 32 ? low >> shift % 32 | high << (32 - shift % 32) : low;
}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

#include "resample.cu"

template <typename T>
static std::vector<T> read(std::FILE *file, long long count) {
    std::vector<T> values(count);
    if (std::fread(values.data(), sizeof(T), count, file) != (size_t)count) std::exit(3);
    return values;
}

int main(int, char **names) {
    std::FILE *in = std::fopen(names[1], "rb"), *out = std::fopen(names[2], "wb");
    if (!in || !out) return 2;
    const auto counts = read<long long>(in, 6);
    auto samples = read<Sample>(in, counts[0]);
    const auto tables = read<int>(in, counts[1] / 4);
    const auto frames = read<unsigned char>(in, counts[4]);
    std::vector<unsigned> scratch(counts[2] / 4);
    std::vector<unsigned> output((counts[3] + 3) / 4);
    for (Sample &sample : samples) sample.frame += (unsigned long long)frames.data();
    pthread_barrier_init(&barrier, nullptr, BLOCK_THREADS);
    for (long long i = 0; i < counts[5]; ++i) {
        const auto launch = read<int>(in, 4);
        const auto work = [&](unsigned thread) {
            threadIdx = {thread, 0, 0};
            for (unsigned z = 0; z < (unsigned)launch[3]; ++z)
                for (unsigned y = 0; y < (unsigned)launch[2]; ++y)
                    for (unsigned x = 0; x < (unsigned)launch[1]; ++x) {
                        blockIdx = {x, y, z};
                        void *to = output.data();
                        const Sample *s = samples.data();
                        const int *t = tables.data();
                        if (launch[0] == 0) resample_across(s, t, scratch.data());
                        if (launch[0] == 8)
                            resample_down_8(s, t, scratch.data(), (unsigned char *)to);
                        if (launch[0] == 16)
                            resample_down_16(s, t, scratch.data(), (unsigned short *)to);
                        if (launch[0] == 32)
                            resample_down_32(s, t, scratch.data(), (unsigned *)to);
                        // Shared memory is one here, where each block of a GPU has its own.
                        __syncthreads();
                    }
        };
        std::vector<std::thread> threads;
        for (unsigned thread = 0; thread < BLOCK_THREADS; ++thread) threads.emplace_back(work, thread);
        for (std::thread &thread : threads) thread.join();
    }
    std::fwrite(output.data(), 1, counts[3], out);
    return std::fclose(out);
}
