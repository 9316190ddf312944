"""The way between a page and a kernel: with our connection, TCP holds no message back."""

import subprocess
import sys

import pytest

SERVER = """
import asyncio, gc, json, socket, sys
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

folder, *options = sys.argv[1:]
app = ServerApp.instance()
app.initialize(["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}", *options])
ours = {"headers": {"Authorization": "token t"}, "connect_timeout": 120, "request_timeout": 120}

async def look():
    try:
        answer = await AsyncHTTPClient().fetch(f"{app.connection_url}api/kernels", method="POST", body="{}", **ours)
        wire = f"{app.connection_url.replace('http', 'ws', 1)}api/kernels/{json.loads(answer.body)['id']}/channels"
        page = await websocket_connect(HTTPRequest(wire, **ours))
        await page.read_message()
        [there] = [one for one in gc.get_objects() if isinstance(one, ZMQChannelsWebsocketConnection)]
        end = there.websocket_handler.ws_connection.stream.socket
        print("prompt" if end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) else "held back", flush=True)
        page.close()
        await app.kernel_manager.shutdown_all(now=True)
    finally:
        app.stop(from_signal=True)

IOLoop.current().add_callback(look)
app.start()
"""
OURS = "--ServerApp.kernel_websocket_connection_class=mlops_nb.widgets.channel.PromptConnection"


@pytest.mark.slow
@pytest.mark.parametrize(("options", "told"), [([OURS], "prompt"), ([], "held back")])
def test_a_message_goes_out_at_once_with_our_connection_and_not_with_jupyters(tmp_path, options, told):
    done = subprocess.run([sys.executable, "-c", SERVER, tmp_path, *options], capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[0] == told, done.stderr
