// One picture of a batch: where it lies, what of it is wanted and where that goes.
// edge_fg/preprocess/launch.py writes it (SAMPLE); both sides must have the same fields.
#pragma once

enum Format { FORMAT_BGR, FORMAT_RGB, FORMAT_GRAY, FORMAT_NV12, FORMAT_YUYV, FORMAT_I420 };

struct Sample {
    unsigned long long frame;  // address of the frame's first byte
    long long frame_bytes;     // the frame ends there: nothing beyond it is read
    long long chroma[2];       // bytes from `frame` to the planes of chroma
    long long scratch;         // first word of this picture's scratch
    int format;
    int pitch;         // bytes from one row to the next
    int chroma_pitch;  // the same for chroma
    int width;         // of the whole frame, in pixels
    int region_x, region_y;  // where in the frame the region starts
    int columns;             // of scratch and of what is not filled
    int scratch_rows;
    // Places in the tables, in words.
    int across_first, across_count, across_weights, across_tiles;
    int source_rows;  // row of the region behind each row of scratch
    int rows;         // of the output that are not filled
    int down_first, down_count, down_weights;
    int output_height, output_width;
    int top, left;  // where in the output the picture starts; around it is `fill`
    int fill;
    int channel_stride, pixel_stride;  // of the output, in numbers
    int first_shift, shift_step;       // of the first channel in a word, and to the next
    int yuv[6];  // offset, scale, blue_u, green_u, green_v, red_v
};

static_assert(sizeof(Sample) == 168, "Sample must have the layout of launch.SAMPLE");
