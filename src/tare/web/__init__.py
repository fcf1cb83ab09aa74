"""The HTTP server that owns its connections: hijack, half-close and streaming are its native moves."""
