"""Training: one pure step for all engines (`step`), one loop to feed it (`loop`), and what users call (`trainer`)."""
