"""The process of a test's ClickHouse: ``python clickhouse_process.py LIBRARY clickhouse ARGUMENTS…``.

It ends when its standard input is closed, so that a killed test run leaves no server behind.
"""

import ctypes
import os
import sys
import threading


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> int:
    """Run clickhouse-local's main function of the library until it returns."""
    library = ctypes.CDLL(sys.argv[1])
    run = library.chdb_query_cmdline
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    run.restype = ctypes.c_void_p
    threading.Thread(target=_end_with_parent, daemon=True).start()
    arguments = [each.encode() for each in sys.argv[2:]]
    return 0 if run(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)) else 1


if __name__ == "__main__":
    os._exit(main())
