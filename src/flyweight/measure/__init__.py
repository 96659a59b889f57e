"""Accuracy, latency, memory and size of shipped bytes, with intervals and conditions. No torch in here."""
