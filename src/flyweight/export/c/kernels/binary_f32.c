/* needs: clamp */
/* a + b, a - b, a * b or a / b; b may be a value per channel, or one for all. */
struct binary_f32 {
    const float *constant; /* b, where the model holds it */
    uint32_t count, period;
    char operation;
    float low, high;
};

static void binary_f32(const struct binary_f32 *p, const float *a, const float *b, float *out) {
    for (uint32_t i = 0, j = 0; i < p->count; i++) {
        const float x = a[i], y = b[j];
        const float z = p->operation == '+' ? x + y : p->operation == '-' ? x - y : p->operation == '*' ? x * y : x / y;
        out[i] = clamp(z, p->low, p->high);
        if (++j == p->period) j = 0;
    }
}
