/* See resize.h. Weights are computed in IEEE binary64, in the order of docs/resize.md; compile with
   -ffp-contract=off (gcc does with -std=c99). Processors without a double of 64 bits cannot use this file. */

#include "resize.h"

#include <float.h>

#if DBL_MANT_DIG < 53
#error "double has fewer than 53 bits here: resize the picture elsewhere, or give the camera the model's size"
#endif

static double weight_at(int filter, double x) {
    if (filter == FLYWEIGHT_BOX) return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    if (x < 0.0) x = -x;
    if (filter == FLYWEIGHT_BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

int flyweight_window(int size, double start, double stop, int out, int filter, int place, int *first, int32_t *weights) {
    const double scale = (stop - start) / out, stretch = scale > 1.0 ? scale : 1.0, inverse = 1.0 / stretch;
    const double support = (filter == FLYWEIGHT_BOX ? 0.5 : filter == FLYWEIGHT_BILINEAR ? 1.0 : 2.0) * stretch;
    const double centre = start + (place + 0.5) * scale;
    const double before = centre - support + 0.5, after = centre + support + 0.5;
    const int from = before < 0.0 ? 0 : (int)before, to = after < size ? (int)after : size;
    double total = 0.0;
    if (to - from > FLYWEIGHT_TAPS) return -1;
    for (int at = from; at < to; at++) total += weight_at(filter, (at - centre + 0.5) * inverse);
    for (int at = from; at < to; at++) {
        const double scaled = weight_at(filter, (at - centre + 0.5) * inverse) / total * 4194304.0;
        weights[at - from] = (int32_t)(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
    }
    *first = from;
    return to - from;
}

/* One output row or column: `lines` of them lie `line` bytes apart, their elements `step` bytes. */
static void pass(const uint8_t *in, int step, int line, int lines, int channels, const int32_t *weights, int taps,
                 uint8_t *out, int out_line) {
    for (int at = 0; at < lines; at++) {
        for (int c = 0; c < channels; c++) {
            int32_t sum = 2097152;
            for (int tap = 0; tap < taps; tap++) sum += weights[tap] * in[(int32_t)at * line + (int32_t)tap * step + c];
            sum >>= 22;
            out[(int32_t)at * out_line + c] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
    }
}

int flyweight_resize(const uint8_t *picture, int height, int width, int channels, int filter, double left, double top,
                     double right, double bottom, int out_width, int out_height, int row, uint8_t *work, uint8_t *out) {
    int32_t weights[FLYWEIGHT_TAPS];
    const int wide = out_width * channels;
    int first_row, first, taps;
    taps = flyweight_window(height, top, bottom, out_height, filter, out_height - 1, &first, weights);
    const int last_row = first + taps;
    if (taps < 0 || flyweight_window(height, top, bottom, out_height, filter, 0, &first_row, weights) < 0) return -1;
    for (int x = 0; x < out_width; x++) {
        taps = flyweight_window(width, left, right, out_width, filter, x, &first, weights);
        if (taps < 0) return -1;
        pass(picture + ((int32_t)first_row * width + first) * channels, channels, width * channels,
             last_row - first_row, channels, weights, taps, work + x * channels, wide);
    }
    for (int y = 0; y < out_height; y++) {
        taps = flyweight_window(height, top, bottom, out_height, filter, y, &first, weights);
        if (taps < 0) return -1;
        pass(work + (int32_t)(first - first_row) * wide, wide, channels, out_width, channels, weights, taps,
             out + (int32_t)y * (row ? row : wide), channels);
    }
    return 0;
}

int flyweight_fit(const uint8_t *picture, int height, int width, int channels, int how, int filter, const uint8_t *fill,
                  int side, uint8_t *work, uint8_t *square) {
    const int32_t bytes = (int32_t)side * side * channels;
    if (height == side && width == side) {
        for (int32_t i = 0; i < bytes; i++) square[i] = picture[i];
        return 0;
    }
    if (how == FLYWEIGHT_PAD) {
        const int longest = height > width ? height : width;
        int w = (2 * width * side + longest) / (2 * longest), h = (2 * height * side + longest) / (2 * longest);
        w = w > 1 ? w : 1;
        h = h > 1 ? h : 1;
        for (int32_t i = 0; i < bytes; i++) square[i] = fill[i % channels];
        square += ((int32_t)((side - h) / 2) * side + (side - w) / 2) * channels;
        return flyweight_resize(picture, height, width, channels, filter, 0.0, 0.0, width, height, w, h,
                                side * channels, work, square);
    }
    if (how == FLYWEIGHT_CROP) {
        const int shorter = height < width ? height : width;
        const double left = (width - shorter) / 2.0, top = (height - shorter) / 2.0;
        return flyweight_resize(picture, height, width, channels, filter, left, top, left + shorter, top + shorter,
                                side, side, 0, work, square);
    }
    return flyweight_resize(picture, height, width, channels, filter, 0.0, 0.0, width, height, side, side, 0, work,
                            square);
}
