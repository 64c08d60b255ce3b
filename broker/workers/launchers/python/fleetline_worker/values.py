"""Values on the wire (`TypedData`) and the objects that functions see, by `azure.functions`' converters.

A binding type that `azure.functions` knows has a converter in its registry; every other one is
generic: text and bytes go in as they are, and text, bytes, numbers, lists and objects come out.
"""

import json
import logging
from email.utils import parsedate_to_datetime

from azure.functions import get_binding_registry
from azure.functions.meta import Datum


class Generic:
    """Bindings without a converter of their own, and those asked for as `str` or `bytes`."""

    @classmethod
    def has_trigger_support(cls):
        return False

    @classmethod
    def check_input_type_annotation(cls, hint):
        return issubclass(hint, (str, bytes))

    @classmethod
    def check_output_type_annotation(cls, hint):
        return issubclass(hint, (str, bytes, bytearray))

    @classmethod
    def decode(cls, datum, *, trigger_metadata):
        # JSON goes in as its text: what it means is the function's affair.
        return datum.value if datum.type == "json" else datum.python_value

    @classmethod
    def encode(cls, value, *, expected_type):
        if isinstance(value, str):
            return Datum(value, "string")
        if isinstance(value, (bytes, bytearray)):
            return Datum(bytes(value), "bytes")
        if isinstance(value, (dict, list, tuple, bool)):
            return Datum(json.dumps(value), "json")
        if isinstance(value, int):
            return Datum(value, "int")
        if isinstance(value, float):
            return Datum(value, "double")
        if value is None:
            return Datum(None, None)
        raise NotImplementedError


def converter(kind):
    return get_binding_registry().get(kind) or Generic


def implies_return(kind):
    """Whether a binding of this type lets its function return a value without `$return`."""
    found = converter(kind)
    if found is Generic:
        return kind not in ("durableClient", "generic")
    check = getattr(found, "has_implicit_output", None)
    return bool(check and check())


def accepts(kind, hint, is_out):
    found = converter(kind)
    name = "check_output_type_annotation" if is_out else "check_input_type_annotation"
    try:
        return bool(getattr(found, name)(hint))
    except (AttributeError, TypeError):
        return False  # no such direction, or not an annotation that it can judge


def decode(kind, data, metadata):
    datum = datum_of(data)
    if datum is None:
        return None
    found = converter(kind)
    try:
        return found.decode(datum, trigger_metadata=metadata if found.has_trigger_support() else {})
    except NotImplementedError:
        raise TypeError(f'a value of the form "{datum.type}" cannot be read as "{kind}"') from None


def encode(protos, kind, value, hint):
    try:
        datum = converter(kind).encode(value, expected_type=hint)
    except (NotImplementedError, AttributeError):
        message = f'unable to encode a value of the type "{type(value).__name__}" for the binding type "{kind}"'
        raise TypeError(message) from None
    return data_of(protos, datum)


def datum_of(data):
    form = data.WhichOneof("data")
    if form is None:
        return None
    if form == "stream":
        return Datum(data.stream, "bytes")
    if form == "http":
        return Datum(http_in(data.http), "http")
    return Datum(getattr(data, form), form)


def http_in(http):
    def texts(plain, nullable):
        found = {name: Datum(text, "string") for name, text in plain.items()}
        found.update((name, Datum(text.value, "string")) for name, text in nullable.items())
        return found

    return {
        "method": Datum(http.method, "string"),
        "url": Datum(http.url, "string"),
        "headers": texts(http.headers, http.nullable_headers),
        "query": texts(http.query, http.nullable_query),
        "params": texts(http.params, http.nullable_params),
        "body": datum_of(http.body) or Datum(b"", "bytes"),
    }


def data_of(protos, datum):
    """`datum` as TypedData, or `None` for no value."""
    if datum is None or datum.type is None:
        return None
    if datum.type == "http":
        return protos.TypedData(http=http_out(protos, datum.value))
    if datum.type in ("string", "json", "bytes", "int", "double"):
        return protos.TypedData(**{datum.type: datum.value})
    if datum.type in ("dict", "list", "bool"):
        return protos.TypedData(json=json.dumps(datum.value))
    raise TypeError(f'a result of the form "{datum.type}" is not known')


def http_out(protos, value):
    cookies = []
    for jar in value.get("cookies") or []:
        cookies.extend(cookie(protos, name, morsel) for name, morsel in jar.items())
    return protos.RpcHttp(
        status_code=value["status_code"].value,
        headers={name: datum.value for name, datum in value["headers"].items()},
        cookies=cookies,
        body=data_of(protos, value["body"]),
    )


SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "ExplicitNone"}


def cookie(protos, name, morsel):
    result = protos.RpcHttpCookie(name=name, value=morsel.value)
    for field in ("domain", "path"):
        if morsel[field]:
            getattr(result, field).value = morsel[field]
    result.secure.value = bool(morsel["secure"])
    result.http_only.value = bool(morsel["httponly"])
    result.same_site = SAME_SITE.get(morsel["samesite"].lower(), "None")
    if morsel["max-age"]:
        result.max_age.value = float(morsel["max-age"])
    if morsel["expires"]:
        try:
            time = parsedate_to_datetime(morsel["expires"])
            result.expires.value.seconds = int(time.timestamp())
        except (TypeError, ValueError):
            logging.warning("the cookie %s has an end that is no date: %s", name, morsel["expires"])
    return result
