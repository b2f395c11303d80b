"""Ranks for tests: forked from this process, which has torch loaded already, and gone when the test is over."""

import multiprocessing
import os
import pickle
import socket
import traceback
from multiprocessing.connection import wait
from time import monotonic

import torch

SECONDS = 170.0  # a limit for what hangs, and ten times what it takes


def on_ranks(function, *arguments, size=2, seconds=SECONDS):
    """`function(rank, *arguments)` in `size` processes that can join by gloo; what each returned, by rank.

    AssertionError, with the traceback, for a rank that failed or took longer. None of them lives on.
    """
    context = multiprocessing.get_context("fork")
    port = free_port()
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_run, args=(function, arguments, rank, size, port, sender))
        for rank, (_, sender) in enumerate(ends)
    ]
    torch.set_num_threads(1)
    for process in processes:
        process.start()
    for _, sender in ends:
        sender.close()
    results, deadline = {}, monotonic() + seconds
    try:
        while len(results) < size:
            waiting = {receiver: rank for rank, (receiver, _) in enumerate(ends) if rank not in results}
            ready = wait(list(waiting), timeout=max(0.0, deadline - monotonic()))
            assert ready, f"ranks {sorted(waiting.values())} took more than {seconds:g} s"
            for receiver in ready:
                try:
                    results[waiting[receiver]] = pickle.loads(receiver.recv_bytes())
                except EOFError:
                    results[waiting[receiver]] = "error", "it ended without a word"
                told, value = results[waiting[receiver]]
                assert told == "result", f"rank {waiting[receiver]}: {value}"
        for process in processes:
            process.join(timeout=max(0.1, deadline - monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [results[rank][1] for rank in range(size)]


def _run(function, arguments, rank, size, port, sender):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    try:
        sender.send_bytes(pickle.dumps(("result", function(rank, *arguments))))  # multiprocessing would share tensors
    except BaseException:
        sender.send_bytes(pickle.dumps(("error", traceback.format_exc())))
    sender.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
