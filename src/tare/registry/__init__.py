"""Remote registries: where they are, who we are there, and the distribution protocol. Nothing here knows images."""
