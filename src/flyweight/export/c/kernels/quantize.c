struct quantize {
    uint32_t count;
    float scale;
    uint8_t zero;
};

static void quantize(const struct quantize *p, const float *in, uint8_t *out) {
    for (uint32_t i = 0; i < p->count; i++) {
        const float level = rintf(in[i] / p->scale) + (float)p->zero; /* halves to the even integer */
        out[i] = (uint8_t)(level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level);
    }
}
