"""The peers' servers, started on free ports of 127.0.0.1 in a temporary folder, with what durability they have.

Both are Debian's packages; neither package's own service is used or touched.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import psutil

from contract import Place
from processes import free_port

#: Redis's usual durable setting: what was accepted in the last second may be lost with the power.
REDIS_DURABILITY = "appendonly, fsync each second"
RABBITMQ_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_SECONDS = 60.0


def redis_missing() -> str | None:
    """Say why there is no Redis; None: there is."""
    return None if shutil.which("redis-server") else "redis-server is not installed"


def redis_version() -> str:
    """Return the server's version."""
    text = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return next((word[2:] for word in text.split() if word.startswith("v=")), text.strip())


def start_redis(place: Place) -> str:
    """Start a Redis server; return its URL."""
    port = free_port()
    folder = place.folder / "redis"
    folder.mkdir()
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }
    command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]
    child = place.children.start(command, "redis", folder=folder)
    place.children.wait_ready(child, "redis", lambda: _answers(port, b"PING\r\n", b"+PONG"), _START_SECONDS)
    place.servers.append(child.pid)
    return f"redis://127.0.0.1:{port}/0"


def rabbitmq_missing() -> str | None:
    """Say why there is no RabbitMQ; None: there is."""
    if not RABBITMQ_SERVER.exists():
        return "rabbitmq-server is not installed"
    return None if shutil.which("epmd") else "erlang's epmd is not installed"


def rabbitmq_version() -> str:
    """Return the server's version, from its folder's name."""
    found = sorted(RABBITMQ_SERVER.parent.parent.glob("lib/rabbitmq_server-*"))
    return found[-1].name.partition("-")[2] if found else "unknown"


def start_rabbitmq(place: Place) -> str:
    """Start a RabbitMQ server under a node name of its own; return its URL.

    Its name server is started by us too, on a port of its own: it would otherwise stay behind, and listen on all
    interfaces. The package's wrapper is passed by, since it changes the user.
    """
    folder = place.folder / "rabbitmq"
    folder.mkdir()
    names, port = free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{port}\nlog.file.level = warning\n", "ascii"
    )
    (folder / "enabled_plugins").write_text("[].\n", "ascii")
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"greenroom-bench-{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
    }
    place.children.start(["epmd", "-address", "127.0.0.1", "-port", str(names)], "epmd", environment, folder)
    child = place.children.start([RABBITMQ_SERVER], "rabbitmq", environment, folder)
    place.children.wait_ready(
        child, "rabbitmq", lambda: _answers(port, b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"), _START_SECONDS
    )
    # The script waits for the virtual machine, which holds the messages.
    below = psutil.Process(child.pid).children(recursive=True)
    place.servers += [process.pid for process in below if process.name().startswith("beam")]
    return f"amqp://guest:guest@127.0.0.1:{port}/%2F"


def _answers(port: int, question: bytes, answer: bytes) -> bool:
    """Whether the server there speaks its protocol already."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
            link.sendall(question)
            return link.recv(len(answer)) == answer
    except OSError:
        return False
