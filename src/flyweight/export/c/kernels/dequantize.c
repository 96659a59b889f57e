struct dequantize {
    uint32_t count;
    float scale;
    uint8_t zero;
};

static void dequantize(const struct dequantize *p, const uint8_t *in, float *out) {
    for (uint32_t i = 0; i < p->count; i++) out[i] = (float)(in[i] - p->zero) * p->scale;
}
