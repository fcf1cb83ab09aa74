"""Mechanisms: the kernel, OCI runtimes, conmon, overlayfs, netlink, nftables. Errors are translated at this edge."""
