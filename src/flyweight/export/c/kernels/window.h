/* Where a kernel of `size` positions, `gap` apart, meets an axis of `length` elements: first and last position + 1. */
static int window_first(int start, int gap) { return start < 0 ? (-start + gap - 1) / gap : 0; }

static int window_last(int start, int size, int gap, int length) {
    const int reach = (length - start + gap - 1) / gap;
    return start >= length ? 0 : reach < size ? reach : size;
}
