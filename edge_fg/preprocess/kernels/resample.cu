// From frames to the model's tensor: Pillow's resampling to the bit, in two launches.
//
// resample_across reads the frame, converts it to blue, green and red and resamples each row;
// resample_down resamples the columns of that, normalises and writes the tensor. Both add in
// fixed point with 22 fractional bits from half a level on, and limit to 0..255, as Pillow's
// src/libImaging/Resample.c does; edge_fg/preprocess/resample.py is the definition.
//
// The third axis of the grid is the picture in the batch. Pictures smaller than the largest
// leave their surplus blocks at once.

#include "threads.h"

#include "pixels.h"

#define PRECISION_BITS 22
#define TILE_COLUMNS 32
#define ACROSS_ROWS 8
#define DOWN_ROWS 4
#define ROWS_PER_THREAD (ACROSS_ROWS * TILE_COLUMNS / BLOCK_THREADS)
#define CHUNK 320  // pixels of a row in shared memory at a time

__device__ __forceinline__ void start(int *sums) {
    sums[0] = sums[1] = sums[2] = 1 << (PRECISION_BITS - 1);
}

__device__ __forceinline__ void add(int *sums, unsigned word, int weight) {
    sums[0] += (int)(word & 255u) * weight;
    sums[1] += (int)(word >> 8 & 255u) * weight;
    sums[2] += (int)(word >> 16 & 255u) * weight;
}

__device__ __forceinline__ unsigned finish(const int *sums) {
    return word_of(level(sums[0] >> PRECISION_BITS), level(sums[1] >> PRECISION_BITS),
                   level(sums[2] >> PRECISION_BITS));
}

// One thread's share of reading the pixels `chunk` to `end` of a block's rows into `tile`.
__device__ __forceinline__ void fill_tile(const Sample &s, const int *tables, int first_row,
                                          int chunk, int end, int t, unsigned (*tile)[CHUNK]) {
    const int groups = (min(end - chunk, CHUNK) + 3) / 4;
    const int rows = min(ACROSS_ROWS, s.scratch_rows - first_row);
    for (int i = t; i < rows * groups; i += BLOCK_THREADS) {
        const int row = i / groups, group = i - row * groups;
        const int y = s.region_y + __ldg(tables + s.source_rows + first_row + row);
        const int x = chunk + 4 * group;
        unsigned *target = &tile[row][4 * group];
        if (x + 4 <= s.width) {
            Words4 four;
            read_four(s, y, x, four.word);
            *(Words4 *)target = four;
        } else {
            NO_UNROLL for (int i = 0; i < s.width - x; ++i) target[i] = read_pixel(s, y, x + i);
        }
    }
}

// Adds what `tile` holds for column `column` to the sums of one thread's rows.
__device__ __forceinline__ void add_tile(const Sample &s, const int *tables, int column,
                                         int chunk, int first_row, const unsigned (*tile)[CHUNK],
                                         int *sums) {
    const int first = s.region_x + __ldg(tables + s.across_first + column);
    const int begin = max(first, chunk);
    const int end = min(first + __ldg(tables + s.across_count + column), chunk + CHUNK);
    const int step = s.columns;
    const int *weights = tables + s.across_weights + (long long)(begin - first) * step + column;
    for (int x = begin; x < end; ++x, weights += step) {
        const int weight = __ldg(weights);
        UNROLL for (int row = 0; row < ROWS_PER_THREAD; ++row)
            add(sums + 3 * row, tile[first_row + row][x - chunk], weight);
    }
}

KERNEL_3(resample_across, const Sample *, samples, const int *, tables, unsigned *, scratch) {
    alignas(16) __shared__ unsigned tile[ACROSS_ROWS][CHUNK];
    PER_THREAD(int, sums, 3 * ROWS_PER_THREAD);
    const Sample &s = samples[blockIdx.z];
    const int first_row = (int)blockIdx.x * ACROSS_ROWS;
    const int first_column = (int)blockIdx.y * TILE_COLUMNS;
    if (first_row >= s.scratch_rows || first_column >= s.columns) return;
    const int *range = tables + s.across_tiles + 2 * (int)blockIdx.y;
    const int end = s.region_x + __ldg(range + 1);

    BEGIN_PHASE(t)
    for (int row = 0; row < ROWS_PER_THREAD; ++row) start(MINE(sums, t) + 3 * row);
    END_PHASE_NO_WAIT

    // Groups of four pixels start at multiples of 4 in the frame, so that a pair of pixels that
    // share chroma is never split.
    for (int chunk = (s.region_x + __ldg(range)) & ~3; chunk < end; chunk += CHUNK) {
        BEGIN_PHASE(t)
        fill_tile(s, tables, first_row, chunk, end, t, tile);
        END_PHASE
        BEGIN_PHASE(t)
        const int column = first_column + t % TILE_COLUMNS;
        const int row = t / TILE_COLUMNS * ROWS_PER_THREAD;
        if (column < s.columns) add_tile(s, tables, column, chunk, row, tile, MINE(sums, t));
        END_PHASE
    }

    BEGIN_PHASE(t)
    const int column = first_column + t % TILE_COLUMNS;
    for (int i = 0; i < ROWS_PER_THREAD; ++i) {
        const int row = first_row + t / TILE_COLUMNS * ROWS_PER_THREAD + i;
        if (column < s.columns && row < s.scratch_rows)
            scratch[s.scratch + (long long)row * s.columns + column] = finish(MINE(sums, t) + 3 * i);
    }
    END_PHASE_NO_WAIT
}

// The pixel at (x, y) of the picture, resampled down.
__device__ __forceinline__ unsigned down_pixel(const Sample &s, const int *tables,
                                               const unsigned *scratch, int x, int y) {
    int sums[3];
    start(sums);
    const int count = __ldg(tables + s.down_count + y);
    const int *weights = tables + s.down_weights + y;
    const long long first = __ldg(tables + s.down_first + y);
    const unsigned *source = scratch + s.scratch + first * s.columns + x;
    for (int i = 0; i < count; ++i, weights += s.rows, source += s.columns)
        add(sums, __ldg(source), __ldg(weights));
    return finish(sums);
}

// Level is a number of the output's size; the table holds the numbers, so no arithmetic is done.
template <typename Level>
__device__ __forceinline__ void down(const Sample *samples, const int *tables,
                                     const unsigned *scratch, Level *output) {
    const Sample &s = samples[blockIdx.z];
    BEGIN_PHASE(t)
    const int row = (int)blockIdx.x * DOWN_ROWS + t / TILE_COLUMNS;
    const int column = (int)blockIdx.y * TILE_COLUMNS + t % TILE_COLUMNS;
    if (row < s.output_height && column < s.output_width) {
        const int x = column - s.left, y = row - s.top;
        const bool inside = x >= 0 && x < s.columns && y >= 0 && y < s.rows;
        const unsigned word =
            inside ? down_pixel(s, tables, scratch, x, y) : (unsigned)s.fill * 0x010101u;
        const long long pixels = (long long)s.output_height * s.output_width;
        const long long place =
            3 * pixels * blockIdx.z +
            ((long long)row * s.output_width + column) * s.pixel_stride;
        const Level *values = (const Level *)tables;
        UNROLL for (int channel = 0; channel < 3; ++channel) {
            const unsigned index = word >> (s.first_shift + channel * s.shift_step) & 255u;
            output[place + (long long)channel * s.channel_stride] =
                __ldg(values + 256 * channel + index);
        }
    }
    END_PHASE_NO_WAIT
}

KERNEL_4(resample_down_8, const Sample *, samples, const int *, tables, const unsigned *, scratch,
         unsigned char *, output) {
    down<unsigned char>(samples, tables, scratch, output);
}

KERNEL_4(resample_down_16, const Sample *, samples, const int *, tables, const unsigned *,
         scratch, unsigned short *, output) {
    down<unsigned short>(samples, tables, scratch, output);
}

KERNEL_4(resample_down_32, const Sample *, samples, const int *, tables, const unsigned *,
         scratch, unsigned *, output) {
    down<unsigned>(samples, tables, scratch, output);
}
