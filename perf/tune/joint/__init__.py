"""Several models on one machine, and the steps of an ensemble: tuned together, as they share the cores."""
