"""Kernel networking without child processes: rtnetlink packed by hand, namespaces by thread, nftables in-process."""
