// Compiles the kernels as C++: g++ -O2 -shared -fPIC -x c++ -include cpu_shim.h resample.cu
//
// Each kernel becomes one exported function with the arguments of cuLaunchKernel: the grid, the
// block, dynamic shared memory and, in args[i], the address of the i-th kernel argument. Blocks
// run one after the other, so no race between blocks or threads can show here.
#pragma once

#define EDGE_FG_CPU 1

#include <cstdio>
#include <cstdlib>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static thread_local

struct BlockIndex {
    unsigned x, y, z;
};
static thread_local BlockIndex blockIdx;

template <typename T>
static inline T __ldg(const T *address) {
    return *address;
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return shift % 32 ? low >> shift % 32 | high << (32 - shift % 32) : low;
}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

// A launch that a GPU would refuse, or that the kernels aren't written for, must not pass.
static inline void check_block(const char *name, unsigned threads, unsigned wanted) {
    if (threads != wanted) {
        std::fprintf(stderr, "%s: launched with %u threads, takes %u\n", name, threads, wanted);
        std::abort();
    }
}

#define EACH_BLOCK(name, call)                                                             \
    extern "C" void cpu_launch_##name(unsigned gx, unsigned gy, unsigned gz, unsigned bx,  \
                                      unsigned by, unsigned bz, unsigned, void **args) {   \
        check_block(#name, bx * by * bz, BLOCK_THREADS);                                   \
        for (unsigned z = 0; z < gz; ++z)                                                  \
            for (unsigned y = 0; y < gy; ++y)                                              \
                for (unsigned x = 0; x < gx; ++x) {                                        \
                    blockIdx = {x, y, z};                                                  \
                    call;                                                                  \
                }                                                                          \
    }

#define KERNEL_3(name, type0, arg0, type1, arg1, type2, arg2)                              \
    static void name(type0 arg0, type1 arg1, type2 arg2);                                  \
    EACH_BLOCK(name, name(*(type0 *)args[0], *(type1 *)args[1], *(type2 *)args[2]))        \
    static void name(type0 arg0, type1 arg1, type2 arg2)

#define KERNEL_4(name, type0, arg0, type1, arg1, type2, arg2, type3, arg3)                 \
    static void name(type0 arg0, type1 arg1, type2 arg2, type3 arg3);                      \
    EACH_BLOCK(name, name(*(type0 *)args[0], *(type1 *)args[1], *(type2 *)args[2],         \
                          *(type3 *)args[3]))                                              \
    static void name(type0 arg0, type1 arg1, type2 arg2, type3 arg3)
