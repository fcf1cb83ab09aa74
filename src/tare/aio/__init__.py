"""Tasks, threads, children and undo: the only place that starts any of them."""
