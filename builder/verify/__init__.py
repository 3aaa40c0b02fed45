"""Is it right? Rungs, cheapest first: contract (the files), parity (the artifact), serve (through a real server)."""

from builder.verify.accuracy import Accuracy, measure, measure_accuracy
from builder.verify.cases import Case, cases_of
from builder.verify.contract import check_contract
from builder.verify.parity import Parity, check_parity
from builder.verify.serve import Endpoint, Served, check_served

__all__ = [
    "Accuracy",
    "Case",
    "Endpoint",
    "Parity",
    "Served",
    "cases_of",
    "check_contract",
    "check_parity",
    "check_served",
    "measure",
    "measure_accuracy",
]
