"""How fast a served repository is, measured with perf_analyzer."""
