/* needs: window pool */
static void maxpool_f32(const struct pool *p, const float *in, float *out) {
    for (int oy = 0; oy < p->out_h; oy++) {
        const int y = oy * p->down - p->top;
        const int first_y = window_first(y, p->gap_h), last_y = window_last(y, p->kh, p->gap_h, p->h);
        for (int ox = 0; ox < p->out_w; ox++) {
            const int x = ox * p->across - p->left;
            const int first_x = window_first(x, p->gap_w), last_x = window_last(x, p->kw, p->gap_w, p->w);
            for (int c = 0; c < p->c; c++) {
                float most = -FLT_MAX;
                for (int ky = first_y; ky < last_y; ky++) {
                    for (int kx = first_x; kx < last_x; kx++) {
                        const float one = in[((int32_t)(y + ky * p->gap_h) * p->w + x + kx * p->gap_w) * p->c + c];
                        if (one > most) most = one;
                    }
                }
                *out++ = most;
            }
        }
    }
}
