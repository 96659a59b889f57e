"""Published comparisons as data, and what runs them again: `study.yaml` says the arms, the code below knows none."""
