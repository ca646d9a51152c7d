"""The floor of reading: a handler that returns what one Redis GET gives it."""

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gears.process.settings import Settings

redis: Redis = Redis.from_url(Settings().redis_url)


async def put(request: Request) -> Response:
    body = await request.body()
    await redis.set(f"bare:{request.path_params['id']}", body)
    return Response(body, media_type="application/json")


async def get(request: Request) -> Response:
    document = await redis.get(f"bare:{request.path_params['id']}")
    return Response(document, media_type="application/json")


app = Starlette(routes=[Route("/bare/{id}", put, methods=["PUT"]), Route("/bare/{id}", get, methods=["GET"])])
