"""The stream to the node: reads its messages, lets an engine answer them, writes what comes back.

One asyncio loop owns the stream. Log lines come from any thread; they go through the loop in the
order in which they were written, and before the response of their invocation. Lines that the node
doesn't take as fast as they are written are dropped beyond a bound, and counted.
"""

import argparse
import asyncio
import logging
import os
import sys
import threading

import grpc
from grpc import aio

from . import logs, messages

# Lines that wait to be sent. A flood of logs must not become a flood of memory.
MOST_LINES = 10_000
# Room that a message's frame takes beside its content.
MARGIN = 4096

logger = logging.getLogger("fleetline.worker")


def arguments(argv):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--workerId", dest="worker_id", required=True)
    parser.add_argument("--grpcMaxMessageLength", dest="longest", type=int, default=64 << 20)
    return parser.parse_known_args(argv)[0]


def run(argv, secret):
    args = arguments(argv)
    code = asyncio.run(Link(args, secret).serve())
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of functions that still run would keep the interpreter from ending.
    os._exit(code)


class Link:
    def __init__(self, args, secret):
        self.args = args
        self.secret = secret
        self.protos = messages.load()
        self.tasks = set()
        self.lines = 0
        self.dropped = 0
        self.engine = None

    async def serve(self):
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.outgoing = asyncio.Queue()
        self.handler = logs.Handler(self, self.protos)
        logs.install(self.handler)
        address = f"{self.args.host}:{self.args.port}"
        options = [
            ("grpc.max_send_message_length", self.args.longest),
            ("grpc.max_receive_message_length", self.args.longest),
            # An app's proxy is not for the way to its own node.
            ("grpc.enable_http_proxy", 0),
        ]
        message = self.protos.StreamingMessage
        async with aio.insecure_channel(address, options=options) as channel:
            method = channel.stream_stream(
                messages.METHOD,
                request_serializer=message.SerializeToString,
                response_deserializer=message.FromString,
            )
            metadata = (("fleetline-worker", self.args.worker_id), ("fleetline-secret", self.secret))
            self.secret = None
            self.stream = method(metadata=metadata)
            start = self.protos.StartStream(worker_id=self.args.worker_id)
            await self.stream.write(message(start_stream=start))
            writer = asyncio.create_task(self.write())
            try:
                return await self.read()
            except aio.AioRpcError as error:
                print(f"worker: the stream ended: {error.code().name} {error.details()}", file=sys.stderr)
                return 1
            finally:
                writer.cancel()

    async def read(self):
        while True:
            message = await self.stream.read()
            if message is aio.EOF:
                return 0
            kind = message.WhichOneof("content")
            if kind == "worker_terminate":
                return 0
            handle = getattr(self, "on_" + kind, None) if kind else None
            if handle is None:
                continue  # §6.1: "Unknown messages are ignored by workers."
            task = asyncio.create_task(self.answer(handle, message))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def answer(self, handle, message):
        try:
            reply = await handle(message)
        except Exception as error:  # an engine answers failures itself: this is a fault of ours
            logger.exception("a message of the host was not handled: %s", error)
            return
        if reply is not None:
            reply.request_id = message.request_id
            self.outgoing.put_nowait(self.fitting(reply))

    def fitting(self, reply):
        """`reply`, or what replaces it when it is too large for the stream."""
        if reply.WhichOneof("content") != "invocation_response":
            return reply
        size = reply.ByteSize()
        if size + MARGIN <= self.args.longest:
            return reply
        error = ValueError(f"the result has {size} bytes, allowed are {self.args.longest - MARGIN}")
        response = self.protos.InvocationResponse(
            invocation_id=reply.invocation_response.invocation_id,
            result=messages.failure(self.protos, error),
        )
        return self.protos.StreamingMessage(request_id=reply.request_id, invocation_response=response)

    async def write(self):
        while True:
            message = await self.outgoing.get()
            if message.HasField("rpc_log"):
                self.lines -= 1
            await self.stream.write(message)
            if self.dropped and self.lines < MOST_LINES // 2:
                dropped, self.dropped = self.dropped, 0
                logger.warning("%d log lines were dropped: more were written than could be sent", dropped)

    def log(self, line):
        """Takes a line from any thread."""
        message = self.protos.StreamingMessage(rpc_log=line)
        if threading.get_ident() == self.thread:
            self.put_line(message)
        elif self.lines >= MOST_LINES:
            self.dropped += 1
        else:
            self.loop.call_soon_threadsafe(self.put_line, message)

    def put_line(self, message):
        if self.lines >= MOST_LINES:
            self.dropped += 1
            return
        self.lines += 1
        self.outgoing.put_nowait(message)

    # What the node asks for. Each handler returns the message to send.

    async def on_worker_init_request(self, message):
        from . import engine

        request = message.worker_init_request
        self.engine = engine.choose(self, request.function_app_directory)
        reply = await self.engine.init(message)
        # What the stream does itself, whatever the engine is.
        reply.capabilities["HandlesWorkerTerminateMessage"] = "true"
        reply.capabilities["WorkerStatus"] = "true"
        return self.protos.StreamingMessage(worker_init_response=reply)

    async def on_functions_metadata_request(self, message):
        reply = await self.engine.metadata(message)
        return self.protos.StreamingMessage(function_metadata_response=reply)

    async def on_function_load_request(self, message):
        reply = await self.engine.load(message)
        return self.protos.StreamingMessage(function_load_response=reply)

    async def on_invocation_request(self, message):
        reply = await self.engine.invoke(message)
        return self.protos.StreamingMessage(invocation_response=reply)

    async def on_worker_status_request(self, message):
        return self.protos.StreamingMessage(worker_status_response=self.protos.WorkerStatusResponse())
