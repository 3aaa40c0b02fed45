"""`check-repo` held against a real Triton: valid repositories, mutations of them, both verdicts, and their difference.

``seeds*`` make small repositories that load; ``mutate_*`` change one thing in them; ``generate`` makes a deterministic
list of cases; ``real`` asks the embedded server about each, once; ``offline`` asks `check-repo`; ``compare`` counts.
"""
