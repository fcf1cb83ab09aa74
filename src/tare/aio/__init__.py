"""Tasks, threads, children, undo: the only place that starts any of them. And failpoints, for all above."""
