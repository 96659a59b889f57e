/* value * 2^-shift, rounded to the nearest integer and halves to the even one, as QuantizeLinear rounds; then the
   zero point, and clipped. The negative number shifted right must keep its sign, as every compiler in use has it. */
typedef char arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];

static uint8_t requantize(int64_t value, int shift, int zero, int low, int high) {
    const int64_t rest = value & (((int64_t)1 << shift) - 1), half = (int64_t)1 << (shift - 1);
    int64_t level = value >> shift;
    if (rest > half || (rest == half && (level & 1))) level++;
    level += zero;
    return (uint8_t)(level < low ? low : level > high ? high : level);
}
