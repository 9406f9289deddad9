// Reads four pixels beside each other from any format as words of blue, green << 8, red << 16.
#pragma once

#include "sample.h"
#include "threads.h"

typedef unsigned char Byte;

struct alignas(16) Words4 {
    unsigned word[4];
};

struct Span {
    const Byte *begin, *end;
};

__device__ __forceinline__ unsigned word_of(unsigned blue, unsigned green, unsigned red) {
    return blue | green << 8 | red << 16;
}

__device__ __forceinline__ unsigned level(int value) {
    return (unsigned)max(0, min(255, value));
}

// Reads 4 * WORDS bytes from any address as aligned words, one more than WORDS where the address
// isn't a multiple of 4. That one must not lie outside the frame: then bytes are read singly.
template <int WORDS>
__device__ __forceinline__ void read_words(const Byte *from, Span frame, unsigned *words) {
    const unsigned odd = (unsigned)(unsigned long long)from & 3u;
    const unsigned *aligned = (const unsigned *)(from - odd);
    if (odd == 0) {
        UNROLL for (int i = 0; i < WORDS; ++i) words[i] = __ldg(aligned + i);
    } else if ((const Byte *)aligned >= frame.begin &&
               (const Byte *)(aligned + WORDS + 1) <= frame.end) {
        unsigned low = __ldg(aligned);
        UNROLL for (int i = 0; i < WORDS; ++i) {
            const unsigned high = __ldg(aligned + i + 1);
            words[i] = __funnelshift_r(low, high, 8 * odd);
            low = high;
        }
    } else {
        UNROLL for (int i = 0; i < WORDS; ++i)
            words[i] = (unsigned)__ldg(from + 4 * i) | (unsigned)__ldg(from + 4 * i + 1) << 8 |
                       (unsigned)__ldg(from + 4 * i + 2) << 16 |
                       (unsigned)__ldg(from + 4 * i + 3) << 24;
    }
}

// Fixed point with 16 fractional bits: edge_fg.preprocess.yuv is the definition.
__device__ __forceinline__ unsigned from_yuv(const Sample &s, unsigned luma, unsigned cb,
                                             unsigned cr) {
    const int y = ((int)luma - __ldg(&s.yuv[0])) * __ldg(&s.yuv[1]) + (1 << 15);
    const int u = (int)cb - 128, v = (int)cr - 128;
    return word_of(level((y + __ldg(&s.yuv[2]) * u) >> 16),
                   level((y - __ldg(&s.yuv[3]) * u - __ldg(&s.yuv[4]) * v) >> 16),
                   level((y + __ldg(&s.yuv[5]) * v) >> 16));
}

__device__ __forceinline__ unsigned swapped(unsigned word) {
    return word_of(word >> 16 & 255u, word >> 8 & 255u, word & 255u);
}

// Where row `y` starts in plane `plane` of chroma, which has half the rows.
__device__ __forceinline__ const Byte *chroma_row(const Sample &s, int plane, int y) {
    return (const Byte *)s.frame + s.chroma[plane] + (long long)(y >> 1) * s.chroma_pitch;
}

// One pixel, byte by byte: for the last ones of a row.
__device__ __forceinline__ unsigned read_pixel(const Sample &s, int y, int x) {
    const Byte *row = (const Byte *)s.frame + (long long)y * s.pitch;
    switch (s.format) {
        case FORMAT_BGR:
            return word_of(row[3 * x], row[3 * x + 1], row[3 * x + 2]);
        case FORMAT_RGB:
            return word_of(row[3 * x + 2], row[3 * x + 1], row[3 * x]);
        case FORMAT_GRAY:
            return row[x] * 0x010101u;
        case FORMAT_NV12: {
            const Byte *pair = chroma_row(s, 0, y) + (x & ~1);
            return from_yuv(s, row[x], pair[0], pair[1]);
        }
        case FORMAT_YUYV: {
            const Byte *pair = row + 4 * (x >> 1);
            return from_yuv(s, row[2 * x], pair[1], pair[3]);
        }
        default:
            return from_yuv(s, row[x], chroma_row(s, 0, y)[x >> 1], chroma_row(s, 1, y)[x >> 1]);
    }
}

// Four pixels of luma with two of each chroma, as bytes of words.
__device__ __forceinline__ void from_yuv_4(const Sample &s, unsigned luma, unsigned cb,
                                           unsigned cr, unsigned *words) {
    UNROLL for (int i = 0; i < 4; ++i)
        words[i] = from_yuv(s, luma >> 8 * i & 255u, cb >> 8 * (i >> 1) & 255u,
                            cr >> 8 * (i >> 1) & 255u);
}

__device__ inline void read_color_4(const Sample &s, Span frame, const Byte *row, int x,
                                    unsigned *words) {
    unsigned raw[3];
    read_words<3>(row + 3 * x, frame, raw);
    words[0] = raw[0] & 0xffffffu;
    words[1] = raw[0] >> 24 | (raw[1] & 0xffffu) << 8;
    words[2] = raw[1] >> 16 | (raw[2] & 0xffu) << 16;
    words[3] = raw[2] >> 8;
    if (s.format == FORMAT_RGB) {
        UNROLL for (int i = 0; i < 4; ++i) words[i] = swapped(words[i]);
    }
}

__device__ inline void read_yuv_4(const Sample &s, Span frame, const Byte *row, int y, int x,
                                  unsigned *words) {
    unsigned luma, cb, cr;
    if (s.format == FORMAT_YUYV) {
        unsigned raw[2];
        read_words<2>(row + 2 * x, frame, raw);
        luma = (raw[0] & 255u) | (raw[0] >> 8 & 0xff00u) | (raw[1] & 255u) << 16 |
               (raw[1] & 0xff0000u) << 8;
        cb = (raw[0] >> 8 & 255u) | (raw[1] & 0xff00u);
        cr = raw[0] >> 24 | (raw[1] >> 16 & 0xff00u);
    } else {
        read_words<1>(row + x, frame, &luma);
        if (s.format == FORMAT_NV12) {
            unsigned raw;
            read_words<1>(chroma_row(s, 0, y) + x, frame, &raw);
            cb = (raw & 255u) | (raw >> 8 & 0xff00u);
            cr = (raw >> 8 & 255u) | (raw >> 16 & 0xff00u);
        } else {
            const Byte *blue = chroma_row(s, 0, y) + (x >> 1);
            const Byte *red = chroma_row(s, 1, y) + (x >> 1);
            cb = __ldg(blue) | (unsigned)__ldg(blue + 1) << 8;
            cr = __ldg(red) | (unsigned)__ldg(red + 1) << 8;
        }
    }
    from_yuv_4(s, luma, cb, cr, words);
}

// Pixels x to x + 3 of the frame's row y, which has so many; x is a multiple of 4.
__device__ __forceinline__ void read_four(const Sample &s, int y, int x, unsigned *words) {
    const Byte *begin = (const Byte *)s.frame;
    const Span frame = {begin, begin + s.frame_bytes};
    const Byte *row = begin + (long long)y * s.pitch;
    if (s.format == FORMAT_GRAY) {
        unsigned raw;
        read_words<1>(row + x, frame, &raw);
        UNROLL for (int i = 0; i < 4; ++i) words[i] = (raw >> 8 * i & 255u) * 0x010101u;
    } else if (s.format == FORMAT_BGR || s.format == FORMAT_RGB) {
        read_color_4(s, frame, row, x, words);
    } else {
        read_yuv_4(s, frame, row, y, x, words);
    }
}
