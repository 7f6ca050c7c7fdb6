"""Steps and tasks as containers on this machine, through the Docker SDK."""

from submitter.backends.docker.backend import DockerBackend
from submitter.backends.docker.presence import end_orphans, is_working, read_log

__all__ = ["end_orphans", "is_working", "make_backend", "read_log"]

make_backend = DockerBackend
