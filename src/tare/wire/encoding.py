"""Which content coding an answer gets, by the client's Accept-Encoding.

Source: RFC 9110 section 12.5.3. As in Docker the answer is plain unless the client names something it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

IDENTITY = "identity"


def negotiate(accepted: str, offers: Sequence[str]) -> str:
    """The offer that the header `accepted` gives the highest weight, the first of equals; `identity` without one.

    offers: in order of preference. A weight that is no number counts as 0.
    """
    weights: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in entry.split(";"))
        weights[coding] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    best, best_weight = IDENTITY, weights.get(IDENTITY, 0.0)
    for offer in offers:
        weight = weights.get(offer, weights.get("*", 0.0))
        if weight > best_weight or (weight == best_weight > 0 and best == IDENTITY):
            best, best_weight = offer, weight
    return best


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0
