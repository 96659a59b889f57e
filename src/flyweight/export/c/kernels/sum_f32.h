struct sum_f32 {
    float low, high;
};
