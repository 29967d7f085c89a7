# cython: language_level=3
"""CopyData payloads off a connection, many at a time, in compiled code: what ``wire.drain`` does in Python.

libpq stays the one protocol stack. Its functions are called through the addresses that they have in the libpq that psycopg has
loaded, without the interpreter, into one buffer. Importing this raises ImportError where they cannot be found.
"""

import ctypes

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN
    int poll(pollfd *descriptors, unsigned long count, int milliseconds)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)
    int nanosleep(const timespec *time, timespec *left)

ctypedef int (*consume_input)(void *conn) noexcept nogil
ctypedef int (*get_copy_data)(void *conn, char **payload, int asynchronous) noexcept nogil
ctypedef void (*free_memory)(void *memory) noexcept nogil
ctypedef int (*get_socket)(const void *conn) noexcept nogil

cdef consume_input PQconsumeInput
cdef get_copy_data PQgetCopyData
cdef free_memory PQfreemem
cdef get_socket PQsocket

cdef enum:
    MORE
    EMPTY
    END
    ERROR
    NO_MEMORY

_STATES = {MORE: "more", EMPTY: "empty", END: "end", ERROR: "error"}


def _load():
    """The libpq of psycopg: symbols are looked for in its own module first, then in what that is linked to."""
    try:
        from psycopg import pq

        if pq.__impl__ == "python":
            from psycopg.pq._pq_ctypes import pq as library
        else:
            module = __import__(f"psycopg_{pq.__impl__}.pq", fromlist=["pq"])
            library = ctypes.CDLL(module.__file__)
        if library.PQlibVersion() != pq.version():
            raise ImportError(f"libpq {library.PQlibVersion()} is not the {pq.version()} of psycopg")
        names = ("PQconsumeInput", "PQgetCopyData", "PQfreemem", "PQsocket")
        return [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names]
    except (AttributeError, OSError) as error:
        raise ImportError(f"the functions of libpq cannot be reached: {error}") from error


cdef int _bind() except -1:
    global PQconsumeInput, PQgetCopyData, PQfreemem, PQsocket
    cdef uintptr_t consume, get, free_, socket
    consume, get, free_, socket = _load()
    PQconsumeInput = <consume_input>consume
    PQgetCopyData = <get_copy_data>get
    PQfreemem = <free_memory>free_
    PQsocket = <get_socket>socket
    return 0


_bind()


# A pause that brought nothing may only mean that the walsender had no processor: look some more times before calling it quiet.
cdef enum:
    QUIET_LOOKS = 4


cdef struct buffer:
    uint8_t *data
    size_t len
    size_t cap


cdef double _now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cdef void _pause(double seconds) noexcept nogil:
    cdef timespec time
    time.tv_sec = <long>seconds
    time.tv_nsec = <long>((seconds - time.tv_sec) * 1e9)
    nanosleep(&time, NULL)


cdef bint _append(buffer *to, const char *payload, size_t length, bint framed) noexcept nogil:
    cdef size_t wanted = to.len + length + (4 if framed else 0)
    cdef size_t cap = to.cap
    cdef uint8_t *data
    if wanted > cap:
        while cap < wanted:
            cap = cap * 2 if cap else 1 << 16
        data = <uint8_t *>realloc(to.data, cap)
        if data == NULL:
            return False
        to.data, to.cap = data, cap
    if framed:
        to.data[to.len] = <uint8_t>(length >> 24)
        to.data[to.len + 1] = <uint8_t>(length >> 16)
        to.data[to.len + 2] = <uint8_t>(length >> 8)
        to.data[to.len + 3] = <uint8_t>length
        to.len += 4
    memcpy(to.data + to.len, payload, length)
    to.len += length
    return True


cdef int _take(void *conn, buffer *to, size_t max_bytes, bint framed) noexcept nogil:
    """Everything that libpq holds: EMPTY when it has no whole payload any more."""
    cdef char *payload
    cdef int length
    cdef bint good
    while to.len < max_bytes:
        payload = NULL
        length = PQgetCopyData(conn, &payload, 1)
        if length <= 0:
            return EMPTY if length == 0 else END if length == -1 else ERROR
        good = _append(to, payload, length, framed)
        PQfreemem(payload)
        if not good:
            return NO_MEMORY
    return MORE


cdef int _drain(void *conn, buffer *to, size_t max_bytes, bint framed, double wait, double pause) noexcept nogil:
    cdef pollfd descriptor
    cdef size_t before = 0
    cdef double deadline = _now() + wait, left
    cdef bint looked = False, grown
    cdef int state, idle = 0
    while True:
        state = _take(conn, to, max_bytes, framed)
        if state != EMPTY:
            return state
        left = deadline - _now()
        grown, before = to.len != before, to.len
        idle = 0 if grown else idle + 1
        if looked and (left <= 0 or (pause > 0 and to.len and idle > QUIET_LOOKS)):
            return EMPTY
        # The first look is at what is there already: TLS may hold bytes that the socket does not show. After a look that
        # brought something the next follows at once, as libpq takes 16 kB at a time: the kernel must be empty before a pause.
        if looked and to.len and pause > 0:
            if not grown:
                _pause(pause if pause < left else left)
        elif looked:
            descriptor.fd, descriptor.events, descriptor.revents = PQsocket(conn), POLLIN, 0
            if descriptor.fd < 0:
                return ERROR
            if poll(&descriptor, 1, <int>(left * 1000) + 1 if left < 1e6 else 1000000000) < 0:
                return EMPTY  # a signal: its turn comes when the interpreter is back
        looked = True
        if not PQconsumeInput(conn):
            # What came before the error can still be taken, and the end among it.
            state = _take(conn, to, max_bytes, framed)
            return ERROR if state == EMPTY else state


def drain(pgconn_ptr, *, max_bytes, framed, wait_seconds, pause_seconds=0.0):
    """What came, and "more" (``max_bytes`` are reached), "empty", "end" (of the copy) or "error" (ask the PGconn).

    See ``wire.drain``, whose arguments these are. ``pgconn_ptr`` is the ``PGconn.pgconn_ptr`` of an open connection, which nobody else
    uses meanwhile. What came before an error is handed out with it.
    """
    cdef uintptr_t address = pgconn_ptr or 0
    cdef buffer to
    cdef size_t most = max_bytes
    cdef bint with_lengths = framed
    cdef double wait = wait_seconds, pause = pause_seconds
    cdef int state
    if not address:
        raise ValueError("the connection is closed")
    to.data, to.len, to.cap = NULL, 0, 0
    try:
        with nogil:
            state = _drain(<void *>address, &to, most, with_lengths, wait, pause)
        if state == NO_MEMORY:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *>to.data, to.len) if to.len else b"", _STATES[state]
    finally:
        free(to.data)
