/* needs: clamp window */
/* Each channel by itself. weight (kh, kw, c). */
struct depthwise_f32 {
    const float *weight, *bias;
    uint16_t h, w, c, out_h, out_w, kh, kw, down, across, gap_h, gap_w, top, left;
    float low, high;
};

static void depthwise_f32(const struct depthwise_f32 *p, const float *in, float *out) {
    for (int oy = 0; oy < p->out_h; oy++) {
        const int y = oy * p->down - p->top;
        const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
        for (int ox = 0; ox < p->out_w; ox++) {
            const int x = ox * p->across - p->left;
            const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
            for (int c = 0; c < p->c; c++) {
                float sum = p->bias ? p->bias[c] : 0.0f;
                for (int ky = first_y; ky < last_y; ky++) {
                    for (int kx = first_x; kx < last_x; kx++) {
                        sum += in[((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c + c]
                            * p->weight[(ky * p->kw + kx) * p->c + c];
                    }
                }
                *out++ = clamp(sum, p->low, p->high);
            }
        }
    }
}
