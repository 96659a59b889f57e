/* needs: window requantize conv_sum sum_u8 */
/* Convolution and dense layers in integers, weight (out_c, kh, kw, c / groups); `other` is added where there is one. */
static void conv_u8(const struct conv_u8 *p, const uint8_t *in, const uint8_t *other, uint8_t *out) {
    for (int oy = 0; oy < p->out_h; oy++) {
        for (int ox = 0; ox < p->out_w; ox++) {
            const struct span at = span_of(p, oy, ox);
            for (int oc = 0; oc < p->out_c; oc++) {
                const int32_t sum = conv_sum(p, &at, in, oc);
                uint8_t level = requantize((int64_t)sum * p->multiplier[oc], p->shift[oc], p->out_zero, p->low, p->high);
                if (p->sum) level = sum_u8(p->sum, level, *other++);
                *out++ = level;
            }
        }
    }
}
