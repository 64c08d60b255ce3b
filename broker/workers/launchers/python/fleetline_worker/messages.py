"""The message classes of FunctionRpc, made at start from the descriptor that the node has written.

`protos` of other modules is the object that `load` returns: every message of the protocol is an
attribute of it, as with generated code.
"""

import os
import types

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/AzureFunctionsRpcMessages.FunctionRpc/EventStream"
PACKAGE = "AzureFunctionsRpcMessages"


def load():
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "..", "worker.descriptor")
    with open(path, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    # A pool of its own: an app may bring another copy of the same protocol.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    protos = types.SimpleNamespace()
    for file in files.file:
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            setattr(protos, message.name, cls)
    return protos


def failure(protos, error, is_user=True):
    """A `StatusResult` that says what went wrong."""
    import traceback

    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__} (its message can't be made)"
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    exception = protos.RpcException(
        message=text, stack_trace=stack, type=type(error).__name__, is_user_exception=is_user
    )
    return protos.StatusResult(status=protos.StatusResult.Failure, exception=exception)


def success(protos):
    return protos.StatusResult(status=protos.StatusResult.Success)
