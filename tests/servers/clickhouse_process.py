"""The process of a test's ClickHouse: ``python clickhouse_process.py LIBRARY FUNCTION clickhouse ARGUMENTS…``.

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
    """Run a main function of the library until it returns."""
    library = ctypes.CDLL(sys.argv[1], mode=os.RTLD_LAZY)  # it may want functions of another Python, which nobody calls
    run = library[sys.argv[2]]
    run.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    run.restype = ctypes.c_void_p
    threading.Thread(target=_end_with_parent, daemon=True).start()
    arguments = [*(each.encode() for each in sys.argv[3:]), None]
    return 0 if run(len(arguments) - 1, (ctypes.c_char_p * len(arguments))(*arguments)) else 1


if __name__ == "__main__":
    os._exit(main())
