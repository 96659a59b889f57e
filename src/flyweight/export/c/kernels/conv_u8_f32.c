/* needs: clamp window conv_sum */
/* The same where the answer is a float, as the logits are: the integer sum in units of input scale * weight scale. */
static void conv_u8_f32(const struct conv_u8 *p, const uint8_t *in, float *out) {
    for (int oy = 0; oy < p->out_h; oy++) {
        for (int ox = 0; ox < p->out_w; ox++) {
            const struct span at = span_of(p, oy, ox);
            for (int oc = 0; oc < p->out_c; oc++) {
                const int32_t sum = conv_sum(p, &at, in, oc);
                *out++ = clamp((float)sum * p->scale[oc], p->least, p->most);
            }
        }
    }
}
