"""tare: a container engine that speaks the Docker Engine API on the wire."""

__version__ = "0.1.0"
