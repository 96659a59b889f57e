/* needs: window requantize */
/* Each channel by itself, in integers. weight (kh, kw, c). */
struct depthwise_u8 {
    const int8_t *weight;
    const int32_t *bias, *multiplier;
    const uint8_t *shift;
    uint16_t h, w, c, out_h, out_w, kh, kw, down, across, gap_h, gap_w, top, left;
    uint8_t in_zero, out_zero, low, high;
};

static void depthwise_u8(const struct depthwise_u8 *p, const uint8_t *in, uint8_t *out) {
    const int zero = p->in_zero;
    for (int oy = 0; oy < p->out_h; oy++) {
        const int y = oy * p->down - p->top;
        const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
        for (int ox = 0; ox < p->out_w; ox++) {
            const int x = ox * p->across - p->left;
            const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
            for (int c = 0; c < p->c; c++) {
                int32_t sum = p->bias ? p->bias[c] : 0;
                for (int ky = first_y; ky < last_y; ky++) {
                    for (int kx = first_x; kx < last_x; kx++) {
                        sum += (in[((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c + c] - zero)
                            * p->weight[(ky * p->kw + kx) * p->c + c];
                    }
                }
                *out++ = requantize((int64_t)sum * p->multiplier[c], p->shift[c], p->out_zero, p->low, p->high);
            }
        }
    }
}
