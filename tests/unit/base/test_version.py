"""What the engine says about itself: other programs compare these texts."""

from __future__ import annotations

import re

from tare import __version__
from tare.base import version


def test_api_versions_are_the_promised_ones() -> None:
    assert (version.text(version.API_OLDEST), version.text(version.API_NEWEST)) == ("1.24", "1.51")


def test_the_engines_version_reads_as_dockers_with_ours_as_build_data() -> None:
    """Semantic versioning: what follows + has no precedence, so that `>= 28` holds for scripts."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\+tare\.\d+\.\d+\.\d+", version.ENGINE_VERSION)
    assert version.ENGINE_VERSION.partition("+")[0] == version.DOCKER_LEVEL
    assert version.ENGINE_VERSION.endswith(__version__)
