struct conv_u8 {
    const int8_t *weight;
    const int32_t *bias, *multiplier;
    const uint8_t *shift;
    const struct sum_u8 *sum; /* with another tensor; or none */
    const float *scale; /* of logits, in place of multiplier and shift */
    uint16_t h, w, c, out_h, out_w, out_c, kh, kw, down, across, gap_h, gap_w, top, left, groups;
    uint8_t in_zero, out_zero, low, high;
    float least, most;
};

/* The integer sum of one output; padding is the input's zero point, which adds nothing. */
static int32_t conv_sum(const struct conv_u8 *p, const uint8_t *in, int y, int x, int oc) {
    const int depth = p->c / p->groups, zero = p->in_zero;
    const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
    const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
    int32_t sum = p->bias ? p->bias[oc] : 0;
    in += oc / (p->out_c / p->groups) * depth;
    for (int ky = first_y; ky < last_y; ky++) {
        for (int kx = first_x; kx < last_x; kx++) {
            const uint8_t *pixel = in + ((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c;
            const int8_t *weight = p->weight + (((int32_t)oc * p->kh + ky) * p->kw + kx) * depth;
            for (int i = 0; i < depth; i++) sum += (pixel[i] - zero) * weight[i];
        }
    }
    return sum;
}
