"""The output of ps and the counters of /proc."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.drivers.processes import Traffic, parse, parse_cpu_line, parse_net_dev

PS = """\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 20:00 ?        00:00:01 /sbin/init  splash
root         711     690  2 22:28 ?        00:00:00 sh -c  sleep 1;   echo
root           -       -  0 22:28 ?        00:00:00 -
app          712     711  0 22:28 pts/0    00:00:00 sleep 1
root         713       2  0 20:00 ?        00:00:00 [kworker]
root           -       -  0 22:28 ?        00:00:00 -
"""


def test_only_the_containers_rows_and_the_last_column_whole() -> None:
    titles, rows = parse(PS, [711, 712])
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert rows == [
        ["root", "711", "690", "2", "22:28", "?", "00:00:00", "sh -c  sleep 1;   echo"],
        ["root", "-", "-", "0", "22:28", "?", "00:00:00", "-"],
        ["app", "712", "711", "0", "22:28", "pts/0", "00:00:00", "sleep 1"],
    ]


@pytest.mark.parametrize("text", ["", "CMD\nsleep\n"])
def test_without_a_pid_column(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Couldn't find PID field in ps output"):
        parse(text, [1])


def test_interfaces() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier\n"
        "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n"
        "  eth0:    1446      19    1    2    0     0          0         0      560       8    3    4    0     0       0          0\n"
    )
    assert parse_net_dev(text) == {
        "eth0": Traffic(
            rx_bytes=1446,
            rx_packets=19,
            rx_errors=1,
            rx_dropped=2,
            tx_bytes=560,
            tx_packets=8,
            tx_errors=3,
            tx_dropped=4,
        )
    }


def test_processor_time_leaves_guests_out() -> None:
    assert parse_cpu_line("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 9\n", 100) == 36 * 10_000_000
