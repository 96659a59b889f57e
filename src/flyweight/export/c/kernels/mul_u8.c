/* needs: requantize */
/* The product of two tensors; the second may be a value per channel, as in squeeze-and-excitation. */
struct mul_u8 {
    uint32_t count, period;
    int32_t multiplier;
    uint8_t shift, a_zero, b_zero, out_zero, low, high;
};

static void mul_u8(const struct mul_u8 *p, const uint8_t *a, const uint8_t *b, uint8_t *out) {
    for (uint32_t i = 0, j = 0; i < p->count; i++) {
        const int32_t product = (a[i] - p->a_zero) * (b[j] - p->b_zero);
        out[i] = requantize((int64_t)product * p->multiplier, p->shift, p->out_zero, p->low, p->high);
        if (++j == p->period) j = 0;
    }
}
