"""A socket to listen at, and how its address is written."""

import socket

from pretrain.command import UserError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, asyncio lets answers go at once; else each waits 40 ms for the client's acknowledgement of its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        reason = f"cannot listen at {bracketed(host)}:{port} ({error.strerror})"
        raise UserError(f"{reason}: choose another --port or --host.") from None
    listening.set_inheritable(True)
    return listening


def bracketed(host: str) -> str:
    """As a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
