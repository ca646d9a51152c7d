"""Cache-aside: the handler writes to MongoDB and deletes the cached copy, which the next read brings back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import WriteConcern
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gears.process.settings import Settings

settings = Settings()
redis: Redis = Redis.from_url(settings.redis_url)
mongo: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(settings.mongo_uri)
documents = mongo.writethrough_bench.get_collection("aside", write_concern=WriteConcern("majority", j=True))


async def put(request: Request) -> Response:
    document = await request.json()
    document_id = request.path_params["id"]
    await documents.replace_one({"id": document_id}, document, upsert=True)
    await redis.delete(f"aside:{document_id}")
    document.pop("_id", None)
    return JSONResponse(document)


async def get(request: Request) -> Response:
    document_id = request.path_params["id"]
    cached = await redis.get(f"aside:{document_id}")
    if cached is not None:
        return Response(cached, media_type="application/json")
    response = JSONResponse(await documents.find_one({"id": document_id}, {"_id": 0}))
    await redis.set(f"aside:{document_id}", response.body, ex=3600)
    return response


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    await documents.create_index("id", unique=True)
    yield


app = Starlette(
    routes=[Route("/aside/{id}", put, methods=["PUT"]), Route("/aside/{id}", get, methods=["GET"])], lifespan=lifespan
)
