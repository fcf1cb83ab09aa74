"""For tests: a daemon to drive, fakes that pass the drivers' suites, and the host's footprint."""
