/* needs: window requantize pool */
static void avgpool_u8(const struct pool *p, const uint8_t *in, uint8_t *out) {
    for (int oy = 0; oy < p->out_h; oy++) {
        const int y = oy * p->down - p->top;
        const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
        for (int ox = 0; ox < p->out_w; ox++) {
            const int x = ox * p->across - p->left;
            const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
            const int all = p->padding_counts ? p->kh * p->kw : (last_y - first_y) * (last_x - first_x);
            /* One multiplier, where all windows hold as many; else that of the number. */
            const int at = p->padding_counts ? 0 : all - 1;
            for (int c = 0; c < p->c; c++) {
                int32_t sum = 0;
                for (int ky = first_y; ky < last_y; ky++) {
                    for (int kx = first_x; kx < last_x; kx++) {
                        sum += in[((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c + c] - p->in_zero;
                    }
                }
                *out++ = requantize((int64_t)sum * p->multiplier[at], p->shift[at], p->out_zero, p->low, p->high);
            }
        }
    }
}
