// What lets one source be a CUDA kernel and plain C++.
//
// A kernel is written as phases, each a block of code for one thread `t` of the block. On a GPU
// the threads run a phase side by side and wait for each other at its end. On a CPU a phase is a
// loop over the threads, so that all of one phase is done before the next starts, which is what
// the barrier promises (END_PHASE_NO_WAIT needs none: no other thread reads what it wrote); what a thread keeps from phase to phase then needs a place for each.
#pragma once

#define BLOCK_THREADS 128

#ifdef EDGE_FG_CPU

#define BEGIN_PHASE(t) for (int t = 0; t < BLOCK_THREADS; ++t) {
#define END_PHASE }
#define END_PHASE_NO_WAIT }
#define UNROLL
#define NO_UNROLL
#define PER_THREAD(type, name, length) type name##_of_all[BLOCK_THREADS][length]
#define MINE(name, t) name##_of_all[t]

#else

#define BEGIN_PHASE(t) { const int t = (int)threadIdx.x; (void)t;
#define END_PHASE } __syncthreads();
#define END_PHASE_NO_WAIT }
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define PER_THREAD(type, name, length) type name##_of_all[1][length]
#define MINE(name, t) name##_of_all[0]

#define KERNEL_3(name, type0, arg0, type1, arg1, type2, arg2)                              \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                            \
        name(type0 arg0, type1 arg1, type2 arg2)
#define KERNEL_4(name, type0, arg0, type1, arg1, type2, arg2, type3, arg3)                 \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                            \
        name(type0 arg0, type1 arg1, type2 arg2, type3 arg3)

#endif
