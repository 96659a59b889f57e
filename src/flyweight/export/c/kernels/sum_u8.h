/* The sum of two levels of scales of their own, in a third. */
struct sum_u8 {
    int32_t a_multiplier, b_multiplier;
    uint8_t shift, a_zero, b_zero, out_zero, low, high;
};

static uint8_t sum_u8(const struct sum_u8 *p, uint8_t a, uint8_t b) {
    const int64_t sum = (int64_t)(a - p->a_zero) * p->a_multiplier + (int64_t)(b - p->b_zero) * p->b_multiplier;
    return requantize(sum, p->shift, p->out_zero, p->low, p->high);
}
