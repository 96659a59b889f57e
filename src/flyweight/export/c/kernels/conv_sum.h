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

/* Where one output's window lies, and what of it is inside the picture. */
struct span {
    int y, first_y, last_y, x, first_x, last_x;
};

static struct span span_of(const struct conv_u8 *p, int oy, int ox) {
    struct span at;
    at.y = oy * p->down - p->top;
    at.x = ox * p->across - p->left;
    at.first_y = window_first(at.y, p->gap_h);
    at.last_y = window_last(at.y, p->kh, p->gap_h, p->h);
    at.first_x = window_first(at.x, p->gap_w);
    at.last_x = window_last(at.x, p->kw, p->gap_w, p->w);
    return at;
}

/* The integer sum of one output; padding is the input's zero point, which adds nothing. */
static int32_t conv_sum(const struct conv_u8 *p, const struct span *at, const uint8_t *in, int oc) {
    const int depth = p->c / p->groups, zero = p->in_zero;
    int32_t sum = p->bias ? p->bias[oc] : 0;
    if (p->groups > 1) in += oc / (p->out_c / p->groups) * depth;
    for (int ky = at->first_y; ky < at->last_y; ky++) {
        for (int kx = at->first_x; kx < at->last_x; kx++) {
            const uint8_t *pixel = in + ((int32_t)(at->y + ky * p->gap_h) * p->w + at->x + kx * p->gap_w) * p->c;
            const int8_t *weight = p->weight + (((int32_t)oc * p->kh + ky) * p->kw + kx) * depth;
            for (int i = 0; i < depth; i++) sum += (pixel[i] - zero) * weight[i];
        }
    }
    return sum;
}
