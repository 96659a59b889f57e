/* Runs one golden picture again and again and prints what it is and how long that took. In place of golden.h, give
   ${name}_run the pixels of your camera: ${NAME}_PIXELS bytes, rows of pixels of channels. */

#include "golden.h"
#include "model.h"

void setup() {
    Serial.begin(115200);
}

void loop() {
    static float logits[${NAME}_CLASSES];
    const unsigned long begin = micros();
    ${name}_run(golden_pixels[0], logits);
    const unsigned long duration = micros() - begin;
    const int first = ${name}_first(logits);
    Serial.print(${name}_classes[first]);
    Serial.print(" ");
    Serial.print(${name}_confidence(logits, first), 4);
    Serial.print(" in ");
    Serial.print(duration);
    Serial.println(" us");
    delay(1000);
}
