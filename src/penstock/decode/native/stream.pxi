# The stream of one connection: frames to items.


cdef class StreamDecoder:
    """The stream of one connection."""

    cdef stream state
    cdef bytes frames  # what the state points into
    cdef list layouts
    cdef bint busy
    cdef bint failed  # there was no memory: rows may be halfway in

    def __cinit__(self, max_rows, max_bytes, starts):
        if len(starts) > 255:
            raise ValueError(f"the epoch {len(starts)} does not fit into 8 bits")
        self.state.max_rows, self.state.max_bytes, self.state.epochs = max_rows, max_bytes, len(starts)
        for number, start in enumerate(starts):
            self.state.starts[number] = start
        self.frames = b""
        self.layouts = []

    def __dealloc__(self):
        stream_free(&self.state)

    def bind(self, relation_oid, plan, source, old_is_full, since=0):
        """Rows of this relation go into ``plan``, from version ``since`` on, until it is announced anew. Raises ValueError unless ``source`` fits its Relation."""
        cdef relation *found
        cdef _Layout to
        cdef int32_t *place
        self._enter()
        found = find_relation(&self.state, relation_oid)
        if found == NULL or found.width != len(source):
            raise ValueError(f"relation {relation_oid} was not announced with {len(source)} columns")
        places = [-1] * len(plan.columns)
        for number, index in enumerate(source):
            if index >= 0:
                places[index] = number
        to = self._layout_of(plan)
        place = <int32_t *>calloc(len(places) + 1, sizeof(int32_t))
        if place == NULL:
            raise MemoryError
        for index, number in enumerate(places):
            place[index] = number
        free(found.place)
        found.place = place
        found.old_is_full = bool(old_is_full)
        found.since = since >> 64
        found.shape = &to.shape

    def unbind(self, relation_oid):
        """Rows of this relation are skipped."""
        cdef relation *found
        self._enter()
        found = find_relation(&self.state, relation_oid)
        if found != NULL:
            found.shape = NULL

    def receive(self, frames):
        """Hand over the next frames, after the ones before are used up."""
        self._enter()
        if self.state.at != self.state.end:
            raise RuntimeError("the frames before are not used up")
        self.frames = frames if type(frames) is bytes else bytes(frames)
        self.state.at = <const uint8_t *>self.frames
        self.state.end = self.state.at + len(self.frames)

    def next_item(self):
        """Decode until something needs attention; None when the frames are used up."""
        cdef int step
        self._enter()
        self.busy = True
        try:
            with nogil:
                step = stream_step(&self.state)
            if step == STEP_EVENT:
                return self._item(next_event(&self.state))
            if step != STEP_IDLE:
                self._raise(step)
            return None
        finally:
            self.busy = False

    def take(self, table_oid):
        """The pending rows of one table."""
        cdef size_t i
        cdef block *rows
        self._enter()
        for i in range(self.state.table_count):
            rows = self.state.tables[i].rows
            if self.state.tables[i].oid == table_oid and rows != NULL and rows.rows:
                self.state.tables[i].rows = NULL
                self.busy = True
                try:
                    return self._batch(rows)
                finally:
                    self.busy = False
        return None

    @property
    def pending(self):
        """Rows, bytes of text and floor of each table with pending rows."""
        cdef size_t i
        cdef block *rows
        self._enter()
        found = {}
        for i in range(self.state.table_count):
            rows = self.state.tables[i].rows
            if rows != NULL and rows.rows:
                found[self.state.tables[i].oid] = (rows.rows, rows.text_bytes, rows.floor)
        return found

    @property
    def position(self):
        """What may be confirmed when every row handed out or pending is durable."""
        return self.state.position

    @property
    def received(self):
        """The largest position this connection has seen."""
        return self.state.received

    @property
    def committed_at(self):
        """Commit time of the last transaction begun, microseconds since 1970."""
        return self.state.committed_at

    @property
    def place(self):
        """The version of the message read last, and the xid of its transaction."""
        return <object>self.state.now.version_high << 64 | self.state.now.ordinal, self.state.now.xid

    @property
    def changes(self):
        """Row messages so far."""
        return self.state.changes

    @property
    def transactions(self):
        """Commits so far."""
        return self.state.transactions

    @property
    def reply_requested(self):
        """Whether a keep-alive asked for an answer since this was last read."""
        asked = bool(self.state.reply_requested)
        self.state.reply_requested = 0
        return asked

    cdef int _enter(self) except -1:
        if self.busy:
            raise RuntimeError("the decoder is at work in another thread")
        if self.failed:
            raise MemoryError("the decoder ran out of memory and is of no use any more")
        return 0

    cdef _Layout _layout_of(self, plan):
        """The plan's layout. Layouts that nothing uses any more go."""
        cdef _Layout each
        kept = []
        for each in self.layouts:
            if each.plan is plan or shape_used(&self.state, &each.shape):
                kept.append(each)
            else:
                drop_spare(&self.state, &each.shape)
        self.layouts = kept
        for each in kept:
            if each.plan is plan:
                return each
        each = _Layout(plan)
        each.shape.slot = table_slot(&self.state, plan.table.oid)
        if each.shape.slot == NO_SLOT:
            raise MemoryError
        kept.append(each)
        return each

    cdef object _item(self, event *found):
        cdef event e = found[0]  # what follows may add others
        if e.kind == EVENT_BATCH:
            return self._batch(e.full)
        message = parse(e.frame[:e.len])
        if e.kind == EVENT_REJECTED:
            return _rejected(e.shape, e.why, self._key(e.shape, message))
        if e.kind == EVENT_RELATION:
            if not announce(&self.state, message.oid, len(message.columns)):
                raise MemoryError
            return message
        version = <object>e.version_high << 64 | e.ordinal
        return Truncate(message.oids, version, message.cascade, message.restart_identity)

    cdef tuple _key(self, layout *shape, message):
        """Of the row that a rejected change is about."""
        cdef relation *found = find_relation(&self.state, message.oid)
        plan = (<_Layout>shape.owner).plan
        return key_of([(found.place[i], i) for i in plan.identity if found.place[i] >= 0], plan, message)

    cdef object _batch(self, block *rows):
        try:
            batch = _batch(rows)
        except MemoryError:
            self.failed = True
            block_free(rows)
            raise
        give_back(&self.state, rows)
        return batch

    cdef int _raise(self, int step) except -1:
        """Say what is wrong. The plain decoder finds the words for a frame that is not what the protocol says."""
        cdef stream *s = &self.state
        if step == STEP_NO_MEMORY:
            self.failed = True
            raise MemoryError
        if step == STEP_CUT:
            raise FrameError("the last frame of the stream is cut off", hint=_STREAM_HINT)
        if step == STEP_LAYOUT:
            parse(s.frame[: s.frame_len])
            raise FrameError("a frame is not what the protocol says", hint=_STREAM_HINT)
        if step == STEP_KEYLESS or step == STEP_NAMELESS:
            raise self._unnamed(step)
        if step == STEP_BEGIN_WITHIN:
            problem = "a Begin came within a transaction"
        elif step == STEP_COMMIT_WITHOUT:
            problem = "a Commit came without its Begin"
        elif step == STEP_OUTSIDE:
            problem = f"{_NAMES[chr(s.culprit)]} came outside a transaction"
        elif step == STEP_UNANNOUNCED:
            problem = f"rows of relation {s.oid} came without its Relation message"
        else:
            problem = f"a row of relation {s.oid} has {s.found} columns instead of {s.expected}"
        raise FrameError(problem, hint="Penstock reads the stream again from the last confirmed position.")

    cdef object _unnamed(self, int step):
        """A row has holes, and nothing to find it by."""
        plan = (<_Layout>self.state.shape.owner).plan
        name = plan.table.full_name
        if step == STEP_KEYLESS:
            return FrameError(
                f"{name} has no key, and a row of it came without a value and without a full old row",
                hint=f"See that REPLICA IDENTITY FULL is set for {name}, then copy the table again.",
            )
        column = plan.columns[self.state.found].name
        return FrameError(
            f'{name}: a row came without a value for column "{column}", which belongs to the key',
            hint="See which columns the replica identity of the table has, then copy the table again.",
        )


_STREAM_HINT = "Penstock reads the stream again from the last confirmed position. If it comes back, a proxy in between may be at fault."
_NAMES = {"I": "Insert", "U": "Update", "D": "Delete", "T": "Truncate"}
