"""Archives: a bounded tar reader, a safe extractor, a packer, and the warm confined process they run in.

    tar.py        headers to entries, bounded; entries to headers
    extract.py    entries to files below one directory descriptor
    pack.py       a directory tree (or an overlay's upper half) to a tar stream
    pipeline.py   bytes in: inflate, hash, extract, recompress, in parallel
    worker.py     the program: a zygote that forks one confined child per job
    client.py     the daemon's side: `Archiver`

Nothing here imports asyncio except `client`, so that the worker stays small.
"""
