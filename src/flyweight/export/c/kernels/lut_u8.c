/* Any function of one level: a table of 256, or one for each channel. */
struct lut_u8 {
    const uint8_t *table;
    uint32_t count;
    uint16_t channels;
};

static void lut_u8(const struct lut_u8 *p, const uint8_t *in, uint8_t *out) {
    const uint8_t *table = p->table;
    for (uint32_t i = 0, c = 0; i < p->count; i++, table += 256) {
        if (c++ == p->channels) table = p->table, c = 1;
        out[i] = table[in[i]];
    }
}
