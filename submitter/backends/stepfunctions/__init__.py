"""Rounds as executions of the stack's search machine; what was started goes on, and retries, without the desk."""

from submitter.backends.aws.world import default_store
from submitter.backends.stepfunctions.backend import StepFunctionsBackend
from submitter.backends.stepfunctions.presence import end_orphans, explain, is_working, read_log, sighting, terminate

__all__ = [
    "default_store",
    "end_orphans",
    "explain",
    "is_working",
    "make_backend",
    "read_log",
    "sighting",
    "survives",
    "terminate",
]

make_backend = StepFunctionsBackend
survives = True
