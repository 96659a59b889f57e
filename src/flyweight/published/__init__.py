"""Published tables against counting: what a table claims about named networks, recomputed. Start with audit.py."""
