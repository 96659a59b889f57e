/* needs: requantize sum_u8 */
/* The sum of two tensors, each with its own scale; the second may be a value per channel. */
struct add_u8 {
    const struct sum_u8 *sum;
    uint32_t count, period; /* elements of the first and of the second, which is read again and again */
};

static void add_u8(const struct add_u8 *p, const uint8_t *a, const uint8_t *b, uint8_t *out) {
    for (uint32_t i = 0, j = 0; i < p->count; i++) {
        out[i] = sum_u8(p->sum, a[i], b[j]);
        if (++j == p->period) j = 0;
    }
}
