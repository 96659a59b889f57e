/* Pixels to floats: (pixel - shift) * scale, per channel. */
struct normalize {
    const float *shift, *scale;
    uint32_t count;
    uint16_t channels;
};

static void normalize(const struct normalize *p, const uint8_t *in, float *out) {
    for (uint32_t i = 0, c = 0; i < p->count; i++, c++) {
        if (c == p->channels) c = 0;
        out[i] = ((float)in[i] - p->shift[c]) * p->scale[c];
    }
}
