/* needs: clamp window sum_f32 */
/* Convolution and dense layers, weight (out_c, kh, kw, c / groups); `other` is added where there is one. */
struct conv_f32 {
    const float *weight, *bias;
    const struct sum_f32 *sum; /* with another tensor; or none */
    uint16_t h, w, c, out_h, out_w, out_c, kh, kw, down, across, gap_h, gap_w, top, left, groups;
    float low, high;
};

static void conv_f32(const struct conv_f32 *p, const float *in, const float *other, float *out) {
    const int depth = p->c / p->groups, share = p->out_c / p->groups;
    for (int oy = 0; oy < p->out_h; oy++) {
        const int y = oy * p->down - p->top;
        const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
        for (int ox = 0; ox < p->out_w; ox++) {
            const int x = ox * p->across - p->left;
            const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
            for (int oc = 0; oc < p->out_c; oc++) {
                float sum = p->bias ? p->bias[oc] : 0.0f;
                for (int ky = first_y; ky < last_y; ky++) {
                    for (int kx = first_x; kx < last_x; kx++) {
                        const float *pixel = in + ((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c
                            + (oc / share) * depth;
                        const float *weight = p->weight + (((int32_t)oc * p->kh + ky) * p->kw + kx) * depth;
                        for (int i = 0; i < depth; i++) sum += pixel[i] * weight[i];
                    }
                }
                sum = clamp(sum, p->low, p->high);
                if (p->sum) sum = clamp(sum + *other++, p->sum->low, p->sum->high);
                *out++ = sum;
            }
        }
    }
}
