/* How a picture becomes the square that a model takes: two passes of integer weights, the same bytes as Flyweight gives
   in Python and JavaScript (docs/resize.md). */

#ifndef FLYWEIGHT_RESIZE_H
#define FLYWEIGHT_RESIZE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FLYWEIGHT_BOX, FLYWEIGHT_BILINEAR, FLYWEIGHT_BICUBIC };
enum { FLYWEIGHT_CROP, FLYWEIGHT_STRETCH, FLYWEIGHT_PAD };

/* Most input pixels that one output pixel may be made of: 64 brings 800 px to 28 with FLYWEIGHT_BILINEAR. */
#ifndef FLYWEIGHT_TAPS
#define FLYWEIGHT_TAPS 64
#endif

/* Bytes of `work` that a picture `height` px high needs. */
#define FLYWEIGHT_WORK(height, side, channels) ((uint32_t)(height) * (side) * (channels))

/* Write the square (side * side * channels bytes) that a model takes of a picture, rows of pixels of channels.
   how: FLYWEIGHT_CROP, FLYWEIGHT_STRETCH or FLYWEIGHT_PAD. fill: what is around a padded picture, per channel.
   Returns 0, or -1 where one output pixel would be made of more than FLYWEIGHT_TAPS. */
int flyweight_fit(const uint8_t *picture, int height, int width, int channels, int how, int filter, const uint8_t *fill,
                  int side, uint8_t *work, uint8_t *square);

/* Resize the part of a picture between (left, top) and (right, bottom) to out_width * out_height. Returns as above.
   row: bytes from one row of `out` to the next; 0: no gaps. */
int flyweight_resize(const uint8_t *picture, int height, int width, int channels, int filter, double left, double top,
                     double right, double bottom, int out_width, int out_height, int row, uint8_t *work, uint8_t *out);

/* The window of output pixel `place` of a pass that brings start..stop of `size` px to `out` px: its first input pixel
   in *first, weights of 22 fractional bits in weights[FLYWEIGHT_TAPS]. Returns how many, or -1 if that is too many. */
int flyweight_window(int size, double start, double stop, int out, int filter, int place, int *first, int32_t *weights);

#ifdef __cplusplus
}
#endif

#endif
