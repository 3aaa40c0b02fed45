"""Several models on one machine, and the steps of an ensemble: tuned together, as they take the cores from one another."""
