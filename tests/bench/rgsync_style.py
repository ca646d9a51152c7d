"""As rgsync would, if it ran: one write at a time, as in Redis's thread, each with a new MongoDB client."""

from typing import Any

import anyio
from anyio import to_thread
from pymongo import MongoClient, WriteConcern
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gears.process.settings import Settings

settings = Settings()
redis: Redis = Redis.from_url(settings.redis_url)
thread = anyio.CapacityLimiter(1)


def write(document_id: str, document: dict[str, Any]) -> None:
    with MongoClient[dict[str, Any]](settings.mongo_uri) as mongo:
        documents = mongo.writethrough_bench.get_collection("rgsync", write_concern=WriteConcern("majority", j=True))
        documents.update_one({"_id": document_id}, {"$set": document}, upsert=True)


async def put(request: Request) -> JSONResponse:
    document = await request.json()
    document_id = request.path_params["id"]
    await to_thread.run_sync(write, document_id, document, limiter=thread)
    await redis.json().set(f"rgsync:{document_id}", "$", document)
    return JSONResponse(document)


app = Starlette(routes=[Route("/rgsync/{id}", put, methods=["PUT"])])
