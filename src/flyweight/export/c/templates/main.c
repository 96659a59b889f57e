/* Tells what is in a picture: main FILE.ppm (binary PPM or PGM, such as `convert photo.jpg photo.ppm` writes). */

#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "resize.h"

static int number(FILE *file) {
    int found = 0, sign = fgetc(file);
    while (sign == ' ' || sign == '\n' || sign == '\r' || sign == '\t' || sign == '#') {
        if (sign == '#') {
            while (sign != '\n' && sign != EOF) sign = fgetc(file);
        }
        sign = fgetc(file);
    }
    for (; sign >= '0' && sign <= '9' && found < 100000; sign = fgetc(file)) found = found * 10 + sign - '0';
    return found;
}

int main(int count, char **arguments) {
    static uint8_t square[${NAME}_PIXELS];
    static const uint8_t fill[${NAME}_CHANNELS] = ${NAME}_FILL;
    float logits[${NAME}_CLASSES];
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : 0;
    if (!file || fgetc(file) != 'P') return fprintf(stderr, "usage: main FILE.ppm\n"), 1;
    const int channels = fgetc(file) == '6' ? 3 : 1;
    const int width = number(file), height = number(file), most = number(file);
    if (channels != ${NAME}_CHANNELS || most != 255 || width < 1 || height < 1 || width > 16384 || height > 16384) {
        return fprintf(stderr, "give a binary picture of %d channel(s) of 8 bits\n", ${NAME}_CHANNELS), 1;
    }
    uint8_t *picture = malloc((size_t)width * height * channels);
    uint8_t *work = malloc(FLYWEIGHT_WORK((size_t)height, ${NAME}_SIDE, ${NAME}_CHANNELS));
    if (!picture || !work || fread(picture, (size_t)width * channels, height, file) != (size_t)height) {
        return fprintf(stderr, "the picture is cut short\n"), 1;
    }
    if (flyweight_fit(picture, height, width, channels, ${NAME}_FIT, ${NAME}_FILTER, fill, ${NAME}_SIDE, work, square)) {
        return fprintf(stderr, "the picture is too large: compile resize.c with a larger FLYWEIGHT_TAPS\n"), 1;
    }
    ${name}_run(square, logits);
    const int first = ${name}_first(logits);
    printf("%s %.4f\n", ${name}_classes[first], (double)${name}_confidence(logits, first));
    free(picture);
    free(work);
    fclose(file);
    return 0;
}
