struct pool {
    const int32_t *multiplier; /* of integers: for each number of elements */
    const uint8_t *shift;
    uint16_t h, w, c, out_h, out_w, kh, kw, down, across, gap_h, gap_w, top, left;
    uint8_t padding_counts, in_zero, out_zero, low, high;
};
