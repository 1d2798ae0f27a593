"""What all tests share."""

import signal


def pytest_configure() -> None:
    """Undo what a shell does to programs in its background: they ignore Ctrl-C, which some tests are about."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
