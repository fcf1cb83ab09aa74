"""Container names: what is allowed, and the ones made up when nobody gives one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from tare.base.errors import InvalidArgument

ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(rf"/?{ALLOWED}+\Z")
MAX_LENGTH = 255
_TRIES = 6

_LEFT = """
able agile amber amused ardent astute balanced bold breezy bright brisk calm candid careful cheerful civil clear
clever cordial cosmic crisp curious daring dapper decent deft eager earnest easy elated elegant epic exact fair
fearless festive fine fluent fond frank free fresh gallant gentle glad golden graceful grand happy hardy hearty
honest hopeful humble ideal jolly jovial keen kind lively loyal lucid lucky mellow merry mindful modest neat nimble
noble open patient placid polite prime proud quick quiet quirky ready rosy serene sharp silent sincere sleek smart
smooth snappy sober solid steady sturdy subtle sunny sure swift tender thrifty tidy tranquil trim trusty upbeat
valiant vivid warm wise witty zealous zesty
""".split()  # noqa: SIM905 (a list of quoted words reads worse)
_RIGHT = """
abel agnesi archimedes avogadro babbage banach bardeen bell bernoulli bessel bohr boltzmann boole borlaug bose brahe
brown burnell cannon cantor carson cartwright cauchy cavendish chandrasekhar clarke cori coulomb crick curie dalton
darwin davy descartes dijkstra dirac edison ehrlich einstein elion engelbart erdos euclid euler faraday fermat fermi
feynman fleming fourier franklin galileo galois gauss germain goedel goodall hamilton harvey hawking heisenberg
hertz hilbert hodgkin hooke hopper hubble huygens hypatia jacobi jenner johnson joliot joule kalam kepler khorana
kilby knuth kovalevskaya lagrange lamarr lamport laplace lavoisier leavitt leibniz lichterman linnaeus liskov
lovelace maxwell mayer mccarthy mcclintock meitner mendel mendeleev mirzakhani morse nash newton nightingale nobel
noether noyce ohm pascal pasteur pauling pike planck poincare ptolemy ramanujan ride ritchie roentgen rubin
rutherford sagan sammet shannon shaw shockley sinoussi snyder swartz tesla thompson torvalds turing varahamihira
villani volta wescoff wiles wilson wozniak wright yalow yonath
""".split()  # noqa: SIM905 (a list of quoted words reads worse)


def check_name(name: str) -> str:
    """The name without its optional slash. Raises InvalidArgument in Docker's words."""
    if not _NAME.match(name) or len(name) > MAX_LENGTH:
        raise InvalidArgument(f"Invalid container name ({name}), only {ALLOWED} are allowed")
    return name.removeprefix("/")


def made_up(is_taken: Callable[[str], bool], fallback: str) -> str:
    """An unused `left_right` name; after six clashes with a digit, at last `fallback` (the short id)."""
    for attempt in range(_TRIES):
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
        if name == "boring_wozniak":
            continue
        if attempt:
            name += str(secrets.randbelow(10))
        if not is_taken(name):
            return name
    return fallback
