"""The engine as seen from a client: a blocking connection, Docker's JSON, errors that carry a status.

Nothing here imports `socket`, `json`, `http.client` or `re`: a command line pays for every import at every call.
"""
