"""Making containers: an OCI runtime by its command line (`oci.py`) under a monitor (`monitor.py`, conmon).

Life of a container at this level: `create` (monitor started, namespaces made, program not yet executed) → `start` →
it ends → the monitor writes the exit status and ends → `delete`. Every step may be repeated after a crash.
"""
