"""Bytes on disk: blobs by digest, records in SQLite."""
