"""The error of a row whose image cannot be read."""


class MediaError(Exception):
    """An image of this row cannot be read; the job goes on without the row.

    Attributes:
        kind: stable name that users filter on, one of docs/errors.md.
        message: what is wrong with this row, without the kind.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message
