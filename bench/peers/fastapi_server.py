"""FastAPI by hand: the network in uvicorn's own process; with a batch size above 1, waiting requests are batched."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, Response

from bench.peers.predictor import BATCH, PORT, WORKERS, Predictor

predictor: Predictor
waiting: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]]


async def answer_batches() -> None:
    while True:
        jobs = [await waiting.get()]
        # Let the event loop read the requests that have arrived.
        await asyncio.sleep(0)
        while len(jobs) < BATCH and not waiting.empty():
            jobs.append(waiting.get_nowait())
        for (_, answer), body in zip(jobs, predictor([body for body, _ in jobs]), strict=True):
            answer.set_result(body)


@asynccontextmanager
async def lifespan(_: FastAPI):
    global predictor, waiting
    predictor, waiting = Predictor(), asyncio.Queue()
    batches = asyncio.create_task(answer_batches())
    yield
    batches.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> Response:
    body = await request.body()
    if BATCH == 1:
        return Response(predictor([body])[0], media_type="application/json")
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    waiting.put_nowait((body, answer))
    return Response(await answer, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        "bench.peers.fastapi_server:app",
        port=PORT,
        workers=WORKERS,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
