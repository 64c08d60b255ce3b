"""Finds an app's functions and says how each is called: its parameters, outputs and return value.

Follows the rules of `azure.functions`: a parameter is bound by its name; an output is `Out[T]`;
`context` may be asked for; a value may be returned when there is a `$return` binding, or a binding
that implies one. Annotations that don't fit the binding are errors when the function is loaded.
"""

import dataclasses
import importlib
import inspect
import os
import pathlib
import sys
import types
import typing

from . import values

IN, OUT, INOUT = 0, 1, 2


class LoadError(RuntimeError):
    def __init__(self, function, message):
        super().__init__(f"cannot load the {function} function: {message}")


@dataclasses.dataclass
class Parameter:
    kind: str
    annotation: typing.Any


@dataclasses.dataclass
class Function:
    name: str
    directory: str
    call: typing.Callable
    is_async: bool
    wants_context: bool
    inputs: typing.Dict[str, Parameter]
    outputs: typing.Dict[str, Parameter]
    returns: typing.Optional[Parameter]


@dataclasses.dataclass
class Bound:
    """A binding as far as a call needs it."""

    name: str
    kind: str
    direction: int


def app(script):
    """The functions of the v2 model: what the app object in `script` has collected."""
    from azure.functions import FunctionRegister

    module = importlib.import_module(pathlib.Path(script).stem)
    apps = {id(value): value for value in vars(module).values() if isinstance(value, FunctionRegister)}
    if len(apps) != 1:
        found = "no app object" if not apps else f"{len(apps)} app objects"
        raise ValueError(f"{script} has {found} at its top level; one is needed")
    return next(iter(apps.values())).get_functions()


def function_of_app(function, root):
    bindings = [Bound(b.name, b.type, b.direction) for b in function.get_bindings()]
    call = function.get_user_function()
    return describe(function.get_function_name(), root, call, bindings)


def function_of_folder(protos, metadata, root):
    """A function of the v1 model, as its function.json describes it."""
    script = pathlib.Path(metadata.script_file)
    try:
        relative = script.relative_to(root)
    except ValueError:
        raise LoadError(metadata.name, f"its script {script} is not in the app") from None
    if script.suffix != ".py":
        raise LoadError(metadata.name, f"its script {script.name} is not a Python file")
    package = app_package(root)
    parts = [package, *relative.parts[:-1]]
    if script.stem != "__init__":
        parts.append(script.stem)
    module = importlib.import_module(".".join(parts))
    entry = metadata.entry_point or "main"
    call = getattr(module, entry, None)
    if not callable(call):
        raise LoadError(metadata.name, f"there is no function {entry} in {relative}")
    bindings = [Bound(name, info.type, info.direction) for name, info in metadata.bindings.items()]
    return describe(metadata.name, metadata.directory, call, bindings)


def app_package(root):
    """The package that the functions of the v1 model are imported from, by which they find each other."""
    name = "__app__"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [root]
        sys.modules[name] = package
    return name


def describe(name, directory, call, bindings):
    for binding in bindings:
        if binding.direction == INOUT:
            raise LoadError(name, '"inout" bindings are not supported')
        if binding.name == "$return" and binding.direction != OUT:
            raise LoadError(name, '"$return" binding must have direction set to "out"')
    parameters = dict(inspect.signature(call).parameters)
    hints = typing.get_type_hints(call)
    bound = {binding.name: binding for binding in bindings if binding.name != "$return"}
    wants_context = "context" in parameters and "context" not in bound
    if wants_context:
        del parameters["context"]
        check_context(name, hints.get("context"))
    compare_names(name, set(parameters), set(bound))
    inputs, outputs = {}, {}
    for parameter in parameters:
        binding = bound[parameter]
        target = outputs if binding.direction == OUT else inputs
        target[parameter] = describe_parameter(name, binding, hints.get(parameter, inspect.Parameter.empty))
    return Function(
        name=name,
        directory=directory,
        call=call,
        is_async=inspect.iscoroutinefunction(call),
        wants_context=wants_context,
        inputs=inputs,
        outputs=outputs,
        returns=describe_return(name, bindings, hints),
    )


def check_context(name, hint):
    if hint is not None and getattr(hint, "__name__", "") != "Context":
        message = f'the "context" parameter is expected to be of type azure.functions.Context, got "{hint!r}"'
        raise LoadError(name, message)


def compare_names(name, declared, bound):
    if declared - bound:
        message = "the following parameters are declared in Python but not in the function definition: "
        raise LoadError(name, message + repr(declared - bound))
    if bound - declared:
        message = "the following parameters are declared as bindings but are not present in Python: "
        raise LoadError(name, message + repr(bound - declared))


def describe_parameter(name, binding, hint):
    if hint is inspect.Parameter.empty:
        return Parameter(binding.kind, None)
    origin = typing.get_origin(hint) or hint
    is_out = getattr(origin, "__name__", "") == "Out"
    if is_out != (binding.direction == OUT):
        way = "out" if binding.direction == OUT else "in"
        raise LoadError(
            name,
            f'binding {binding.name} is declared to have the "{way}" direction, but its annotation in '
            f"Python is {'azure.functions.Out' if is_out else 'not azure.functions.Out'}",
        )
    if is_out:
        arguments = typing.get_args(hint)
        hint = arguments[0] if arguments else typing.Any
    kind = binding.kind
    if hint in (str, bytes) and not values.implies_return(kind):
        kind = "generic"
    if not isinstance(hint, typing.TypeVar) and hint is not typing.Any:
        if not values.accepts(kind, hint, is_out):
            text = getattr(hint, "__name__", repr(hint))
            message = f'type of {binding.name} binding "{binding.kind}" does not match its Python annotation "{text}"'
            raise LoadError(name, message)
    return Parameter(kind, hint)


def describe_return(name, bindings, hints):
    explicit = next((binding for binding in bindings if binding.name == "$return"), None)
    hint = hints.get("return")
    if explicit is None:
        implied = [binding for binding in bindings if values.implies_return(binding.kind)]
        return Parameter(implied[-1].kind, hint) if implied else None
    if getattr(typing.get_origin(hint) or hint, "__name__", "") == "Out":
        raise LoadError(name, "return annotation should not be azure.functions.Out")
    if isinstance(hint, type) and hint is not type(None) and typing.get_origin(hint) is None:
        if not values.accepts(explicit.kind, hint, True):
            message = f'Python return annotation "{hint.__name__}" does not match binding type "{explicit.kind}"'
            raise LoadError(name, message)
    return Parameter(explicit.kind, hint)


def retry(protos, function):
    """The function's retry policy as the host reads it, or `None`."""
    settings = function.get_settings_dict("retry_policy")
    if not settings:
        return None
    strategy = str(settings.get("strategy") or "fixed_delay")
    count = settings.get("max_retry_count")
    options = protos.RpcRetryOptions(max_retry_count=-1 if count in (None, "") else int(count))
    if strategy.replace("_", "").lower() == "fixeddelay":
        options.retry_strategy = protos.RpcRetryOptions.fixed_delay
    else:
        options.retry_strategy = protos.RpcRetryOptions.exponential_backoff
    for field in ("delay_interval", "minimum_interval", "maximum_interval"):
        text = settings.get(field)
        if text:
            hours, minutes, seconds = (int(part) for part in str(text).split(":"))
            getattr(options, field).seconds = (hours * 60 + minutes) * 60 + seconds
    return options


