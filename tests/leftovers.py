"""What a failure leaves in memory."""

import weakref


class Leftover:
    """Holds itself, as Lightning's trainer and model hold each other: only a collection frees it."""

    def __init__(self, seen: list[weakref.ref]):
        self.own = self
        seen.append(weakref.ref(self))
