# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes of other users: a function that runs as another uid, and a process that lives until it is killed."""

import os
import pickle
import signal
import traceback

ALICE = 12345
BOB = 65534


def become(uid):
    """Gives up root for good."""
    if os.geteuid() == uid:
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _answer(pipe, function, arguments):
    """Runs the function and writes what it returned or raised."""
    try:
        result = True, function(*arguments)
    except BaseException as error:  # the parent raises it
        error.add_note(traceback.format_exc())
        result = False, error
    try:
        data = pickle.dumps(result)
    except Exception as error:
        data = pickle.dumps((False, AssertionError(f"{result!r} cannot be told: {error}")))
    with os.fdopen(pipe, "wb") as file:
        file.write(len(data).to_bytes(8) + data)


class Process:
    """A child that has run the function as uid, and then lives on with all it has until it is killed."""

    def __init__(self, uid, function, *arguments):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(reading)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.alarm(120)
                become(uid)
                _answer(writing, function, arguments)
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(writing)
        self.pidfd = os.pidfd_open(self.pid)
        with os.fdopen(reading, "rb") as file:
            size = int.from_bytes(file.read(8))
            is_good, self.result = pickle.loads(file.read(size))
        if not is_good:
            self.end()
            raise self.result

    def kill(self):
        """Kills it and waits until it is gone; its pidfd stays."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None

    def end(self):
        self.kill()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def run_as(uid, function, *arguments):
    """What the function returns, or raises, in a process of that uid."""
    with Process(uid, function, *arguments) as process:
        return process.result
