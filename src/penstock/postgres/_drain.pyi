from typing import Literal

State = Literal["more", "empty", "end", "error"]

def drain(
    pgconn_ptr: int | None, *, max_bytes: int, framed: bool, wait_seconds: float, pause_seconds: float = 0.0
) -> tuple[bytes, State]: ...
