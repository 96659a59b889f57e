/* $title
   Written by Flyweight $version from $onnx ($precision), sha256 $sha256.
   Flash: $weight_bytes bytes of constants and the code. RAM: $arena_bytes bytes of activations, static; no heap.
   Pixels: $preprocess
   One call at a time: the activations of a call lie in the same memory as those of the one before. */

#include "$header"

$includes
$declarations

const char *const ${name}_classes[${NAME}_CLASSES] = {
$classes
};

/* For programs that load this as a library: side, channels, classes. */
const int32_t ${name}_shape[3] = {${NAME}_SIDE, ${NAME}_CHANNELS, ${NAME}_CLASSES};

void ${name}_run(const uint8_t *pixels, float *logits) {
$calls
}

int ${name}_first(const float *logits) {
    int first = 0;
    for (int i = 1; i < ${NAME}_CLASSES; i++) {
        if (logits[i] > logits[first]) first = i;
    }
    return first;
}

float ${name}_confidence(const float *logits, int which) {
    float total = 0.0f;
    for (int i = 0; i < ${NAME}_CLASSES; i++) total += expf((logits[i] - logits[which]) / ${NAME}_TEMPERATURE);
    return 1.0f / total;
}
