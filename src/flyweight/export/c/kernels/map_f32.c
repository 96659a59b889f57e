/* A function of each number. */
struct map_f32 {
    uint32_t count;
    float a, b;
};
