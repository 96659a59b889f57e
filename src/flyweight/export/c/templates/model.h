/* $title: $parameters
   Give ${name}_run the pixels of one square, and it gives a logit for each class. */

#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#define ${NAME}_SIDE $side         /* px, height and width */
#define ${NAME}_CHANNELS $channels     /* 1 gray, 3 RGB, 4 RGBA */
#define ${NAME}_CLASSES $count
#define ${NAME}_PIXELS (${NAME}_SIDE * ${NAME}_SIDE * ${NAME}_CHANNELS)
#define ${NAME}_ARENA_BYTES $arena_bytes  /* RAM of activations, in ${file} */
#define ${NAME}_TEMPERATURE $temperature /* calibrates the confidence */
/* How a larger picture becomes the square: flyweight_fit of resize.h takes these. */
#define ${NAME}_FIT $fit
#define ${NAME}_FILTER $filter
#define ${NAME}_FILL {$fill}

#ifdef __cplusplus
extern "C" {
#endif

extern const char *const ${name}_classes[${NAME}_CLASSES];
extern const int32_t ${name}_shape[3];

/* Logits of one picture. pixels: ${NAME}_PIXELS bytes, rows of pixels of channels. logits: ${NAME}_CLASSES floats. */
void ${name}_run(const uint8_t *pixels, float *logits);

/* The class with the largest logit. */
int ${name}_first(const float *logits);

/* How likely a class is, 0 to 1, as calibrated on validation images. */
float ${name}_confidence(const float *logits, int which);

#ifdef __cplusplus
}
#endif

#endif
