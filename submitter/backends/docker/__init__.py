"""Steps and tasks as containers on this machine, through the Docker SDK."""

from submitter.backends.docker.backend import DockerBackend
from submitter.backends.docker.presence import end_orphans, is_working, read_log
from submitter.backends.local import default_store, explain, sighting, terminate

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

make_backend = DockerBackend
survives = False
