"""What a device installs: files to pixels, a bundle, a backend, a prediction and a clock. No torch in here."""
