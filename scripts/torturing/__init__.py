"""What `scripts/torture` does to an engine, one module for each scenario; the short forms are run by tests/e2e/test_torture*.py."""
