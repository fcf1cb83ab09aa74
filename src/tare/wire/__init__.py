"""Docker's JSON, with Docker's names verbatim. No input or output happens here."""
