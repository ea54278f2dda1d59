"""The shell that owns time: it observes, plans with the core, acts, and publishes."""
