# COPY's text format to batches.


cdef class CopyDecoder:
    """Rows of one table from COPY TO STDOUT, whose columns are the plan's.

    All rows of a chunk are decoded; a limit passed within it shows in ``full`` afterwards.
    """

    cdef copy_state state
    cdef _Layout layout
    cdef size_t max_rows
    cdef uint64_t max_bytes
    cdef bint busy

    def __cinit__(self, plan, max_rows, max_bytes, first_ordinal):
        self.layout = _Layout(plan)
        self.max_rows, self.max_bytes = max_rows, max_bytes
        if not copy_start(&self.state, &self.layout.shape, first_ordinal):
            raise MemoryError

    def __dealloc__(self):
        copy_free(&self.state)

    @property
    def full(self):
        """Whether a limit is reached and the rows are to be taken."""
        self._enter()
        return self.state.pending.rows >= self.max_rows or self.state.pending.text_bytes >= self.max_bytes

    def receive(self, chunk):
        """Decode the rows that end in this chunk.

        Raises FrameError where the text is not COPY's; UnfitKeyError, UnfitValueError and BadDataError for a value.
        """
        cdef bytes kept = chunk if type(chunk) is bytes else bytes(chunk)
        cdef const uint8_t *start = kept
        cdef size_t length = len(kept)
        cdef int status
        self._enter()
        self.busy = True
        with nogil:
            status = copy_receive(&self.state, start, length)
        self.busy = False
        if status != COPY_DONE:
            self._raise(status)

    def take(self):
        """The rows so far, None without any."""
        self._enter()
        if not self.state.pending.rows:
            return None
        self.busy = True
        try:
            return _batch(self.state.pending)
        finally:
            block_reset(self.state.pending)
            self.busy = False

    def finish(self):
        """The copy has ended. Raises FrameError where its last row has not."""
        self._enter()
        if self.state.split.len:
            raise self._error("the last row is cut off")

    cdef int _enter(self) except -1:
        if self.busy:
            raise RuntimeError("the decoder is at work in another thread")
        return 0

    cdef int _raise(self, int status) except -1:
        if status == COPY_NO_MEMORY:
            raise MemoryError
        if status == COPY_BACKSLASH:
            raise self._error("a value ends with a lone backslash")
        if status == COPY_WIDTH:
            raise self._error(f"a row has {self.state.width} columns instead of {self.layout.shape.count}")
        raise _rejected(&self.layout.shape, self.state.why, _name(self.state.pending, self.state.refused_key)).error

    cdef object _error(self, problem):
        return FrameError(f"COPY of {self.layout.plan.table.full_name}: {problem}", hint=_COPY_HINT)


_COPY_HINT = "The part is copied again. If it comes back, a proxy in between may be at fault."
