"""The way from a kernel to its page, without waiting.

A kernel says three things for each message that a card sends it: that it is busy, the answer, that it is idle. Each is small, so the
server's TCP holds the second one back until the browser's side has confirmed the first, up to 40 ms (Nagle's algorithm, RFC 896, with
delayed acknowledgements, RFC 1122). Jupyter's server leaves it so; with this class it does not:
`--ServerApp.kernel_websocket_connection_class=mlops_nb.widgets.channel.PromptConnection`.
"""

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """Jupyter's own connection between a page and a kernel, in which every message goes out at once."""

    def connect(self) -> Any:
        """Connect as Jupyter does, and hold nothing back."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
