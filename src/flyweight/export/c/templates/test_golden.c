/* Runs the golden pictures and compares the logits with those expected; returns 0 where all agree. */

#include <math.h>
#include <stdio.h>

#include "golden.h"
#include "model.h"

int main(void) {
    float logits[${NAME}_CLASSES], largest = 0.0f;
    int wrong = 0;
    for (int picture = 0; picture < GOLDEN_PICTURES; picture++) {
        int differs = 0;
        ${name}_run(golden_pixels[picture], logits);
        for (int i = 0; i < ${NAME}_CLASSES; i++) {
            const float difference = fabsf(logits[i] - golden_logits[picture][i]);
            if (!(difference <= GOLDEN_TOLERANCE)) differs = 1; /* not a number differs too */
            if (difference > largest) largest = difference;
        }
        if (${name}_first(logits) != ${name}_first(golden_logits[picture])) differs = 1;
        wrong += differs;
    }
    printf("%d of %d golden pictures give the logits expected; largest difference %g, tolerance %g\n",
           GOLDEN_PICTURES - wrong, GOLDEN_PICTURES, (double)largest, (double)GOLDEN_TOLERANCE);
    return wrong != 0;
}
