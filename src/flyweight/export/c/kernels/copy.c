/* Moves elements of 1 or 4 bytes between two orders: transposing, slicing, joining. */
struct copy {
    int32_t sizes[4], from[4], to[4], offset, start;
    uint8_t bytes;
};

static void copy(const struct copy *p, const void *in, void *out) {
    const unsigned char *source = in;
    unsigned char *target = out;
    for (int32_t a = 0; a < p->sizes[0]; a++) {
        for (int32_t b = 0; b < p->sizes[1]; b++) {
            for (int32_t c = 0; c < p->sizes[2]; c++) {
                int32_t from = p->offset + a * p->from[0] + b * p->from[1] + c * p->from[2];
                int32_t to = p->start + a * p->to[0] + b * p->to[1] + c * p->to[2];
                for (int32_t d = 0; d < p->sizes[3]; d++, from += p->from[3], to += p->to[3]) {
                    memcpy(target + (size_t)to * p->bytes, source + (size_t)from * p->bytes, p->bytes);
                }
            }
        }
    }
}
