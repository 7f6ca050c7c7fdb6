"""Steps and tasks as requests to AWS Batch; what was sent goes on without the desk."""

from submitter.backends.aws.backend import AwsBackend
from submitter.backends.aws.presence import end_orphans, explain, is_working, read_log, sighting, terminate
from submitter.backends.aws.world import default_store

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

make_backend = AwsBackend
survives = True
