"""Training: one pure step for all engines (`step`), one loop that feeds it (`loop`), and what users call (`trainer`)."""
