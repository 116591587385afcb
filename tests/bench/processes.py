# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that are measured: started, and ended."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

PATIENCE_SECONDS = 20


class Failed(Exception):
    """The measurement could not be made."""


@contextlib.contextmanager
def directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix="privmemd-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def process(*command, cpu=None, **options):
    child = subprocess.Popen(command, **options)
    try:
        if cpu is not None:
            os.sched_setaffinity(child.pid, {cpu})
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in filter(None, (child.stdin, child.stdout)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def await_socket(path, server):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            link.connect(str(path))
            return
        time.sleep(0.01)
    raise Failed(f"{server.args[0]} does not listen on {path}")
