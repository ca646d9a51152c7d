"""What people do instead: the handler writes to MongoDB, on a majority and in the journal, and then to Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import WriteConcern
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gears.process.settings import Settings

settings = Settings()
redis: Redis = Redis.from_url(settings.redis_url)
mongo: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(settings.mongo_uri)
documents = mongo.writethrough_bench.get_collection("dual", write_concern=WriteConcern("majority", j=True))


async def put(request: Request) -> JSONResponse:
    document = await request.json()
    document_id = request.path_params["id"]
    await documents.replace_one({"id": document_id}, document, upsert=True)
    document.pop("_id", None)
    await redis.json().set(f"dual:{document_id}", "$", document)
    return JSONResponse(document)


async def get(request: Request) -> JSONResponse:
    document_id = request.path_params["id"]
    document = await redis.json().get(f"dual:{document_id}")
    if document is None:
        document = await documents.find_one({"id": document_id}, {"_id": 0})
    return JSONResponse(document)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    await documents.create_index("id", unique=True)
    yield


app = Starlette(
    routes=[Route("/dual/{id}", put, methods=["PUT"]), Route("/dual/{id}", get, methods=["GET"])], lifespan=lifespan
)
