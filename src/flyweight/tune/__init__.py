"""Many trials with one question."""
