import azure.functions as func

from ..shared import GREETING


def main(req: func.HttpRequest, out: func.Out[str]) -> func.HttpResponse:
    out.set(f"{req.method} {req.url}")
    return func.HttpResponse(f"{GREETING}, {req.params.get('name')}")
